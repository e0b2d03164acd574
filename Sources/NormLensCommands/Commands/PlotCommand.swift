import ArgumentParser
import Foundation
import NormLens

/// `normlens plot`: the pictures of a result file.
struct PlotCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "plot", abstract: "Draw a result file as SVG pictures.",
    discussion: """
      Each picture is one file, named by the analysis and the variable; what is drawn how follows \
      from the result's own axes. A picture of several prompts shows their mean, or the first of them.
      """)

  @Argument(help: "A result file.", completion: .file()) var file: String
  @Option(
    name: .shortAndLong,
    help: ArgumentHelp("Write the pictures to this directory.", valueName: "directory"),
    completion: .directory)
  var output: String?
  @Option(
    help: ArgumentHelp("Only pictures whose name contains this; repeatable.", valueName: "text"))
  var only: [String] = []
  @Flag(help: "List the pictures instead of drawing them.") var list = false
  @Option(help: ArgumentHelp("Draw this prompt, counted from 0.", valueName: "n"))
  var prompt: Int?
  @Flag(help: "Draw every prompt and their mean, a file each.") var allPrompts = false
  @Option(
    help: ArgumentHelp("The pictures' width in pixels; a paper's column is 340.", valueName: "px"))
  var width = 700
  @Flag(help: "Print JSON instead of a table.") var json = false
  @Flag(help: "Print nothing but errors.") var quiet = false

  func validate() throws {
    if !(200...4000).contains(width) {
      throw ValidationError("--width \(width): expected 200 to 4000 pixels")
    }
    if let prompt, prompt < 0 {
      throw ValidationError("--prompt \(prompt): expected 0 or more")
    }
    if prompt != nil && allPrompts {
      throw ValidationError("--prompt and --all-prompts exclude each other; leave one out")
    }
    if only.contains("") {
      throw ValidationError("--only '': expected a part of a name, found an empty text")
    }
    if output == nil && !list {
      throw ValidationError("expected -o <directory>, or --list to see what there is")
    }
  }

  func run() throws {
    if let output, !list { try Self.checkDirectory(output) }
    Interruption.install()
    // Prompts that are named may lie anywhere in a large file.
    let limit = allPrompts || prompt != nil ? Int.max : ShowCommand.maximumBytes
    let result = try ResultFile.read(file, maximumBytes: limit)
    var limits = PictureLimits()
    if allPrompts { limits.prompts = .max }
    if let prompt { limits.prompts = max(limits.prompts, prompt &+ 1) }
    let pictures = try select(PictureBook(limits: limits).pictures(of: result))
    guard let output, !list else {
      if !quiet { Terminal.print(json ? Self.json(pictures) : Self.listing(pictures)) }
      return
    }
    let files = try draw(pictures, in: output)
    if quiet { return }
    Terminal.print(json ? Self.json(files) : Self.table(files))
    if !json {
      Terminal.print("\nwrote \(files.count) picture\(files.count == 1 ? "" : "s") to \(output)")
    }
  }

  // MARK: which pictures

  /// The pictures that `--only` asks for.
  private func select(_ pictures: [Picture]) throws(CommandError) -> [Picture] {
    if pictures.isEmpty {
      throw CommandError("\(file): there is nothing to draw in it", status: .data)
    }
    for part in only where !pictures.contains(where: { $0.name.contains(part) }) {
      let names = pictures.map(\.name)
      let near =
        nearestText(to: part, among: names)
        ?? nearestText(to: part, among: names.flatMap { $0.split(separator: "-").map(String.init) })
      throw CommandError(
        "--only '\(part)': no picture of that name in \(file)"
          + (near.map { "; did you mean '\($0)'?" } ?? "") + "; --list shows all")
    }
    return only.isEmpty
      ? pictures : pictures.filter { picture in only.contains { picture.name.contains($0) } }
  }

  /// The views to be drawn of a picture. One that has no prompts is drawn as it is.
  private func views(of picture: Picture) -> [Int] {
    if allPrompts { return Array(picture.views.indices) }
    guard let prompt else { return [0] }
    let named = picture.views.indices.filter { Self.prompt(of: picture.views[$0]) != nil }
    return named.isEmpty
      ? [0] : named.filter { Self.prompt(of: picture.views[$0]) == prompt }
  }

  /// The number of the prompt that a view shows; nil for a mean, or where there are no prompts.
  private static func prompt(of view: Picture.View) -> Int? {
    guard view.choice.hasPrefix("prompt ") else { return nil }
    return Int(view.choice.dropFirst("prompt ".count))
  }

  /// Fails where `--prompt` names one that no picture has.
  private func checkPrompt(_ pictures: [Picture]) throws(CommandError) {
    guard let prompt else { return }
    let numbers = Set(pictures.flatMap(\.views).compactMap(Self.prompt))
    if numbers.contains(prompt) { return }
    let found =
      numbers.max().map { "the pictures are of prompts \(numbers.min() ?? 0) to \($0)" }
      ?? "no picture is of a single prompt"
    throw CommandError("--prompt \(prompt): there is none in \(file): \(found)")
  }

  // MARK: files

  /// A picture's file.
  private struct Drawn {
    let name: String
    let file: String
    let title: String
    let choice: String
    let bytes: Int
  }

  private func draw(_ pictures: [Picture], in directory: String) throws -> [Drawn] {
    try checkPrompt(pictures)
    try Self.createDirectory(directory)
    let input = FileIdentity(file)
    var progress = Progress("plot", total: pictures.count, quiet: quiet)
    var (drawn, used) = ([Drawn](), Set<String>())
    for (number, picture) in pictures.enumerated() {
      for view in views(of: picture) {
        let choice = picture.views[view].choice
        let isOne = !allPrompts || picture.views.count == 1
        let name = Self.fileName(isOne ? picture.name : "\(picture.name)-\(choice)", &used)
        let path = "\(directory)/\(name)"
        if let input, FileIdentity(path) == input {
          throw CommandError("-o \(directory): would replace the input '\(file)'; name another")
        }
        let bytes = Array(SVGPicture(width: Double(width)).text(picture, view: view).utf8)
        try FileBytes.write(bytes, to: path)
        drawn.append(
          Drawn(
            name: picture.name, file: path, title: picture.title,
            choice: picture.views.count > 1 ? choice : "", bytes: bytes.count))
      }
      progress.update(number + 1)
    }
    return drawn
  }

  /// Fails before anything is read where the directory cannot be one.
  private static func checkDirectory(_ path: String) throws(CommandError) {
    func fail(_ reason: String) throws(CommandError) {
      throw CommandError("\(path): cannot be created: \(reason)", status: .cannotCreate)
    }
    if path.isEmpty { throw CommandError("-o '': expected a directory, found an empty text") }
    switch PathKind(path) {
    case .file: try fail("a file of that name is in the way; name a directory")
    case .forbidden: try fail("no permission")
    case .directory:
      if !FileManager.default.isWritableFile(atPath: path) { try fail("no permission to write") }
    case .missing:
      let parent = URL(fileURLWithPath: path).deletingLastPathComponent().path
      if PathKind(parent) != .directory { try fail("no directory '\(parent)'") }
      if !FileManager.default.isWritableFile(atPath: parent) {
        try fail("no permission to write to '\(parent)'")
      }
    }
  }

  private static func createDirectory(_ path: String) throws(CommandError) {
    if PathKind(path) == .directory { return }
    do {
      try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
    } catch {
      throw CommandError(
        "\(path): cannot be created: the system refuses it", status: .cannotCreate)
    }
  }

  /// A name that any file system takes, different from those before it.
  private static func fileName(_ name: String, _ used: inout Set<String>) -> String {
    let safe = name.unicodeScalars.map { scalar in
      scalar.isASCII
        && (scalar.properties.isAlphabetic || "0123456789_-.+".unicodeScalars.contains(scalar))
        ? String(scalar) : "_"
    }
    var stem = String(safe.joined().prefix(150).drop { $0 == "." })
    if stem.isEmpty { stem = "picture" }
    var (candidate, number) = (stem, 1)
    // Some file systems do not tell capitals from small letters.
    while !used.insert(candidate.lowercased()).inserted {
      number += 1
      candidate = "\(stem)-\(number)"
    }
    return candidate + ".svg"
  }

  // MARK: what is printed

  private static func table(_ files: [Drawn]) -> String {
    var table = TextTable([("file", .left), ("picture", .left), ("size", .right)])
    for file in files {
      let choice = file.choice.isEmpty ? "" : " (\(file.choice))"
      table.add([
        URL(fileURLWithPath: file.file).lastPathComponent, OneLine.escaped(file.title + choice),
        bytes(file.bytes),
      ])
    }
    return table.text
  }

  private static func json(_ files: [Drawn]) -> String {
    let items = files.map { file in
      JSONText.object([
        ("name", JSONText.quoted(file.name)), ("file", JSONText.quoted(file.file)),
        ("title", JSONText.quoted(file.title)), ("view", JSONText.quoted(file.choice)),
        ("bytes", "\(file.bytes)"),
      ])
    }
    return JSONText.object([("files", JSONText.list(items))])
  }

  private static func listing(_ pictures: [Picture]) -> String {
    var table = TextTable([("name", .left), ("picture", .left), ("views", .left)])
    for picture in pictures {
      let first = picture.views[0].choice
      let more = picture.views.count - 1
      table.add([
        OneLine.escaped(picture.name), OneLine.escaped(picture.title),
        more == 0 ? "" : OneLine.escaped(first) + ", \(more) more",
      ])
    }
    return table.text
  }

  private static func json(_ pictures: [Picture]) -> String {
    let items = pictures.map { picture in
      JSONText.object([
        ("name", JSONText.quoted(picture.name)), ("title", JSONText.quoted(picture.title)),
        ("group", JSONText.quoted(picture.group)),
        ("views", JSONText.list(picture.views.map { JSONText.quoted($0.choice) })),
      ])
    }
    return JSONText.object([("pictures", JSONText.list(items))])
  }
}
