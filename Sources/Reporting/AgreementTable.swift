public import Results

private let agreementColumns: [(name: String, title: String, decimals: Int)] = [
  ("pearson", "Pearson", 3), ("spearman", "Spearman", 3), ("top10_overlap", "top-10 overlap", 2),
  ("sign_flips", "sign flips", 2), ("abs_error", "Σ|error|", 3),
]

/// The variables that `agreementTable` shows.
let agreementVariables = agreementColumns.map(\.name)

/// Agreement of estimated patching effects with the exact ones as a table, a row for each site and
/// method: group `patch/agreement` of a result.
///
/// - Returns: the table; nil where the group has no such variables.
public func agreementTable(_ group: ResultGroup) -> String? {
  guard let methods = group[dimension: "method"], let sites = group[dimension: "site"] else {
    return nil
  }
  let values = agreementVariables.compactMap { group[variable: $0]?.values.doubles }
  guard values.count == agreementColumns.count else { return nil }
  var table = TextTable(
    [("site", .left), ("method", .left)] + agreementColumns.map { ($0.title, .right) })
  for site in 0..<sites.count {
    for method in 0..<methods.count {
      let cell = method * sites.count + site
      table.add(
        [sites.label(at: site), methods.label(at: method).replacing("_", with: "-")]
          + zip(agreementColumns, values).map { column, values in
            fixedOrDash(values[cell], column.decimals)
          })
    }
  }
  return table.text
}
