import HDF5Store
public import Results

/// A result file that is written while the analysis runs: the values of each prompt as they are
/// found, the findings over all prompts at the end. It appears complete or not at all.
public final class ResultStream: PromptSink {
  private let writer: ResultFileWriter
  private let tables: [String: PromptTable]

  /// Begins a file.
  ///
  /// - Parameters:
  ///   - path: the file.
  ///   - title: one sentence that says what it is.
  ///   - provenance: where the numbers come from.
  ///   - tables: what is written prompt by prompt.
  /// - Throws: `HDF5Error`.
  public init(
    path: String, title: String, provenance: Provenance, tables: [PromptTable]
  ) throws {
    self.tables = Dictionary(uniqueKeysWithValues: tables.map { ($0.group.path, $0) })
    writer = try ResultFileWriter(
      path: path, title: title, provenance: provenance,
      groups: tables.map { table in
        ResultFileWriter.Group(
          table.group,
          further: (table.variables + table.findings).map { ResultFileWriter.Variable($0) })
      })
    for table in tables { try writer.write(table.group) }
  }

  /// Writes one prompt's values.
  ///
  /// - Throws: `HDF5Error`.
  public func take(_ path: String, _ variable: String, prompt: Int, _ values: [Float]) throws {
    guard let table = tables[path],
      let declared = table.variables.first(where: { $0.name == variable })
    else { preconditionFailure("ResultStream: no variable '\(path)/\(variable)'") }
    let rest = table.group.shape(of: declared).dropFirst()
    try writer.write(
      group: path, variable: variable, start: [prompt] + rest.map { _ in 0 }, count: [1] + rest,
      values: .float32(values))
  }

  /// Adds what was found over all prompts and gives the file its name.
  ///
  /// - Throws: `HDF5Error`; then nothing of the file is left.
  public func finish(_ findings: [ResultGroup]) throws {
    try writer.add(findings.filter { !isDeclared($0) }.map { ResultFileWriter.Group($0) })
    for group in findings { try writer.write(group) }
    try writer.finish()
  }

  /// Whether a group holds nothing but the findings that its table announced.
  private func isDeclared(_ group: ResultGroup) -> Bool {
    guard let findings = tables[group.path]?.findings, !findings.isEmpty else { return false }
    let names = Set(findings.map(\.name))
    return group.variables.allSatisfy { names.contains($0.name) }
  }
}
