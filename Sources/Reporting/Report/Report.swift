public import Results

/// A study as one page: a self-contained HTML file, no network, with the pictures of all its results.
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

  /// A report.
  public init(title: String, sources: [Source]) {
    self.title = title
    self.sources = sources
  }

  /// The whole page.
  public var html: String {
    "<!doctype html><title>\(title)</title>\(EmbeddedText.d3_min_js.count)"
  }
}
