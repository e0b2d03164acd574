import Foundation

/// An axis of real numbers: its range, its ticks at round numbers, and what they say.
package struct ValueAxis {
  /// The ends of the axis.
  package let low, high: Double
  /// The round numbers in the range, ascending.
  package let ticks: [Double]
  /// Whether places go by the logarithm.
  package let isLogarithmic: Bool
  private let step: Double

  /// An axis over all finite numbers among `values`, with a little room at the ends.
  ///
  /// - Parameters:
  ///   - count: about how many ticks there should be.
  ///   - hasZero: whether zero is on the axis whatever the values are.
  ///   - isLogarithmic: only positive values count then.
  package init(
    covering values: [Double], count: Int, hasZero: Bool = false, isLogarithmic: Bool = false
  ) {
    let usable = values.filter { $0.isFinite && (!isLogarithmic || $0 > 0) }
      .map { Swift.min(1e300, Swift.max(isLogarithmic ? 1e-300 : -1e300, $0)) }
    let range = (low: usable.min() ?? (isLogarithmic ? 1 : 0), high: usable.max() ?? 1)
    self.isLogarithmic = isLogarithmic
    (low, high) =
      isLogarithmic
      ? Self.widenedByFactor(range.low, range.high)
      : Self.widened(
        hasZero ? Swift.min(0, range.low) : range.low,
        hasZero ? Swift.max(0, range.high) : range.high)
    step = Self.roundStep((high - low) / Double(Swift.max(1, count)))
    let decades = isLogarithmic ? Self.decades(low, high, count: count) : []
    ticks = decades.count > 1 ? decades : Self.multiples(of: step, low, high)
  }

  /// An axis with exactly these ends.
  package init(low: Double, high: Double, count: Int) {
    (self.low, self.high, isLogarithmic) = (low, high, false)
    step = Self.roundStep((high - low) / Double(Swift.max(1, count)))
    ticks = Self.multiples(of: step, low, high)
  }

  /// Where a value lies, 0 at the low end and 1 at the high one; nil where it has no place.
  package func place(_ value: Double) -> Double? {
    guard value.isFinite, !isLogarithmic || value > 0 else { return nil }
    let share =
      isLogarithmic
      ? (log10(value) - log10(low)) / (log10(high) - log10(low)) : (value - low) / (high - low)
    return Swift.min(1.5, Swift.max(-0.5, share))
  }

  /// What a tick says.
  package func text(_ tick: Double) -> String {
    if tick == 0 { return "0" }
    let size = Swift.max(Swift.abs(low), Swift.abs(high))
    if isLogarithmic {
      let power = log10(tick).rounded()
      if Swift.abs(power) > 3, Swift.abs(tick / pow(10, power) - 1) < 1e-9 {
        return "10" + superscript(Int(power))
      }
      return signedText(compact(tick))
    }
    let decimals = Int(Swift.max(0, -floor(log10(step) + 1e-9)))
    if size >= 1e5 || decimals > 4 {
      let digits = floor(log10(Swift.abs(tick)) + 1e-9) - floor(log10(step) + 1e-9)
      return signedText(String(format: "%.\(Int(Swift.min(12, Swift.max(0, digits))))e", tick))
    }
    return signedText(fixed(tick, decimals))
  }

  private static func widened(_ low: Double, _ high: Double) -> (Double, Double) {
    let size = Swift.max(Swift.abs(low), Swift.abs(high))
    guard high - low > 1e-9 * size else {
      return size == 0 ? (-1, 1) : (low - size / 10, high + size / 10)
    }
    let room = (high - low) * 0.04
    // An end at zero is where bars stand: there is nothing beyond it.
    return (low == 0 ? 0 : low - room, high == 0 ? 0 : high + room)
  }

  private static func widenedByFactor(_ low: Double, _ high: Double) -> (Double, Double) {
    let factor = high > low * 1.000_001 ? pow(high / low, 0.04) : 2
    return (low / factor, high * factor)
  }

  /// The least of 1, 2, 5, 10, … × a power of ten that is at least `step`.
  private static func roundStep(_ step: Double) -> Double {
    let power = pow(10, floor(log10(step)))
    let digit = [1, 2, 5].first { $0 * power >= step * 0.999_999 } ?? 10
    return digit * power
  }

  private static func multiples(of step: Double, _ low: Double, _ high: Double) -> [Double] {
    let first = (low / step - 1e-9).rounded(.up)
    let count = Int(((high / step + 1e-9).rounded(.down) - first))
    return (0...Swift.max(0, count)).map { (first + Double($0)) * step }
  }

  /// Powers of ten, or 1, 2 and 5 times them where there are few.
  private static func decades(_ low: Double, _ high: Double, count: Int) -> [Double] {
    let (first, last) = (Int(floor(log10(low))), Int(ceil(log10(high))))
    let skip = Swift.max(1, Int((Double(last - first) / Double(Swift.max(1, count))).rounded(.up)))
    let powers = (first...last).filter { $0 % skip == 0 }.map { pow(10, Double($0)) }
    let inside = powers.filter { $0 >= low && $0 <= high }
    if inside.count > 2 { return inside }
    let finer = (first...last).flatMap { power in [1, 2, 5].map { $0 * pow(10, Double(power)) } }
    return finer.filter { $0 >= low && $0 <= high }
  }
}

/// A number that has been written, with a true minus sign and no sign at zero.
func signedText(_ text: String) -> String {
  guard text.contains("-") else { return text == "inf" ? "∞" : text }
  let digits = text.dropFirst(text.first == "-" ? 1 : 0)
  if digits == "inf" { return "−∞" }
  let isZero = digits.allSatisfy { $0 == "0" || $0 == "." }
  return (isZero ? String(digits) : text).replacing("-", with: "−")
}

/// A value with its sign, as a picture says it on hover: `+0.412`, `−3`, `not computed`.
func valueText(_ value: Double, isSigned: Bool, unit: String) -> String {
  if value.isNaN { return "not computed" }
  let text = signedText(compact(value))
  let sign = isSigned && value > 0 ? "+" : ""
  return sign + text + (unit.isEmpty || unit == "1" ? "" : " \(unit)")
}

private func superscript(_ power: Int) -> String {
  let digits = Array("⁰¹²³⁴⁵⁶⁷⁸⁹")
  return (power < 0 ? "⁻" : "")
    + String(String(Swift.abs(power)).compactMap(\.wholeNumberValue).map { digits[$0] })
}
