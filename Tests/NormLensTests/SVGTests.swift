import Foundation
import NormLens
import TestSupport
import Testing

#if canImport(FoundationXML)
  import FoundationXML
#endif

/// SVG pictures: whole files held against recorded ones, and what must hold of every picture.
@Suite struct SVGTests {
  /// Every picture by hand at a width, all views.
  private static func documents(_ width: Double) -> [(name: String, text: String)] {
    (SVGSamples.kinds + [SVGSamples.hostile]).map {
      ($0.name, SVGPicture(width: width).text($0))
    }
  }

  /// One picture of each kind as it was when a person last looked at it; `RECORD_SNAPSHOTS=1` records
  /// them anew.
  @Test(arguments: [700.0, 340])
  func golden(_ width: Double) throws {
    for picture in SVGSamples.kinds where width == 700 || picture.name == "lens" {
      let text = SVGPicture(width: width).text(picture)
      let path = "\(Fixtures.repository)/Tests/NormLensTests/SVG/\(picture.name)-\(Int(width)).svg"
      if ProcessInfo.processInfo.environment["RECORD_SNAPSHOTS"] == "1" {
        try Data(text.utf8).write(to: URL(fileURLWithPath: path))
        continue
      }
      let recorded = FileManager.default.contents(atPath: path).map {
        String(decoding: $0, as: UTF8.self)
      }
      let (found, expected) = (text.split(separator: "\n"), recorded?.split(separator: "\n") ?? [])
      let different = zip(found, expected).first { $0 != $1 }
      #expect(
        text == recorded,
        """
        \(picture.name): \(different.map { "found \($0)\nexpected \($1)" } ?? "another length"); \
        RECORD_SNAPSHOTS=1 records it
        """)
      #expect(text == SVGPicture(width: width).text(picture), "the same picture, the same bytes")
    }
  }

  @Test(arguments: [200.0, 340, 700, 4000])
  func isWellFormed(_ width: Double) throws {
    for (name, text) in Self.documents(width) {
      let document = try Document(text, name)
      #expect(document.root == "svg", "\(name)")
      #expect(document.attributes["role"] == "img", "\(name)")
      #expect(Set(document.elements).isSubset(of: Document.expected), "\(name)")
      #expect(document.elements.contains("title") && document.elements.contains("desc"))
      #expect(document.attributes["width"] == "\(Int(width))")
      #expect(document.smallestText >= 8, "\(name)")
      let decimals = text.matches(of: #/ (?:x|y|width|height|d)="[^"]*\.\d{3}/#)
      #expect(decimals.isEmpty, "\(name): coordinates of more than two decimals")
    }
  }

  @Test func hostileTextIsText() throws {
    let text = SVGPicture().text(SVGSamples.hostile)
    #expect(!text.contains("<script"))
    #expect(text.contains("&lt;/text&gt;&lt;script&gt;"))
    let controls = text.unicodeScalars.filter {
      $0.value < 0x20 && $0 != "\n" || (0x7F..<0xA0).contains($0.value)
        || (0x202A...0x202E).contains($0.value)
    }
    #expect(controls.isEmpty)
  }

  // MARK: axes

  /// No two labels touch, whatever they say and however near their places are.
  @Test func labelsDoNotOverlap() {
    let sets = [
      SVGSamples.tokens, SVGSamples.layers, (0..<1024).map(String.init), SVGSamples.nasty,
      (0..<300).map { "L\($0)H\($0 % 12)" }, ["only one that is long"],
    ]
    var turns: Set<AxisLabels.Turn> = []
    for labels in sets {
      for spacing in [0.3, 0.7, 2, 5, 9, 12, 16, 24, 40, 90, 300] {
        let axis = AxisLabels(labels, spacing: spacing, size: 9, room: (40, 10))
        turns.insert(axis.turn)
        #expect(!axis.extents.isEmpty)
        #expect(axis.texts.allSatisfy { $0.count <= AxisLabels.characterLimit })
        for (a, b) in zip(axis.extents, axis.extents.dropFirst()) {
          #expect(a.upperBound <= b.lowerBound, "\(spacing): \(a) and \(b)")
        }
      }
    }
    #expect(turns == [.level, .slanted, .upright])
  }

  @Test func ticksAreRoundAndInside() {
    var ranges: [(Double, Double)] = [
      (0, 1), (-1, 1), (3, 3), (0, 0), (1e-300, 2e-300), (-1e308, 1e308), (1e15, 1e15 + 4),
      (-0.001, 0.0012), (99.5, 100.5), (-7, -3), (5, .infinity), (.nan, 2), (1, 1 + 1e-12),
    ]
    let noise = SVGSamples.noise(400, seed: 9)
    for index in stride(from: 0, to: 398, by: 2) {
      let size = pow(10, noise[index] * 30)
      ranges.append((noise[index] * size, noise[index + 1] * size))
    }
    for (a, b) in ranges {
      for isLogarithmic in [false, true] {
        let axis = ValueAxis(
          covering: [a, b].map { isLogarithmic ? abs($0) : $0 }, count: 5,
          isLogarithmic: isLogarithmic)
        let ticks = axis.ticks
        #expect(axis.low < axis.high && !ticks.isEmpty, "\(a)...\(b): \(axis)")
        #expect(ticks.count <= 14, "\(a)...\(b): \(ticks)")
        #expect(ticks == ticks.sorted())
        #expect(
          Set(ticks.map(axis.text)).count == ticks.count, "\(a)...\(b): \(ticks.map(axis.text))")
        let places = ticks.compactMap(axis.place)
        #expect(places.count == ticks.count)
        #expect(places.allSatisfy { $0 > -0.001 && $0 < 1.001 }, "\(a)...\(b): \(places)")
      }
    }
    #expect(ValueAxis(covering: [-1, 1], count: 5).ticks == [-1, -0.5, 0, 0.5, 1])
    #expect(ValueAxis(covering: [-1, 1], count: 5).text(-0.5) == "−0.5")
    #expect(ValueAxis(covering: [-1, 1], count: 5).text(-0.0) == "0")
    let decades = ValueAxis(covering: [1e-6, 10], count: 8, isLogarithmic: true)
    #expect(decades.text(1e-5) == "10⁻⁵" && decades.text(10) == "10")
  }

  @Test func textIsCutAndWrapped() {
    #expect(TextFit.cut("short", characters: 12) == "short")
    #expect(TextFit.cut("<|endoftext|>", characters: 12) == "<|endoftext…")
    for text in SVGSamples.nasty {
      for limit in [5.0, 20, 60, 300] {
        let short = TextFit.cut(text, to: limit, 10)
        #expect(TextFit.width(short, 10) <= limit && short.unicodeScalars.count <= 401)
        let lines = TextFit.wrapped(text, to: limit + 10, 10, lines: 4)
        #expect(lines.count <= 4 && lines.allSatisfy { TextFit.width($0, 10) <= limit + 10 })
      }
    }
    let words = "one two three four five six"
    let lines = TextFit.wrapped(words, to: 60, 10, lines: 9)
    #expect(lines.count > 1 && lines.joined(separator: " ") == words)
  }

  // MARK: colours

  @Test func missingCellsAreGreyAndEndsSymmetric() {
    let text = SVGPicture().text(SVGSamples.facets)
    // A row of 15 cells, and the swatch that explains them.
    #expect(text.matches(of: #/fill="#c8c8c8"/#).count == 16)
    #expect(text.contains("not computed"))
    #expect(text.contains(">≤ −0.95<") && text.contains(">≥ +0.95<") && text.contains(">0<"))
    #expect(text.matches(of: #/<linearGradient/#).count == 1, "the scale is drawn once")
    #expect(text.contains("<title>layer 0, position ·John: +"))
    #expect(!SVGPicture().text(SVGSamples.lens).contains("not computed"))
    #expect(SVGPicture().text(SVGSamples.note).contains("all 60 cells are NaN"))
  }

  /// A model of 48 layers and 1,024 positions in four facets: small, and every cell in its colour.
  @Test func manyCellsStaySmall() throws {
    let (columns, rows) = (1024, 48)
    let scale = SVGSamples.signed(1)
    let axes = (
      Picture.Axis("position", (0..<columns).map { "·w\($0)" }),
      Picture.Axis("layer", (0..<rows).map(String.init))
    )
    let panels = (0..<4).map { panel in
      var values = SVGSamples.noise(columns * rows, seed: panel)
      values[5] = .nan
      return Picture.Panel(
        "facet \(panel)", .cells(Picture.Cells(x: axes.0, y: axes.1, values: values)))
    }
    let start = ContinuousClock.now
    let text = SVGPicture().text(SVGSamples.picture("big", "Many cells", scale: scale, panels))
    let seconds = (ContinuousClock.now - start) / .seconds(1)
    print("48 x 1024 x 4 cells: \(text.utf8.count) bytes, \(fixed(seconds, 2)) s")
    #expect(text.utf8.count < 3_000_000)
    #expect(text.matches(of: #/<path/#).count <= 4 * 202)
    _ = try Document(text, "big")

    guard case .cells(let first) = panels[0].drawing else { return }
    let drawn = try Self.colours(text, columns: columns, rows: rows)
    var worst = 0
    for (index, value) in first.values.enumerated() {
      let (a, b) = (try #require(drawn[index], "cell \(index) is not drawn"), scale.colour(value))
      for part in [\ColourScale.Colour.red, \.green, \.blue] {
        worst = max(worst, abs(Int(a[keyPath: part]) - Int(b[keyPath: part])))
      }
    }
    print("largest difference of a colour's part, of 255: \(worst)")
    #expect(worst <= 4)
  }

  /// The colours that the paths of the first panel give to its cells.
  private static func colours(
    _ text: String, columns: Int, rows: Int
  ) throws -> [Int: ColourScale.Colour] {
    var colours: [Int: ColourScale.Colour] = [:]
    let panel = try #require(text.split(separator: "crispEdges", maxSplits: 2).dropFirst().first)
    for path in panel.matches(of: ##/<path stroke="#([0-9a-f]{6})" d="([^"]*)"/##) {
      let colour = ColourScale.Colour(try #require(Int(path.output.1, radix: 16)))
      var (x, y) = (0.0, 0.0)
      for step in path.output.2.matches(of: #/([Mmh])([-\d.]+) ?([-\d.]*)/#) {
        let (a, b) = (Double(step.output.2) ?? .nan, Double(step.output.3) ?? .nan)
        switch step.output.1 {
        case "M": (x, y) = (a, b)
        case "m": (x, y) = (x + a, y + b)
        default:
          for column in Int(x)..<Int(x + a) {
            #expect(colours.updateValue(colour, forKey: Int(y) * columns + column) == nil)
          }
          x += a
        }
      }
    }
    return colours
  }

  // MARK: edges

  /// Drawings of nothing, of one thing, and of numbers at the ends of what a number can be.
  static let edges: [Picture.Drawing] = {
    let one = Picture.Axis("layer", ["0"])
    let many = Picture.Axis("layer", (0..<5).map(String.init))
    func curves(_ values: [Double], log: Bool = false) -> Picture.Drawing {
      .curves(
        Picture.Curves(
          x: many, y: "y",
          series: [
            Picture.Series(
              "", values,
              interval: Picture.Interval(low: values, high: values.dropLast(), meaning: "none"))
          ], isLogarithmic: log))
    }
    func points(_ x: [Double], _ y: [Double], line: Bool) -> Picture.Drawing {
      .points(
        Picture.Points(
          x: "x", y: "y", clouds: [Picture.Points.Cloud("", x: x, y: y)], hasIdentityLine: line))
    }
    let tiny = Double.leastNonzeroMagnitude
    let wild: [Double] = [.nan, .infinity, -.infinity, 1e308, -1e308]
    var all: [Picture.Drawing] = [
      .cells(Picture.Cells(x: one, y: one, values: [0])),
      .cells(Picture.Cells(x: many, y: one, values: wild)),
      .cells(Picture.Cells(x: Picture.Axis("x", []), y: many, values: [])),
      .bars(Picture.Bars(x: one, y: "", series: [Picture.Series("", [-0.0])])),
      .bars(Picture.Bars(x: many, y: "", series: [Picture.Series("", wild)])),
      .bars(Picture.Bars(x: many, y: "", series: [Picture.Series("short", [1])])),
      .bars(Picture.Bars(x: many, y: "", series: [])),
      .points(
        Picture.Points(
          x: "", y: "", strips: ["a"],
          clouds: [
            Picture.Points.Cloud("", x: [1e300, 0, .nan], y: [0, tiny, 3])
          ])),
      .curves(
        Picture.Curves(
          x: many, positions: [.nan, 1, 1, .infinity], y: "",
          series: [Picture.Series("", [1, 2, 3, 4, 5])])),
      .table(Picture.Table(columns: [], rows: [])), .note(""),
    ]
    for values in [
      [3, 3, 3, 3, 3], [.nan, .nan, 2, .nan, .nan], [Double](repeating: .nan, count: 5), wild,
      [0, 0, 0, 0, 0], [tiny, 0, -tiny, 0, 0],
      [tiny, 1, 1e308, 2, 3],
    ] {
      all += [curves(values), curves(values, log: true)]
      for line in [true, false] {
        all.append(points(values, values, line: line))
        all.append(points([1, 1, 1, 1, 1], values, line: line))
      }
    }
    return all
  }()

  @Test func edgesAreDrawn() throws {
    for (number, drawing) in Self.edges.enumerated() {
      for scale in [
        SVGSamples.signed(0), SVGSamples.signed(1e308), SVGSamples.signed(.infinity),
        ColourScale(low: .nan, high: .nan, isSigned: false, unit: ""),
      ] {
        for layout in [Picture.Layout.row, .thumbnails(columns: 0), .thumbnails(columns: 99)] {
          let picture = SVGSamples.picture(
            "edge", "Edge \(number)", scale: scale, layout: layout, facts: [],
            [Picture.Panel("", drawing)])
          let text = SVGPicture(width: 200).text(picture)
          _ = try Document(text, "edge \(number)")
          let numbers = text.replacing(#/<title>[^<]*<\/title>/#, with: "").lowercased()
          #expect(!numbers.contains("nan") && !numbers.contains("inf"), "\(number): \(drawing)")
        }
      }
    }
  }

  /// A view of no panels is a title and facts.
  @Test func viewWithoutPanels() throws {
    for layout in [Picture.Layout.row, .thumbnails(columns: 3)] {
      _ = try Document(
        SVGPicture().text(SVGSamples.picture("none", "None", layout: layout, [])), "none")
    }
  }

  @Test func missingPointsAndRowsAreTold() {
    let points = Picture.Points(
      x: "x", y: "y", clouds: [Picture.Points.Cloud("", x: [1, .nan, 3], y: [1, 2, .infinity])])
    let text = SVGPicture().text(
      SVGSamples.picture("p", "P", [Picture.Panel("", .points(points))]))
    #expect(text.contains("2 points without a finite value not drawn"))
    #expect(SVGPicture().text(SVGSamples.table).contains("… 3 more rows"))
    #expect(SVGPicture(width: 200).text(SVGSamples.table).contains("more columns"))
  }
}

/// An SVG document as an XML parser reads it.
private final class Document: NSObject, XMLParserDelegate {
  private(set) var root = ""
  private(set) var attributes: [String: String] = [:]
  private(set) var elements: [String] = []
  private(set) var smallestText = Double.infinity
  static let expected: Set = [
    "svg", "title", "desc", "rect", "g", "text", "line", "path", "linearGradient", "stop",
  ]

  /// Parses a document, or fails with the parser's complaint.
  init(_ text: String, _ name: String) throws {
    super.init()
    let parser = XMLParser(data: Data(text.utf8))
    parser.delegate = self
    let isRead = parser.parse()
    try #require(
      isRead, "\(name), line \(parser.lineNumber): \(String(describing: parser.parserError))")
  }

  func parser(
    _ parser: XMLParser, didStartElement element: String, namespaceURI: String?,
    qualifiedName: String?, attributes: [String: String]
  ) {
    if root.isEmpty { (root, self.attributes) = (element, attributes) }
    elements.append(element)
    if let size = attributes["font-size"].flatMap(Double.init) {
      smallestText = min(smallestText, size)
    }
  }
}
