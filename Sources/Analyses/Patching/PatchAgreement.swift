public import Results

/// How far estimates of patching effects are from the exact ones.
public enum PatchAgreement {
  /// Group `patch/agreement` of a result that has `patch/activation` and groups of estimates.
  public static func group(of result: ResultSet) throws(AnalysisError) -> ResultGroup {
    preconditionFailure("PatchAgreement.group is not written yet")
  }
}
