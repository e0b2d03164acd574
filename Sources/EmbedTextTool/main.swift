import Foundation

/// `EmbedTextTool OUTPUT.swift FILE…`: an enum with each file's text as a raw string literal.
/// `d3.min.js` becomes `EmbeddedText.d3_min_js`.
var source = "/// Files of this target as text.\nenum EmbeddedText {\n"
for path in CommandLine.arguments.dropFirst(2) {
  let url = URL(fileURLWithPath: path)
  let text = try String(contentsOf: url, encoding: .utf8)
  let name = String(url.lastPathComponent.map { $0.isLetter || $0.isNumber ? $0 : "_" })
  let fence = String(repeating: "#", count: 8)
  guard !text.contains("\"\"\"" + fence), !text.contains("\\" + fence) else {
    FileHandle.standardError.write(Data("\(path): contains \(fence)\n".utf8))
    exit(1)
  }
  source += "  static let \(name) = \(fence)\"\"\"\n\(text)\n\"\"\"\(fence)\n"
}
try (source + "}\n").write(toFile: CommandLine.arguments[1], atomically: true, encoding: .utf8)
