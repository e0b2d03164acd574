public import Results

/// A study as one page: a self-contained HTML file, no network, with the pictures of all its results.
///
/// The page holds the numbers of the ``Picture``s, not drawings: its script draws them with d3 from
/// the same values, ends of scales and colours as ``SVGPicture``.
public struct Report: Sendable {
  /// A result and where it was read.
  public struct Source: Sendable {
    /// The file's name, without folders.
    public var name: String
    /// The SHA-256 of the file's bytes in hexadecimal, if known.
    public var checksum: String?
    /// What it holds.
    public var result: ResultSet

    /// A source.
    public init(name: String, checksum: String? = nil, result: ResultSet) {
      self.name = name
      self.checksum = checksum
      self.result = result
    }
  }

  /// The page's heading.
  public var title: String
  /// What it shows, in order.
  public var sources: [Source]
  /// How much of each result is drawn.
  public var limits: PictureLimits
  /// How many bytes of numbers the page may hold; beyond it views of single prompts are left out, and
  /// the page says so.
  public var budget: Int

  /// A report.
  public init(
    title: String, sources: [Source], limits: PictureLimits = PictureLimits(),
    budget: Int = 24_000_000
  ) {
    self.title = title
    self.sources = sources
    self.limits = limits
    self.budget = budget
  }

  /// The whole page.
  public var html: String {
    var data = PageData(limits: limits, budget: budget)
    let json = data.json(title: title, sources: sources)
    return Self.filled([
      "title": Self.escaped(title), "style": EmbeddedText.page_css,
      "drawing-style": EmbeddedText.drawing_css, "data": json, "d3": EmbeddedText.d3_min_js,
      "d3-license": Self.escaped(EmbeddedText.d3_LICENSE_txt),
      "script": [
        EmbeddedText.values_js, EmbeddedText.drawings_js, EmbeddedText.tables_js,
        EmbeddedText.attention_js, EmbeddedText.page_js,
      ].joined(separator: "\n"),
    ])
  }

  /// The template with each `{{name}}` replaced. What is put in is not looked at again.
  private static func filled(_ values: [String: String]) -> String {
    var html = ""
    for part in EmbeddedText.page_html.split(separator: "{{", omittingEmptySubsequences: false) {
      let pieces = part.split(separator: "}}", maxSplits: 1, omittingEmptySubsequences: false)
      if pieces.count == 2 { html += values[String(pieces[0])] ?? "" }
      html += pieces[pieces.count - 1]
    }
    return html
  }

  private static func escaped(_ text: String) -> String {
    var result = ""
    for character in text.unicodeScalars {
      switch character {
      case "&": result += "&amp;"
      case "<": result += "&lt;"
      case ">": result += "&gt;"
      case "\"": result += "&quot;"
      default: result.unicodeScalars.append(character)
      }
    }
    return result
  }
}
