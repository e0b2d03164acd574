import Foundation
import NormLens

/// Standard output, standard error, and what is known of them.
enum Terminal {
  /// Whether standard output is a terminal.
  static let isInteractive = isatty(1) == 1

  static func print(_ text: String) {
    FileHandle.standardOutput.write(Data((text + "\n").utf8))
  }

  /// One line on standard error.
  static func note(_ text: String) {
    FileHandle.standardError.write(Data(("normlens: " + text + "\n").utf8))
  }

  static func complain(_ text: String) { note("error: " + text) }

  static func bold(_ text: String) -> String {
    isInteractive ? "\u{1B}[1m\(text)\u{1B}[0m" : text
  }
}

/// Progress of long work on standard error: how much, how fast, how long still. Shown only on a
/// terminal and only once a second has passed.
struct Progress {
  private let what: String
  private let total: Int
  private let enabled: Bool
  private let start = ContinuousClock.now
  private var shown = ContinuousClock.now
  private var drawn = false

  init(_ what: String, total: Int, quiet: Bool) {
    self.what = what
    self.total = total
    enabled = !quiet && isatty(2) == 1
  }

  /// Tells that `done` of the total are done.
  mutating func update(_ done: Int) {
    guard enabled else { return }
    let now = ContinuousClock.now
    guard now - shown > .milliseconds(200) || (drawn && done >= total), now - start > .seconds(1)
    else { return }
    shown = now
    drawn = true
    let seconds = (now - start) / .seconds(1)
    let rate = Double(done) / seconds
    let left = done > 0 ? Double(total - done) / rate : 0
    let line =
      "\(what): \(done)/\(total)  \(fixed(rate, rate < 10 ? 1 : 0))/s  \(fixed(left, 0)) s left"
    let end = done >= total ? "\n" : ""
    FileHandle.standardError.write(Data("\r\u{1B}[K\(line)\(end)".utf8))
  }
}

/// SIGINT and SIGTERM: the process ends at once and leaves no temporary file.
enum Interruption {
  static func install() {
    TemporaryFiles.prepare()
    for number in [SIGINT, SIGTERM] {
      signal(number) { number in
        TemporaryFiles.removeAll()
        _exit(128 + number)
      }
    }
  }
}
