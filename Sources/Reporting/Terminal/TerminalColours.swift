/// The colours that a terminal shows.
public enum TerminalColours: Sendable {
  /// None: signs and sizes are shown by characters.
  case none
  /// The 256 colours of xterm's palette.
  case palette
  /// 24 bits a colour.
  case full

  /// What a terminal says of itself: `COLORTERM` of 24-bit colours, `TERM` of 256; none where
  /// `NO_COLOR` (no-color.org) is set to anything or standard output is no terminal.
  public static func supported(
    by environment: [String: String], isTerminal: Bool
  ) -> TerminalColours {
    guard isTerminal, environment["NO_COLOR"]?.isEmpty ?? true else { return .none }
    if ["truecolor", "24bit"].contains(environment["COLORTERM"]) { return .full }
    return environment["TERM"]?.contains("256color") == true ? .palette : .none
  }

  /// What sets the colour of what follows: of letters, or of what is behind them.
  func code(_ colour: ColourScale.Colour, isBackground: Bool) -> String {
    let plane = isBackground ? 48 : 38
    switch self {
    case .none: return ""
    case .palette: return "\u{1B}[\(plane);5;\(Self.nearest(colour))m"
    case .full: return "\u{1B}[\(plane);2;\(colour.red);\(colour.green);\(colour.blue)m"
    }
  }

  /// Ends all colours.
  var reset: String { self == .none ? "" : "\u{1B}[0m" }

  /// The number of the nearest colour in the part of the palette that is the same everywhere: a cube of
  /// 6 × 6 × 6 from 16 on, and 24 greys from 232 on.
  static func nearest(_ colour: ColourScale.Colour) -> Int {
    let parts = [colour.red, colour.green, colour.blue].map(Int.init)
    let levels = [0, 95, 135, 175, 215, 255]
    let cube = parts.map { part in
      levels.indices.min { Swift.abs(levels[$0] - part) < Swift.abs(levels[$1] - part) } ?? 0
    }
    let grey = Swift.min(23, Swift.max(0, (parts.reduce(0, +) / 3 - 3) / 10))
    func distance(_ other: [Int]) -> Int {
      zip(parts, other).reduce(0) { $0 + ($1.0 - $1.1) * ($1.0 - $1.1) }
    }
    let isGrey =
      distance(Array(repeating: 8 + 10 * grey, count: 3)) < distance(cube.map { levels[$0] })
    return isGrey ? 232 + grey : 16 + 36 * cube[0] + 6 * cube[1] + cube[2]
  }
}
