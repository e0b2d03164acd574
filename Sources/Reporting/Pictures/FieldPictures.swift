import Results

/// One variable as a facet of a picture.
struct Field {
  /// What sets the facet apart; empty where it stands alone.
  var title: String
  var variable: ResultVariable
}

/// Pictures of variables by the rules that hold for all: prompts are views, models are facets or
/// series, axes of vectors are shortened to a length, and what is left chooses between bars, curves,
/// heat maps and thumbnails.
struct FieldPictures {
  let context: PictureContext
  let limits: PictureLimits

  /// A picture with a facet for each field; the fields have the same axes.
  func picture(
    _ name: String, title: String, _ fields: [Field], form: Form = .automatic,
    texts: ResultVariable? = nil, isMain: Bool = false
  ) -> Picture? {
    let numbers = fields.compactMap { field in
      NamedNumbers(field.variable, in: context.group).map { (field.title, $0) }
    }
    guard let first = fields.first, numbers.count == fields.count, !numbers.isEmpty else {
      return nil
    }
    var notes: [String] = []
    let short = numbers.map { ($0.0, shortened($0.1, &notes)) }
    let written = texts.flatMap { self.texts(of: $0) }
    let unit = first.variable.units == "1" ? "" : PictureContext.unit(first.variable.units)
    let quantity = PictureContext.name(of: first.variable).title
    let named = Naming(quantity: fields.count == 1 ? quantity : "", unit: unit, form: form)
    let choices = choices(short.map(\.1))
    if written != nil { notes.append("the colour is the \(quantity)") }
    if choices.contains(where: { $0.isMean }), short.contains(where: { Self.hasGaps($0.1) }) {
      notes.append("a mean is over the prompts that have a number")
    }
    var views = choices.map { choice in
      let facets = short.map { title, numbers in
        panels(title, choice.cut(numbers), choice, named, texts: written.map(choice.cut))
      }
      return Picture.View(choice: choice.name, prompt: choice.text, panels: byModel(facets))
    }
    colour(&views, choices.map { $0.prompt != nil }, first.variable, unit)
    return Picture(
      name: name, group: context.group.path, title: title,
      facts: context.modelFacts + context.groupFacts
        + (fields.count == 1 ? context.facts(of: first.variable) : shared(fields)) + notes,
      layout: layout(short[0].1), views: views, isMain: isMain)
  }

  /// The facets of each field, a model's together so that models stand below each other.
  private func byModel(_ facets: [[Picture.Panel]]) -> [Picture.Panel] {
    let count = facets.first?.count ?? 0
    let panels =
      facets.allSatisfy { $0.count == count && $0.first?.model != nil }
      ? (0..<count).flatMap { model in facets.map { $0[model] } } : facets.flatMap { $0 }
    return panels.isEmpty ? [Picture.Panel("", .note("no value: an axis is empty"))] : panels
  }

  /// What all fields say alike.
  private func shared(_ fields: [Field]) -> [String] {
    let all = fields.map { context.facts(of: $0.variable) }
    return all[0].filter { line in all.allSatisfy { $0.contains(line) } }
  }

  // MARK: Shortening

  /// Axes of vectors as one number, long axes cut; what was done goes to `notes`.
  private func shortened(_ numbers: NamedNumbers, _ notes: inout [String]) -> NamedNumbers {
    var short = numbers
    func note(_ text: String) { if !notes.contains(text) { notes.append(text) } }
    for axis in ["d_model", "d_head", "d_mlp"] where short.has(axis) && short.axes.count > 1 {
      let count = short[axis: axis]?.count ?? 0
      short = short.length(axis)
      note("length over \(axis) (\(count))")
    }
    if short.has("vocab"), short.axes.count > 1 {
      note("the largest of \(short[axis: "vocab"]?.count ?? 0) tokens of the vocabulary")
      short = short.reduced("vocab") { $0.filter { !$0.isNaN }.max() ?? .nan }
    }
    if short.has("neuron"), short.axes.count > 1 {
      note("the largest in size of \(short[axis: "neuron"]?.count ?? 0) neurons")
      short = short.largest("neuron")
    }
    short = short.splittingHeads().dropping(AxisRoles.isDull)
    let isPattern = short.has("query_pos") && short.has("key_pos")
    for axis in short.axes where AxisRoles.tokenAxes.contains(axis.name) {
      let most = isPattern ? limits.patternPositions : limits.positions
      guard axis.count > most else { continue }
      short = short.prefix(axis.name, most)
      note("the first \(most) of \(axis.count) positions")
    }
    return short
  }

  /// Texts beside numbers of the same axes.
  private func texts(of variable: ResultVariable) -> NamedTexts? {
    guard case .strings(let texts) = variable.values else { return nil }
    let axes = variable.dimensions.compactMap { context.group[dimension: $0] }
    return NamedTexts(
      texts: texts, places: NamedNumbers(axes: axes, values: texts.indices.map(Double.init)))
  }

  /// Whether some prompts lack a number where others have one.
  private static func hasGaps(_ numbers: NamedNumbers) -> Bool {
    guard let prompts = numbers[axis: "prompt"]?.count else { return false }
    let missing = numbers.values.count(where: \.isNaN)
    return missing != prompts * numbers.mean("prompt").values.count(where: \.isNaN)
  }

  // MARK: Views

  /// A choice between prompts.
  struct Choice {
    var name: String
    /// The prompt; nil for their mean, or where there are none.
    var prompt: Int?
    var text: String?
    /// How many tokens the prompt has.
    var length: Int?
    /// Whether it is the mean over prompts.
    var isMean = false
    /// Whether the prompts are what is drawn, beside each other.
    var keepsPrompts = false

    func cut(_ numbers: NamedNumbers) -> NamedNumbers {
      if keepsPrompts { return numbers }
      var cut = prompt.map { numbers.at("prompt", $0) } ?? numbers.mean("prompt")
      if let length {
        for axis in AxisRoles.tokenAxes { cut = cut.prefix(axis, length) }
      }
      return cut
    }

    func cut(_ texts: NamedTexts) -> NamedTexts {
      NamedTexts(texts: texts.texts, places: prompt == nil ? texts.places : cut(texts.places))
    }
  }

  /// The mean over prompts where there is one, then single prompts.
  private func choices(_ fields: [NamedNumbers]) -> [Choice] {
    guard let numbers = fields.first, numbers.has("prompt"), numbers.axes.count > 1 else {
      return [Choice(name: "all")]
    }
    let (count, rest) = (context.promptCount, Set(numbers.names).subtracting(["prompt"]))
    // A number a prompt: the prompts are the axis that is drawn.
    if rest.isSubset(of: AxisRoles.modelAxes) {
      return [Choice(name: "all prompts", keepsPrompts: true)]
    }
    let hasTokens = !rest.isDisjoint(with: AxisRoles.tokenAxes)
    var choices: [Choice] = []
    if count > 1, !hasTokens || context.promptsAreOfOneLength {
      choices.append(Choice(name: "mean over \(count) prompts", isMean: true))
    }
    for prompt in 0..<Swift.min(count, limits.prompts) {
      choices.append(
        Choice(
          name: "prompt \(number(of: prompt))", prompt: prompt, text: context.text(prompt: prompt),
          length: context.length(prompt: prompt)))
    }
    return choices.isEmpty ? [Choice(name: "all")] : choices
  }

  /// A prompt's number in the file, of which only a part may have been read.
  private func number(of prompt: Int) -> Int {
    if case .integers(let numbers)? = context.group[dimension: "prompt"]?.coordinates {
      numbers[prompt]
    } else {
      prompt
    }
  }

  // MARK: Panels

  /// How values are to be drawn where the axes allow it.
  enum Form { case automatic, bars }

  struct Naming {
    var quantity: String
    var unit: String
    var form: Form

    /// An axis' title: the quantity with its unit.
    var height: String {
      quantity.isEmpty ? unit : unit.isEmpty ? quantity : "\(quantity) [\(unit)]"
    }
  }

  private func panels(
    _ title: String, _ numbers: NamedNumbers, _ choice: Choice, _ naming: Naming,
    texts: NamedTexts?
  ) -> [Picture.Panel] {
    guard !numbers.values.isEmpty else { return [] }
    guard numbers.values.contains(where: { !$0.isNaN }) else {
      return [
        Picture.Panel(title, .note("no value: all \(numbers.values.count) cells are NaN"))
      ]
    }
    let models = numbers.axes.first { AxisRoles.modelAxes.contains($0.name) }
    let rest = numbers.axes.filter { !AxisRoles.modelAxes.contains($0.name) }
    if let lines = series(numbers, rest, models) {
      // Intervals of several models would hide each other.
      if let models, models.count > 1, lines.series.contains(where: { $0.interval != nil }) {
        return (0..<models.count).map { index in
          let model = models.label(at: index)
          let own = Lines(axis: lines.axis, series: lines.series.filter { $0.model == model })
          return Picture.Panel(
            title.isEmpty ? model : "\(model), \(title)", model: model, line(own, naming, choice))
        }
      }
      return [Picture.Panel(title, line(lines, naming, choice))]
    }
    guard let models else {
      return cells(title, nil, numbers, choice, texts)
    }
    return (0..<models.count).flatMap { index in
      let model = models.label(at: index)
      let name =
        models.count == 1 && models.name == "model"
        ? title
        : title.isEmpty ? model : "\(model), \(title)"
      return cells(
        name, model, numbers.at(models.name, index), choice,
        texts.map { NamedTexts(texts: $0.texts, places: $0.places.at(models.name, index)) })
    }
  }

  // MARK: Bars and curves

  /// Numbers along one axis, a series for each model and class, with quartiles as intervals.
  private struct Lines {
    var axis: Dimension
    var series: [Picture.Series]
  }

  /// The numbers as series, where one axis is left beside models, classes and quantiles.
  private func series(
    _ numbers: NamedNumbers, _ rest: [Dimension], _ models: Dimension?
  ) -> Lines? {
    var rest = rest
    var quantiles: Dimension?
    if let last = rest.last, last.name == "quantile", rest.count > 1, last.count == 3 {
      quantiles = rest.removeLast()
    }
    var classes: Dimension?
    if rest.count == 2, let small = rest.first(where: AxisRoles.isClass) {
      classes = small
      rest.removeAll { $0.name == small.name }
    }
    guard rest.count == 1, let axis = rest.first else { return nil }
    var series: [Picture.Series] = []
    for model in 0..<(models?.count ?? 1) {
      let ofModel = models.map { numbers.at($0.name, model) } ?? numbers
      for kind in 0..<(classes?.count ?? 1) {
        let line = classes.map { ofModel.at($0.name, kind) } ?? ofModel
        // A panel of intervals is one model's and says so itself.
        let names = [
          quantiles == nil ? models.map { $0.label(at: model) } : nil,
          classes.map { Self.classLabel($0, kind) },
        ].compactMap(\.self)
        let values = quantiles.map { _ in line.at("quantile", 1) } ?? line
        series.append(
          Picture.Series(
            names.joined(separator: ", "), model: models?.label(at: model), values.values,
            interval: quantiles.map { quantiles in
              Picture.Interval(
                low: line.at("quantile", 0).values, high: line.at("quantile", 2).values,
                meaning: "\(quantiles.label(at: 0)) to \(quantiles.label(at: 2))")
            }))
      }
    }
    return Lines(axis: axis, series: series)
  }

  private static func classLabel(_ axis: Dimension, _ index: Int) -> String {
    let label = axis.label(at: index)
    return axis.name == "position_class"
      ? ["first": "position 0", "rest": "other positions"][label] ?? label : label
  }

  private func line(_ lines: Lines, _ naming: Naming, _ choice: Choice) -> Picture.Drawing {
    let axis = self.axis(lines.axis, choice)
    let series = lines.series.filter { $0.values.contains { !$0.isNaN } }
    if lines.axis.name == "prompt", lines.axis.count > limits.bars {
      return histogram(series, naming)
    }
    if lines.axis.name == "neuron" { return neurons(series, lines.axis, naming) }
    let asBars =
      naming.form == .bars
      || (naming.form == .automatic && AxisRoles.isListing(lines.axis)
        && lines.axis.count * series.count <= limits.bars)
    if asBars { return .bars(Picture.Bars(x: axis, y: naming.height, series: series)) }
    return .curves(
      Picture.Curves(
        x: axis, positions: numericPositions(lines.axis), y: naming.height, series: series))
  }

  /// Where places lie that are numbers and not just numbered.
  private func numericPositions(_ axis: Dimension) -> [Double]? {
    switch axis.coordinates {
    case .indices: return nil
    case .integers(let numbers): return numbers.map(Double.init)
    case .labels(let labels):
      if axis.name == "lambda", let values = context.group[variable: "lambda_value"]?.values.doubles
      {
        return values
      }
      return labels.contains { Double($0) == nil } ? nil : labels.compactMap(Double.init)
    }
  }

  /// A point a neuron: their order means nothing.
  private func neurons(
    _ series: [Picture.Series], _ axis: Dimension, _ naming: Naming
  ) -> Picture.Drawing {
    let clouds = series.map { series in
      let known = series.values.indices.filter { series.values[$0].isFinite }
      return Picture.Points.Cloud(
        series.name, model: series.model, x: known.map(Double.init),
        y: known.map { series.values[$0] },
        labels: known.map { "neuron \(axis.label(at: $0))" })
    }
    return .points(Picture.Points(x: "neuron", y: naming.height, clouds: clouds))
  }

  /// How often values occur: where a bar for each would be too many.
  private func histogram(_ series: [Picture.Series], _ naming: Naming) -> Picture.Drawing {
    let all = series.flatMap(\.values).filter(\.isFinite)
    guard let low = all.min(), let high = all.max() else { return .note("no value") }
    let bins = 30
    // Parts of the ends, not of their distance, which may be too large for a number.
    let width = Swift.max(
      high / Double(bins) - low / Double(bins), .leastNormalMagnitude)
    let counted = series.map { series in
      var counts = [Double](repeating: 0, count: bins)
      for value in series.values where value.isFinite {
        let place = (value / Double(bins) - low / Double(bins)) / width * Double(bins)
        counts[Swift.min(bins - 1, Int(place))] += 1
      }
      return Picture.Series(series.name, model: series.model, counts)
    }
    let labels = (0..<bins).map { compact(low + (Double($0) + 0.5) * width) }
    return .bars(
      Picture.Bars(
        x: Picture.Axis(naming.height, labels), y: "how many prompts", series: counted))
  }

  // MARK: Heat maps

  /// What is left of the axes as heat maps: two axes one, more by facets, rows of pairs, thumbnails.
  private func cells(
    _ title: String, _ model: String?, _ numbers: NamedNumbers, _ choice: Choice,
    _ texts: NamedTexts?
  ) -> [Picture.Panel] {
    if numbers.axes.isEmpty {
      return [
        Picture.Panel(
          title, model: model,
          .table(Picture.Table(columns: ["value"], rows: [[compact(numbers.values[0])]])))
      ]
    }
    if numbers.axes.count > 2, let small = numbers.axes.first(where: AxisRoles.isClass) {
      return (0..<small.count).flatMap { index in
        let label = Self.classLabel(small, index)
        return cells(
          title.isEmpty ? label : "\(title), \(label)", model, numbers.at(small.name, index),
          choice, texts)
      }
    }
    if numbers.names.suffix(4) == ["layer", "head", "query_pos", "key_pos"],
      let layers = numbers[axis: "layer"], let heads = numbers[axis: "head"]
    {
      return (0..<layers.count).flatMap { layer in
        (0..<heads.count).flatMap { head in
          let name = "L\(layers.label(at: layer))H\(heads.label(at: head))"
          return cells(
            title.isEmpty ? name : "\(title), \(name)", model,
            masked(numbers.at("layer", layer).at("head", head)), choice, nil)
        }
      }
    }
    var flat = numbers
    if flat.axes.count > 2 {
      flat = flat.moved("head", behind: "layer").moved("head_to", behind: "layer_to")
      let asHead = { (layer: String, head: String) in "L\(layer)H\(head)" }
      if flat.has("head") { flat = flat.joined("layer", as: "head", label: asHead) }
      if flat.has("head_to") { flat = flat.joined("layer_to", as: "head_to", label: asHead) }
      while flat.axes.count > 2 {
        let names = flat.names
        flat = flat.joined(names[0], as: "\(names[0]), \(names[1])") { "\($0), \($1)" }
      }
    }
    guard flat.axes.count == 2 else { return [] }
    let words = texts.map { texts in
      texts.places.values.map { PictureContext.spelled(texts.texts[Int($0)]) }
    }
    return [
      Picture.Panel(
        title, model: model,
        flat.values.contains { !$0.isNaN }
          ? .cells(
            Picture.Cells(
              x: axis(flat.axes[1], choice), y: axis(flat.axes[0], choice), values: flat.values,
              texts: words?.count == flat.values.count ? words : nil))
          : .note("no value: all \(flat.values.count) cells are NaN"))
    ]
  }

  /// A pattern without what a causal model cannot attend to, where rows and columns are the same
  /// positions.
  private func masked(_ pattern: NamedNumbers) -> NamedNumbers {
    var pattern = pattern
    let (queries, keys) = (pattern.axes[0], pattern.axes[1])
    let isInOrder =
      switch keys.coordinates {
      case .indices: true
      case .integers(let places): places == places.sorted()
      case .labels: false
      }
    guard isInOrder, queries.coordinates == keys.coordinates else { return pattern }
    for query in 0..<keys.count {
      for key in 0..<keys.count where key > query {
        let cell = query * keys.count + key
        if pattern.values[cell] == 0 || pattern.values[cell] == -.infinity {
          pattern.values[cell] = .nan
        }
      }
    }
    return pattern
  }

  private func layout(_ numbers: NamedNumbers) -> Picture.Layout {
    let isGrid = numbers.names.suffix(4) == ["layer", "head", "query_pos", "key_pos"]
    return isGrid ? .thumbnails(columns: numbers[axis: "head"]?.count ?? 1) : .row
  }

  /// An axis for people: tokens at positions, words for names.
  func axis(_ axis: Dimension, _ choice: Choice) -> Picture.Axis {
    if AxisRoles.tokenAxes.contains(axis.name),
      let tokens = context.tokens(prompt: choice.prompt, count: axis.count),
      tokens.count == axis.count
    {
      return Picture.Axis(AxisRoles.words[axis.name] ?? axis.name, tokens)
    }
    return Picture.Axis(
      AxisRoles.words[axis.name] ?? axis.name.replacing("_", with: " "),
      (0..<axis.count).map { shown(axis.label(at: $0)) })
  }

  // MARK: Colours

  /// One scale for the mean over prompts, and one for all single prompts.
  private func colour(
    _ views: inout [Picture.View], _ isPrompt: [Bool], _ variable: ResultVariable, _ unit: String
  ) {
    for kind in [true, false] {
      let places = views.indices.filter { isPrompt[$0] == kind }
      let scale = scale(places.map { views[$0] }, variable, unit)
      for place in places { views[place].scale = scale }
    }
  }

  /// The scale of all cells of some views: symmetric for signed values; from 0, or from the lowest
  /// where all are far from 0, for others. A first position that dwarfs all others is clipped.
  private func scale(
    _ views: [Picture.View], _ variable: ResultVariable, _ unit: String
  ) -> ColourScale? {
    let all = views.flatMap(\.panels).compactMap { panel in
      if case .cells(let cells) = panel.drawing { cells } else { nil }
    }
    let values = all.lazy.flatMap(\.values).filter(\.isFinite)
    guard let low = values.min(), let high = values.max() else { return nil }
    if variable.isSigned || low < 0 {
      let most = Swift.max(Swift.abs(low), Swift.abs(high))
      return ColourScale(low: -most, high: most, isSigned: true, unit: unit)
    }
    let others = all.lazy.filter { $0.x.title == "position" && $0.x.labels.count > 1 }
      .flatMap { cells in
        cells.values.indices.lazy.filter { $0 % cells.x.labels.count > 0 }.map { cells.values[$0] }
      }
    let rest = others.filter(\.isFinite).max() ?? high
    let isClipped = rest > 0 && high > 3 * rest
    let top = isClipped ? rest : high
    return ColourScale(
      low: low > 0.5 * top ? low : 0, high: top, isSigned: false, unit: unit,
      isClipped: isClipped)
  }
}

/// Texts of the same axes as numbers, cut like them: `places` are their indices.
struct NamedTexts {
  var texts: [String]
  var places: NamedNumbers
}

extension ResultVariable {
  /// Whether zero is the middle of what the numbers can be.
  var isSigned: Bool {
    guard let sign = signConvention, !name.hasSuffix("_stderr") else { return false }
    return sign.hasPrefix("positive") || sign.hasPrefix("negative")
      || sign.hasPrefix("1 = as good") || sign.hasPrefix("1: the path")
      || sign.hasPrefix("the pair's first") || sign == "the sign of the mean"
  }
}
