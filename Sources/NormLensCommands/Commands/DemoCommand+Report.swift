import Foundation
import NormLens

extension DemoCommand {
  /// Records what each head attends to in the first prompt of part 1, a file a model.
  func patterns(_ models: [GPT2]) throws -> [Written] {
    try models.map { model in
      let hooks = (0..<model.config.nLayers).map { HookName(.pattern, layer: $0) }
      let path = "\(output)/patterns-\(model.identity.name).h5"
      try ActivationRecording(hooks: hooks).write(
        model, [Prompt(try model.tokens(Self.example))], to: path,
        provenance: runProvenance(prependBOS: true))
      return Written(path: path, what: "attention patterns of one prompt")
    }
  }

  /// Part 7: the main pictures as files, and everything on one page. Returns the page's path.
  func report(_ files: [Written]) throws -> String {
    section("7. Pictures, and all of it on one page")
    let pictures = "\(output)/pictures"
    var sources: [Report.Source] = []
    var count = 0
    for file in files {
      let result = try ResultFile.read(file.path)
      let name = URL(fileURLWithPath: file.path).lastPathComponent
      sources.append(
        Report.Source(name: name, checksum: try FileBytes.sha256(file.path), result: result))
      let folder = "\(pictures)/\(name.dropLast(".h5".count))"
      try FileManager.default.createDirectory(
        atPath: folder, withIntermediateDirectories: true)
      for picture in PictureBook().pictures(of: result) where picture.isMain {
        try FileBytes.write(
          Array(SVGPicture().text(picture).utf8), to: "\(folder)/\(picture.name).svg")
        count += 1
      }
    }
    var limits = PictureLimits()
    (limits.prompts, limits.points) = (3, 600)
    let report = Report(title: "A tour of the bundled models", sources: sources, limits: limits)
    let page = Array(report.html.utf8)
    let path = "\(output)/report.html"
    try FileBytes.write(page, to: path)
    Terminal.print(
      """
      \(count) pictures such as \(pictures)/dla/dla-components.svg
      the report, \(bytes(page.count)): \(path)
      """)
    return path
  }
}
