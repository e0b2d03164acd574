import ArgumentParser
import Foundation
import NormLens

/// `normlens plot`: the pictures of a result file.
struct PlotCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "plot", abstract: "Draw a result file as SVG pictures.",
    discussion: """
      Each picture is one file, named by the analysis and the variable; what is drawn how follows \
      from the result's own axes.
      """)

  @Argument(help: "A result file.", completion: .file()) var file: String
  @Option(name: .shortAndLong, help: "The directory to write to.", completion: .directory)
  var output: String

  func run() throws {
    let result = try ResultFile.read(file)
    for picture in PictureBook().pictures(of: result) {
      try Data(SVGPicture().text(picture).utf8)
        .write(to: URL(fileURLWithPath: output).appending(path: picture.name + ".svg"))
    }
  }
}
