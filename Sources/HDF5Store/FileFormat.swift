import Results

/// The kinds of HDF5 files that NormLens writes, told apart by the root attribute `format`.
enum FileFormat: String, CaseIterable {
  case model = "normlens-model"
  case result = "normlens-result"

  var version: Int { 1 }

  private var noun: String {
    switch self {
    case .model: "a NormLens model file"
    case .result: "a NormLens result file"
    }
  }

  private var advice: String {
    switch self {
    case .model: "give a model, or make one with 'normlens convert'"
    case .result: "give a file that a normlens analysis wrote with -o"
    }
  }

  /// Fails unless the file says that it is of this kind and of a version that is known here.
  func check(_ root: HDF5Object) throws(HDF5Error) {
    let path = root.file.path
    guard let found = try root.attribute("format") else {
      throw .wrongKind(
        path: path, expected: noun, found: "an HDF5 file that NormLens did not write",
        advice: advice)
    }
    guard found == .string(rawValue) else {
      let other = FileFormat.allCases.first { found == .string($0.rawValue) }
      throw .wrongKind(
        path: path, expected: noun, found: other?.noun ?? "format '\(found)'", advice: advice)
    }
    let versionFound = try root.attribute("format_version")
    guard versionFound == .integer(version) else {
      throw .wrongKind(
        path: path, expected: "\(noun) of format_version \(version)",
        found: versionFound.map { "version \($0)" } ?? "no version",
        advice: "use the normlens that wrote it, or write it again")
    }
  }
}
