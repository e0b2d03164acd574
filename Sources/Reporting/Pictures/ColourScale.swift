import Foundation

/// What colour a value has.
///
/// Signed values run over ColorBrewer's RdBu, colour-blind safe, symmetric about zero: **red is
/// negative, white is zero, blue is positive**. Unsigned values run from white over one hue. A cell
/// that was not computed is grey. The ends are chosen once for all panels of a picture.
public struct ColourScale: Sendable, Equatable {
  /// The value at the lower end: −`high` for signed values.
  public var low: Double
  /// The value at the upper end.
  public var high: Double
  /// Whether there is a sign to show.
  public var isSigned: Bool
  /// The unit at the ends: `logit`; empty for pure numbers.
  public var unit: String
  /// Whether values lie beyond the ends and have their colours: a legend then says `≥`.
  public var isClipped: Bool

  /// A scale.
  public init(low: Double, high: Double, isSigned: Bool, unit: String, isClipped: Bool = false) {
    self.low = low
    self.high = high
    self.isSigned = isSigned
    self.unit = unit
    self.isClipped = isClipped
  }

  /// A colour: red, green and blue, 0 to 255.
  public struct Colour: Sendable, Hashable {
    /// The parts.
    public var red, green, blue: UInt8

    /// A colour from `0xRRGGBB`.
    public init(_ hex: Int) {
      (red, green, blue) = (
        UInt8(hex >> 16 & 255), UInt8(hex >> 8 & 255), UInt8(hex & 255)
      )
    }

    /// Whether white text is easier to read on it than black.
    var isDark: Bool {
      // WCAG: the luminance at which black and white have one contrast.
      let parts = [red, green, blue].map { part in
        let share = Double(part) / 255
        return share <= 0.04045 ? share / 12.92 : pow((share + 0.055) / 1.055, 2.4)
      }
      return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2] < 0.179
    }

    /// `#rrggbb`.
    public var hex: String { String(format: "#%02x%02x%02x", Int(red), Int(green), Int(blue)) }
  }

  /// The colour of a cell that was not computed.
  public static let missing = Colour(0xC8C8C8)
  /// Evenly spaced from the lowest to the highest signed value: RdBu, eleven classes.
  public static let signed = [
    0x67001F, 0xB2182B, 0xD6604D, 0xF4A582, 0xFDDBC7, 0xF7F7F7,
    0xD1E5F0, 0x92C5DE, 0x4393C3, 0x2166AC, 0x053061,
  ].map(Colour.init)
  /// Evenly spaced from the lowest to the highest unsigned value: Purples, nine classes.
  public static let unsigned = [
    0xFCFBFD, 0xEFEDF5, 0xDADAEB, 0xBCBDDC, 0x9E9AC8, 0x807DBA, 0x6A51A3, 0x54278F, 0x3F007D,
  ].map(Colour.init)
  /// For curves, bars and points, in this order: Okabe and Ito's, without yellow and black.
  public static let series = [0x0072B2, 0xD55E00, 0x009E73, 0xCC79A7, 0xE69F00, 0x56B4E9]
    .map(Colour.init)

  /// The stops between which colours run.
  public var stops: [Colour] { isSigned ? Self.signed : Self.unsigned }

  /// Where a value lies between the ends, 0 to 1; a half for zero on a signed scale.
  public func fraction(_ value: Double) -> Double {
    guard high > low else { return isSigned ? 0.5 : 0 }
    return Swift.min(1, Swift.max(0, (value - low) / (high - low)))
  }

  /// The colour of a value: between the two nearest stops, evenly in red, green and blue.
  public func colour(_ value: Double) -> Colour {
    guard !value.isNaN else { return Self.missing }
    let place = fraction(value) * Double(stops.count - 1)
    let below = Swift.min(stops.count - 2, Int(place))
    let share = place - Double(below)
    func mix(_ part: KeyPath<Colour, UInt8>) -> UInt8 {
      let (a, b) = (Double(stops[below][keyPath: part]), Double(stops[below + 1][keyPath: part]))
      return UInt8((a + (b - a) * share).rounded())
    }
    var colour = Colour(0)
    (colour.red, colour.green, colour.blue) = (mix(\.red), mix(\.green), mix(\.blue))
    return colour
  }
}
