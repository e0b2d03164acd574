import Foundation
import OrderedCollections
import Results

/// What a page's script draws from: summaries, pictures and colours as JSON.
struct PageData {
  /// Each axis is stored once: a layer's heads all have the same tokens.
  private var axes: OrderedDictionary<[String], PageJSON> = [:]
  /// What the page says about views that were left out.
  private(set) var notes: [String] = []
  /// How many bytes the pictures of sources may still take.
  private var bytesLeft: Int
  private let limits: PictureLimits

  init(limits: PictureLimits, budget: Int) {
    self.limits = limits
    bytesLeft = budget
  }

  /// The page's data as JSON.
  mutating func json(title: String, sources: [Report.Source]) -> String {
    let parts = sources.map { source(for: $0) }
    let page: PageJSON = .object([
      ("title", .string(title)),
      ("notes", .strings(notes)),
      (
        "colours",
        .object([
          ("signed", .strings(ColourScale.signed.map(\.hex))),
          ("unsigned", .strings(ColourScale.unsigned.map(\.hex))),
          ("series", .strings(ColourScale.series.map(\.hex))),
          ("missing", .string(ColourScale.missing.hex)),
        ])
      ),
      ("axes", .array(Array(axes.values))),
      ("sources", .array(parts)),
    ])
    return page.serialized
  }

  // MARK: Sources

  private mutating func source(for source: Report.Source) -> PageJSON {
    let result = source.result
    let pictures = PictureBook(limits: limits).pictures(of: result)
    let texts = fitting(pictures, of: source.name)
    var groups: OrderedDictionary<String, [PageJSON]> = [:]
    for (picture, text) in zip(pictures, texts) {
      groups[picture.group, default: []].append(.text(text))
    }
    let facts = result.provenance.facts
    let told: Set = [
      "model_name", "weights_sha256", "normalization", "weight_processing", "command_line",
    ]
    return .object([
      ("name", .string(source.name)),
      ("sha256", .optional(source.checksum)),
      ("title", .string(result.title)),
      ("commands", .strings(Self.texts(facts["command_line"]))),
      ("models", .array(Self.models(of: result))),
      ("prompts", Self.prompts(of: result)),
      (
        "facts",
        .array(
          facts.filter { !told.contains($0.key) }
            .map { .strings([$0.key, $0.value.description]) })
      ),
      (
        "groups",
        .array(
          groups.map { .object([("path", .string($0.key)), ("pictures", .array($0.value))]) })
      ),
    ])
  }

  private static func texts(_ value: AttributeValue?) -> [String] {
    switch value {
    case nil: []
    case .strings(let values)?: values
    case let value?: [value.description]
    }
  }

  /// The models of a result: those of the file, or those that its groups name.
  private static func models(of result: ResultSet) -> [PageJSON] {
    let places = [result.provenance.facts] + result.groups.map(\.attributes)
    var models: OrderedDictionary<[String], PageJSON> = [:]
    for facts in places {
      let names = texts(facts["model_name"])
      func fact(_ key: String, of model: Int) -> String {
        let values = texts(facts[key])
        return names.count == 1
          ? values.joined(separator: ", ") : model < values.count ? values[model] : ""
      }
      for (model, name) in names.enumerated() {
        let row = [
          name, fact("normalization", of: model), fact("weight_processing", of: model),
          fact("weights_sha256", of: model),
        ]
        models[row] = .strings(row)
      }
    }
    return Array(models.values)
  }

  /// How many prompts a result has and the first of them, from the first group that knows.
  private static func prompts(of result: ResultSet) -> PageJSON {
    for group in result.groups {
      guard let count = group[dimension: "prompt"]?.count else { continue }
      return .object([
        ("count", .integer(count)), ("first", .strings(firstPrompts(of: group, count))),
      ])
    }
    return .null
  }

  private static func firstPrompts(of group: ResultGroup, _ count: Int) -> [String] {
    let shownCount = min(4, count)
    for name in ["prompt_text", "clean_prompt"] {
      if let variable = group[variable: name], case .strings(let texts) = variable.values,
        variable.dimensions == ["prompt"]
      {
        return texts.prefix(shownCount).map(withoutStart)
      }
    }
    guard let token = group[variable: "token"], token.dimensions == ["prompt", "pos"],
      case .strings(let tokens) = token.values, let width = group[dimension: "pos"]?.count
    else { return [] }
    return (0..<shownCount).map { prompt in
      withoutStart(tokens[prompt * width..<(prompt + 1) * width].joined())
    }
  }

  /// The text without the token that begins every prompt.
  private static func withoutStart(_ text: String) -> String {
    let start = "<|endoftext|>"
    return String(text.hasPrefix(start) ? text.dropFirst(start.count) : text[...])
  }

  // MARK: Pictures

  /// The pictures as JSON, within what is left of the budget: where they are too large, first without
  /// the views of single prompts, then without the drawings that do not fit.
  private mutating func fitting(_ pictures: [Picture], of name: String) -> [String] {
    var texts = pictures.map { json(of: $0).serialized }
    func size() -> Int { texts.reduce(0) { $0 + $1.utf8.count } }
    if size() > bytesLeft {
      var isShorter = false
      for (place, picture) in pictures.enumerated() {
        var picture = picture
        let general = picture.views.filter { $0.prompt == nil }
        let kept = general.isEmpty ? Array(picture.views.prefix(1)) : general
        if kept.count == picture.views.count { continue }
        picture.views = kept
        texts[place] = json(of: picture).serialized
        isShorter = true
      }
      if isShorter {
        notes.append(
          "\(name): views of single prompts are left out, as they would make this page too large; "
            + "normlens plot draws them.")
      }
    }
    var largest = size()
    if largest > bytesLeft {
      var leftOut = 0
      for place in texts.indices.sorted(by: { texts[$0].utf8.count > texts[$1].utf8.count })
      where largest > bytesLeft {
        var picture = pictures[place]
        let size = texts[place].utf8.count
        picture.views = [
          Picture.View(
            choice: "all",
            panels: [
              Picture.Panel(
                "",
                .note("left out of this page: \(bytes(size)) of numbers; normlens plot draws it")
              )
            ])
        ]
        texts[place] = json(of: picture).serialized
        largest -= size - texts[place].utf8.count
        leftOut += 1
      }
      notes.append("\(name): \(leftOut) large pictures are left out; normlens plot draws them.")
    }
    bytesLeft -= size()
    return texts
  }

  private mutating func json(of picture: Picture) -> PageJSON {
    var fields: [(String, PageJSON)] = [
      ("name", .string(picture.name)), ("title", .string(picture.title)),
      ("facts", .strings(picture.facts)), ("main", .bool(picture.isMain)),
    ]
    if let base = picture.differenceOf { fields.append(("differenceOf", .string(base))) }
    if case .thumbnails(let columns) = picture.layout {
      fields.append(("columns", .integer(columns)))
    }
    let views = picture.views.map { view in
      PageJSON.object([
        ("choice", .string(view.choice)), ("prompt", .optional(view.prompt)),
        ("scale", view.scale.map(Self.scale) ?? .null),
        ("panels", .array(view.panels.map { panel in json(of: panel) })),
      ])
    }
    return .object(fields + [("views", .array(views))])
  }

  private static func scale(_ scale: ColourScale) -> PageJSON {
    .object([
      ("low", .number(scale.low)), ("high", .number(scale.high)),
      ("signed", .bool(scale.isSigned)), ("unit", .string(scale.unit)),
      ("clipped", .bool(scale.isClipped)),
    ])
  }

  private mutating func json(of panel: Picture.Panel) -> PageJSON {
    let head: [(String, PageJSON)] = [
      ("title", .string(panel.title)), ("model", .optional(panel.model)),
    ]
    return .object(head + drawing(panel.drawing))
  }

  private mutating func drawing(_ drawing: Picture.Drawing) -> [(String, PageJSON)] {
    switch drawing {
    case .cells(let cells):
      return [
        ("kind", .string("cells")), ("x", axis(cells.x)), ("y", axis(cells.y)),
        ("values", .numbers(cells.values)), ("texts", cells.texts.map(PageJSON.strings) ?? .null),
      ]
    case .bars(let bars):
      return [
        ("kind", .string("bars")), ("x", axis(bars.x)), ("y", .string(bars.y)),
        ("series", .array(bars.series.map(Self.series))),
      ]
    case .curves(let curves):
      return [
        ("kind", .string("curves")), ("x", axis(curves.x)),
        ("positions", curves.positions.map(PageJSON.numbers) ?? .null), ("y", .string(curves.y)),
        ("log", .bool(curves.isLogarithmic)),
        ("series", .array(curves.series.map(Self.series))),
      ]
    case .points(let points):
      return [
        ("kind", .string("points")), ("x", .string(points.x)), ("y", .string(points.y)),
        ("strips", points.strips.map(PageJSON.strings) ?? .null),
        ("identity", .bool(points.hasIdentityLine)),
        (
          "clouds",
          .array(
            points.clouds.map {
              .object([
                ("name", .string($0.name)), ("model", .optional($0.model)), ("x", .numbers($0.x)),
                ("y", .numbers($0.y)), ("labels", .strings($0.labels)),
              ])
            })
        ),
      ]
    case .table(let table):
      return [
        ("kind", .string("table")), ("columns", .strings(table.columns)),
        ("rows", .array(table.rows.map(PageJSON.strings))),
      ]
    case .note(let text):
      return [("kind", .string("note")), ("text", .string(text))]
    }
  }

  private static func series(_ series: Picture.Series) -> PageJSON {
    var fields: [(String, PageJSON)] = [
      ("name", .string(series.name)), ("model", .optional(series.model)),
      ("values", .numbers(series.values)),
    ]
    if let interval = series.interval {
      fields += [
        ("low", .numbers(interval.low)), ("high", .numbers(interval.high)),
        ("meaning", .string(interval.meaning)),
      ]
    }
    return .object(fields)
  }

  /// The number of an axis among those stored.
  private mutating func axis(_ axis: Picture.Axis) -> PageJSON {
    let key = [axis.title] + axis.labels
    if axes[key] == nil {
      axes[key] = .object([("title", .string(axis.title)), ("labels", .strings(axis.labels))])
    }
    return .integer(axes.index(forKey: key) ?? 0)
  }
}
