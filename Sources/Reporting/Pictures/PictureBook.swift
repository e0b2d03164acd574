public import Results

/// The pictures of a result, chosen from its own axes and attributes.
///
/// What an analysis is known for comes first (``Picture/isMain``): those rules stand in the files
/// beside this one. Every variable that is in none of them is drawn by the general
/// rules of `FieldPictures`, so that nothing in a file is out of sight.
public struct PictureBook: Sendable {
  /// How much is drawn.
  public var limits: PictureLimits

  /// A book.
  public init(limits: PictureLimits = PictureLimits()) { self.limits = limits }

  /// The pictures of all groups, main ones of a group first.
  ///
  /// Cost: a few passes over the numbers; memory a small multiple of them.
  public func pictures(of result: ResultSet) -> [Picture] {
    result.groups.flatMap { pictures(of: $0, in: result) }
  }

  private func pictures(of group: ResultGroup, in result: ResultSet) -> [Picture] {
    var page = PicturePage(
      context: PictureContext(result: result, group: group), limits: limits)
    page.addKnown()
    page.addRest()
    return page.pictures
  }
}

/// The pictures of one group while its rules add to them.
struct PicturePage {
  let context: PictureContext
  let limits: PictureLimits
  private(set) var pictures: [Picture] = []
  /// The variables that a picture shows already.
  private var drawn: Set<String> = []

  init(context: PictureContext, limits: PictureLimits) {
    self.context = context
    self.limits = limits
  }

  /// The group's path without what sets several results in a file apart and without `difference`:
  /// `patch/activation`.
  var analysis: String {
    var parts = context.group.path.split(separator: "/").map(String.init)
    if parts.last == "difference" { parts.removeLast() }
    let roots: Set = [
      "activations", "logits", "dla", "logit_lens", "patch", "path", "ln_geometry", "stream",
      "heads", "neurons", "evaluate", "selectability",
    ]
    if let root = parts.firstIndex(where: roots.contains) { parts.removeFirst(root) }
    return parts.joined(separator: "/")
  }

  var isDifference: Bool { context.group.path.hasSuffix("/difference") }

  func variable(_ name: String) -> ResultVariable? { context.group[variable: name] }

  /// The numbers of variables that a rule needs together; nil where one is missing.
  func numbers(_ names: [String]) -> [NamedNumbers]? {
    let found = names.compactMap { name in
      variable(name).flatMap { NamedNumbers($0, in: context.group) }
    }
    return found.count == names.count ? found : nil
  }

  /// Adds facets of variables that exist and have the same axes; titles by variable.
  mutating func add(
    _ name: String, _ title: String, _ fields: [(title: String, variable: String)],
    form: FieldPictures.Form = .automatic, texts: String? = nil, also: [String] = [],
    isMain: Bool = true
  ) {
    let found = fields.compactMap { field in
      variable(field.variable).map { Field(title: field.title, variable: $0) }
    }
    guard let axes = found.first?.variable.dimensions else { return }
    let alike = found.filter { $0.variable.dimensions == axes }
    let maker = FieldPictures(context: context, limits: limits)
    let single = alike.count == 1 && fields.count == 1
    guard
      let picture = maker.picture(
        name, title: title,
        single ? alike.map { Field(title: "", variable: $0.variable) } : alike, form: form,
        texts: texts.flatMap(variable), isMain: isMain)
    else { return }
    append(picture, showing: alike.map(\.variable.name) + also + (texts.map { [$0] } ?? []))
  }

  /// Adds a picture that a rule has made by itself.
  mutating func add(
    _ name: String, _ title: String, facts: [String] = [], panels: [Picture.Panel],
    showing: [String] = []
  ) {
    guard !panels.isEmpty else { return }
    append(
      Picture(
        name: name, group: context.group.path, title: title,
        facts: context.modelFacts + context.groupFacts + facts,
        views: [Picture.View(choice: "all", panels: panels)], isMain: true),
      showing: showing)
  }

  private mutating func append(_ picture: Picture, showing: [String]) {
    var picture = picture
    picture.name = fileName(picture.name)
    picture.variables = showing
    if isDifference {
      let base = context.group.path.split(separator: "/").dropLast().joined(separator: "-")
      picture.differenceOf = base + picture.name.dropFirst(base.count + "-difference".count)
      picture.title = "Difference between models: " + picture.title
    }
    drawn.formUnion(showing)
    pictures.append(picture)
  }

  private func fileName(_ name: String) -> String {
    context.group.path.replacing("/", with: "-") + "-" + name
  }

  /// What the analyses are known for; each rule looks whether the group is its own.
  mutating func addKnown() {
    attribution()
    lens()
    patterns()
    patching()
    agreement()
    geometry()
    residualStream()
    headScores()
    entropyNeurons()
    predictions()
  }

  // MARK: The rest

  /// What no rule has drawn: rows with words as tables, numbers as one table, the rest each by its
  /// axes.
  mutating func addRest() {
    let left = context.group.variables.filter { !$0.isCoordinate && !drawn.contains($0.name) }
    addListings(left)
    addValues(left)
    for variable in left where !drawn.contains(variable.name) {
      add(
        variable.name, Self.title(PictureContext.name(of: variable).title), [("", variable.name)],
        isMain: Self.known.contains("\(analysis)/\(variable.name)"))
    }
  }

  /// What people look for first among what has no rule of its own.
  private static let known: Set = [
    "path/effect_normalized", "stream/distance/angular_distance", "stream/ablation/skip_loss",
    "stream/ablation/scaled_loss", "stream/growth/final_share", "stream/summary/norm",
    "stream/summary/turn_angle", "ln_geometry/summary/norm", "heads/summary/entropy_ratio",
    "heads/summary/sink_rate", "heads/weights/copying", "evaluate/position/loss_mean",
    "stream/growth/block_influence", "ln_geometry/corpus/effective_rank",
    "neurons/cumulative_loss", "heads/composition/k_composition", "evaluate/loss",
    "evaluate/jsd", "evaluate/delta_loss",
  ]

  /// Variables of words (the worst tokens) with all others of their axes, a row a place.
  private mutating func addListings(_ left: [ResultVariable]) {
    for words in left where !drawn.contains(words.name) {
      guard words.values.doubles == nil || words.name.hasSuffix("_dim") else { continue }
      let columns = left.filter { $0.dimensions == words.dimensions }
      let axes = words.dimensions.compactMap { context.group[dimension: $0] }
      let count = words.values.count
      var rows: [[String]] = []
      for index in 0..<Swift.min(count, limits.rows) {
        var (rest, places) = (index, [String]())
        for axis in axes.reversed() {
          places.insert(shown(axis.label(at: rest % axis.count)), at: 0)
          rest /= axis.count
        }
        rows.append(places + columns.map { Self.cell($0, index) })
      }
      var facts = columns.compactMap { column in
        column.longName == column.name
          ? nil : "\(column.name): \(PictureContext.name(of: column).title)"
      }
      if count > limits.rows { facts.append("the first \(limits.rows) of \(count) rows") }
      let table = Picture.Table(
        columns: words.dimensions + columns.map(\.name), rows: rows)
      add(
        "\(words.name)_list", Self.title(PictureContext.name(of: columns[0]).title), facts: facts,
        panels: [
          Picture.Panel("", rows.isEmpty ? .note("no value: an axis is empty") : .table(table))
        ], showing: columns.map(\.name))
    }
  }

  /// Variables that are one number, or one a model, as one table.
  private mutating func addValues(_ left: [ResultVariable]) {
    let single = AxisRoles.modelAxes.union(context.promptCount == 1 ? ["prompt"] : [])
    var values = left.filter {
      !drawn.contains($0.name) && Set($0.dimensions).isSubset(of: single)
        && $0.values.doubles != nil
    }
    guard !values.isEmpty else { return }
    let models = values.lazy.flatMap(\.dimensions).first(where: AxisRoles.modelAxes.contains)
      .flatMap { context.group[dimension: $0] }
    // Models and pairs of models have different columns.
    let others = AxisRoles.modelAxes.filter { $0 != models?.name }
    values.removeAll { !others.isDisjoint(with: $0.dimensions) }
    let names = models.map { axis in (0..<axis.count).map { axis.label(at: $0) } } ?? ["value"]
    let rows = values.map { variable in
      let numbers = variable.values.doubles ?? []
      return [variable.name]
        + names.indices.map { compact(numbers[numbers.count == 1 ? 0 : $0]) }
        + [
          variable.units == "1" ? "" : variable.units, PictureContext.name(of: variable).title,
        ]
    }
    add(
      "values", "Values of \(analysis)",
      panels: [
        Picture.Panel(
          "", .table(Picture.Table(columns: ["name"] + names + ["unit", "what it is"], rows: rows)))
      ], showing: values.map(\.name))
  }

  private static func cell(_ variable: ResultVariable, _ index: Int) -> String {
    switch variable.values {
    case .float32(let values): compact(Double(values[index]))
    case .float64(let values): compact(values[index])
    case .integers(let values): String(values[index])
    case .strings(let values): PictureContext.spelled(values[index])
    }
  }

  /// A sentence's first letter large.
  static func title(_ text: String) -> String { text.prefix(1).uppercased() + text.dropFirst() }
}
