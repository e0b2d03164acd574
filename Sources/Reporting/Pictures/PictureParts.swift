import Results

/// What rules of several analyses make their pictures of: clouds of points, curves side by side.
extension PicturePage {
  /// Two variables of the same axes against each other: a cloud for each model.
  func against(_ x: String, _ y: String) -> [Picture.Panel] {
    guard !isDifference, let pair = numbers([x, y]), pair[0].names == pair[1].names,
      let horizontal = variable(x), let vertical = variable(y)
    else { return [] }
    let models = pair[0].axes.first { AxisRoles.modelAxes.contains($0.name) }
    let clouds = (0..<(models?.count ?? 1)).map { index in
      let cut = pair.map { numbers in models.map { numbers.at($0.name, index) } ?? numbers }
      let name = models?.label(at: index)
      return cloud(name ?? "", model: name, cut[0], cut[1])
    }
    func title(_ variable: ResultVariable) -> String {
      let unit = variable.units == "1" ? "" : " [\(PictureContext.unit(variable.units))]"
      return PictureContext.name(of: variable).title + unit
    }
    return [
      Picture.Panel(
        "",
        clouds.allSatisfy { $0.x.isEmpty }
          ? .note("no value: no cell has both numbers")
          : .points(
            Picture.Points(
              x: title(horizontal), y: title(vertical), clouds: clouds, hasIdentityLine: true)))
    ]
  }

  /// The cells of two variables as points, each named by its place.
  func cloud(
    _ name: String, model: String?, _ x: NamedNumbers, _ y: NamedNumbers
  ) -> Picture.Points.Cloud {
    let known = x.values.indices.filter { x.values[$0].isFinite && y.values[$0].isFinite }
    let chosen = evenly(known, limits.points)
    return Picture.Points.Cloud(
      name, model: model, x: chosen.map { x.values[$0] }, y: chosen.map { y.values[$0] },
      labels: chosen.map { place($0, x.axes) })
  }

  /// A cell's place in words: `layer 2, head 5`.
  private func place(_ index: Int, _ axes: [Dimension]) -> String {
    var (rest, words) = (index, [String]())
    for axis in axes.reversed() {
      words.insert("\(axis.name) \(shown(axis.label(at: rest % axis.count)))", at: 0)
      rest /= axis.count
    }
    return words.joined(separator: ", ")
  }

  /// At most so many of a list, evenly spaced, with the first and the last.
  func evenly<Element>(_ all: [Element], _ count: Int) -> [Element] {
    if all.count <= count { return all }
    if count < 2 { return Array(all.prefix(Swift.max(0, count))) }
    return (0..<count).map { all[$0 * (all.count - 1) / (count - 1)] }
  }

  /// What ``evenly(_:_:)`` leaves out of a list, for a picture's facts; empty where all is drawn.
  func leftOut(_ all: Int, _ count: Int, _ what: String) -> [String] {
    all > count ? ["\(count) of \(all) \(what), evenly spaced"] : []
  }

  /// That clouds of so many cells have a limit, for a picture's facts; empty where none reaches it.
  func pointLimit(_ cells: Int, _ most: Int) -> [String] {
    cells > most ? ["at most \(most) points of each kind, evenly chosen"] : []
  }

  /// Measures of one axis in one panel, a series each; a panel for each model.
  mutating func together(
    _ name: String, _ title: String, along axis: String, _ fields: [(String, String)]
  ) {
    let found = fields.compactMap { words, name in
      variable(name).flatMap { variable in
        NamedNumbers(variable, in: context.group).map { (words, variable, $0) }
      }
    }
    guard found.count > 1, let first = found.first, let places = first.2[axis: axis],
      found.allSatisfy({ $0.2.names == first.2.names && $0.2.values.count == first.2.values.count }
      ),
      Set(first.2.names).subtracting(AxisRoles.modelAxes) == [axis]
    else { return }
    let models = first.2.axes.first { AxisRoles.modelAxes.contains($0.name) }
    let maker = FieldPictures(context: context, limits: limits)
    let unit = first.1.units == "1" ? "" : PictureContext.unit(first.1.units)
    let panels = (0..<(models?.count ?? 1)).map { index in
      let model = models?.label(at: index)
      let series = found.map { words, _, numbers in
        Picture.Series(
          words, model: model, models.map { numbers.at($0.name, index).values } ?? numbers.values)
      }.filter { $0.values.contains { !$0.isNaN } }
      return Picture.Panel(
        model ?? "", model: model,
        series.isEmpty
          ? .note("no value: all \(places.count) cells are NaN")
          : .curves(
            Picture.Curves(
              x: maker.axis(places, FieldPictures.Choice(name: "all")), y: unit, series: series)))
    }
    add(
      name, title,
      facts: found.map { words, variable, _ in "\(words): \(variable.longName)" },
      panels: panels, showing: found.map(\.1.name))
  }
}
