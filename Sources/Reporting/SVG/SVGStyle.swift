/// Sizes that follow from a picture's width, and inks that are no colours of data.
struct SVGStyle {
  /// The picture's width in pixels.
  let width: Double

  /// Nothing stands nearer to the picture's edge.
  let margin = 12.0
  /// Between panels.
  let gap = 14.0
  /// The width between the margins.
  var inner: Double { width - 2 * margin }
  /// Size of text at ticks, in cells and in legends.
  var tick: Double { width < 480 ? 9 : 10 }
  /// Size of panels' titles.
  var label: Double { width < 480 ? 10 : 11 }
  /// Size of the picture's title.
  var title: Double { width < 480 ? 12.5 : 15 }
  /// The height of a line of text of a size.
  static func lead(_ size: Double) -> Double { size * 1.35 }

  /// A generic stack: no font is asked for that a machine may lack.
  static let fonts = "Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif"
  /// Text.
  static let ink = "#222222"
  /// Text that matters less: facts, titles of axes.
  static let faint = "#555555"
  /// The axes and the line at zero.
  static let axis = "#777777"
  /// Lines behind the data.
  static let grid = "#E4E4E4"
  /// Behind everything, so that a picture can be read in a dark viewer.
  static let paper = "#FFFFFF"
}
