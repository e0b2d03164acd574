public import Results

extension ResultSet {
  /// An exact sweep together with estimates of it and how far they agree.
  ///
  /// ```swift
  /// let sweep = ActivationPatching(of: PatchSite.blocks)
  /// let estimates = try AttributionPatching(of: sweep, by: [.attribution, .relevance(.relp)])
  ///   .run(model, pairs)
  /// let result = try sweep.run(model, pairs).compared(with: estimates)
  /// ```
  ///
  /// - Parameter estimates: what `AttributionPatching.run` returned for the same sweep and pairs.
  /// - Returns: groups `patch`, `patch/activation`, one for each estimate, and `patch/agreement`; what
  ///   either result warned of is said once.
  /// - Throws: `AnalysisError` where there is nothing to compare.
  public func compared(with estimates: ResultSet) throws(AnalysisError) -> ResultSet {
    var (result, more) = (self, estimates)
    more.groups.removeAll { self[group: $0.path] != nil }
    result = result.merged(with: more)
    if let patch = result.groups.firstIndex(where: { $0.path == "patch" }) {
      var warnings = result.groups[patch].warnings
      let others = estimates[group: "patch"]?.warnings ?? []
      warnings += others.filter { !warnings.contains($0) }
      if !warnings.isEmpty { result.groups[patch].attributes["warnings"] = .strings(warnings) }
    }
    result.groups.append(try PatchAgreement.group(of: result))
    return result
  }
}

extension ResultGroup {
  /// What a reader was warned of.
  fileprivate var warnings: [String] {
    if case .strings(let texts)? = attributes["warnings"] { texts } else { [] }
  }
}
