public import Results

/// The pictures of a result, chosen from its own axes and attributes.
public struct PictureBook: Sendable {
  /// How many prompts have a view of their own, besides their mean.
  public var promptLimit: Int

  /// A book.
  public init(promptLimit: Int = 8) { self.promptLimit = promptLimit }

  /// Every variable of the result is in one of them.
  public func pictures(of result: ResultSet) -> [Picture] {
    result.groups.flatMap { group in
      group.variables.filter { !$0.isCoordinate }.compactMap { variable in
        guard let values = variable.values.doubles, variable.dimensions.count == 2 else {
          return nil
        }
        let axes = variable.dimensions.map { name in
          let axis = group[dimension: name]
          return Picture.Axis(name, (0..<(axis?.count ?? 0)).map { axis?.label(at: $0) ?? "" })
        }
        let finite = values.filter(\.isFinite)
        let most = finite.map(Swift.abs).max() ?? 0
        let signed = finite.contains { $0 < 0 }
        return Picture(
          name: (group.path + "/" + variable.name).replacing("/", with: "-"), group: group.path,
          title: variable.longName, facts: [],
          scale: ColourScale(
            low: signed ? -most : 0, high: most, isSigned: signed, unit: variable.units),
          views: [
            Picture.View(
              choice: "all",
              panels: [
                Picture.Panel(
                  variable.name, .cells(Picture.Cells(x: axes[1], y: axes[0], values: values)))
              ])
          ])
      }
    }
  }
}
