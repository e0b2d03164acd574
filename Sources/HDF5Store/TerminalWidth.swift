#if canImport(Glibc)
  import Glibc
#else
  import Darwin
#endif

/// How many columns the terminal behind standard output has.
public enum TerminalWidth {
  /// The columns that the system knows of; nil where standard output is no terminal.
  public static var columns: Int? {
    var size = winsize()
    guard ioctl(1, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0 else { return nil }
    return Int(size.ws_col)
  }
}
