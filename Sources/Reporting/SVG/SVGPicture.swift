/// A picture as an SVG file: for a paper's column, with text that can be selected.
public struct SVGPicture: Sendable {
  /// The file's width in pixels; a column of a paper is about 340, a page 700.
  public var width: Double

  /// Drawing with a width.
  public init(width: Double = 700) { self.width = width }

  /// One view of a picture as a whole SVG document.
  ///
  /// - Precondition: the picture has a view of this number.
  public func text(_ picture: Picture, view: Int = 0) -> String {
    "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"\(width)\"/>"
  }
}
