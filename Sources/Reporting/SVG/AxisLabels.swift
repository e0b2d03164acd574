/// Texts at evenly spaced places along an axis, cut, turned or thinned out so that no two overlap.
package struct AxisLabels {
  /// How the texts stand.
  package enum Turn: Double {
    case level = 0
    case slanted = -45
    case upright = -90
  }

  /// How all of them stand.
  package let turn: Turn
  /// Every how-many-th place has its text.
  package let step: Int
  /// The texts as they are written.
  package let texts: [String]
  private let labels: [String]
  private let spacing: Double
  private let size: Double

  /// Texts longer than this are cut.
  package static let characterLimit = 12

  /// Texts along a horizontal axis.
  ///
  /// - Parameters:
  ///   - spacing: from one place to the next.
  ///   - room: from the first place to the left edge, and from the last to the right one.
  package init(
    _ labels: [String], spacing: Double, size: Double, room: (left: Double, right: Double)
  ) {
    let texts = labels.map { TextFit.cut($0, characters: Self.characterLimit) }
    let widths = texts.map { TextFit.width($0, size) }
    let isNumbered = labels.allSatisfy { Int($0) != nil }
    func isLevel(_ step: Int) -> Bool {
      let shown = stride(from: 0, to: widths.count, by: step).map { widths[$0] }
      let space = spacing * Double(step) - size * 0.5
      let fits = zip(shown, shown.dropFirst()).allSatisfy { ($0 + $1) / 2 <= space }
      let ends = Double((widths.count - 1) % step) * spacing
      return fits && (shown.first ?? 0) / 2 <= room.left
        && (shown.last ?? 0) / 2 <= room.right + ends
    }
    let reach = widths.enumerated().allSatisfy {
      $1 * 0.71 + size * 0.5 <= room.left + Double($0) * spacing
    }
    let steps = Self.steps(labels.count)
    if let step = isNumbered ? steps.first(where: isLevel) : isLevel(1) ? 1 : nil {
      (turn, self.step) = (.level, step)
    } else if spacing * 0.7 >= size * 1.1 && reach {
      (turn, step) = (.slanted, 1)
    } else {
      turn = .upright
      step = steps.first { spacing * Double($0) >= size * 1.15 } ?? Swift.max(1, labels.count)
    }
    (self.texts, self.labels, self.spacing, self.size) = (texts, labels, spacing, size)
  }

  /// 1, 2, 5, 10, … up to a number of places.
  private static func steps(_ count: Int) -> [Int] {
    var (steps, power) = ([Int](), 1)
    while power <= Swift.max(1, count) {
      steps += [power, 2 * power, 5 * power]
      power *= 10
    }
    return steps
  }

  private var shown: [Int] { Array(stride(from: 0, to: texts.count, by: step)) }

  /// How far the texts reach down.
  package var height: Double {
    let widest = shown.map { TextFit.width(texts[$0], size) }.max() ?? 0
    return switch turn {
    case .level: SVGStyle.lead(size)
    case .slanted: widest * 0.71 + size
    case .upright: widest + 4
    }
  }

  /// What each written text fills of the axis, measured across the text, from the first place.
  package var extents: [ClosedRange<Double>] {
    shown.map { index in
      let centre = Double(index) * spacing
      // Of slanted texts the distance between their lines counts.
      let half: Double =
        switch turn {
        case .level: TextFit.width(texts[index], size) / 2
        case .slanted: size * 0.5 / 0.71
        case .upright: size * 0.5
        }
      return centre - half...centre + half
    }
  }

  /// Writes them below an axis whose first place is at a point.
  func draw(x: Double, y: Double, into svg: inout SVGWriter) {
    for index in shown {
      let centre = x + Double(index) * spacing
      let title = texts[index] == labels[index] ? nil : labels[index]
      switch turn {
      case .level:
        svg.line(
          texts[index], x: centre, y: y + size, size: size, anchor: .middle, title: title)
      case .slanted:
        svg.line(
          texts[index], x: centre + size * 0.3, y: y + size * 0.7, size: size, anchor: .end,
          turn: turn.rawValue, title: title)
      case .upright:
        svg.line(
          texts[index], x: centre + size * 0.35, y: y + 2, size: size, anchor: .end,
          turn: turn.rawValue, title: title)
      }
    }
  }
}
