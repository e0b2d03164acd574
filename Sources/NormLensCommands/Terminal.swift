import Foundation
import NormLens

/// Standard output, standard error, and what is known of them.
enum Terminal {
  /// Whether standard output is a terminal.
  static let isInteractive = isatty(1) == 1

  /// A line on standard output; where it cannot be written, the process ends.
  static func print(_ text: String) { write(Data((text + "\n").utf8)) }

  /// Bytes on standard output; where they cannot be written, the process ends.
  static func write(_ bytes: Data) {
    do {
      try FileHandle.standardOutput.write(contentsOf: bytes)
    } catch {
      TemporaryFiles.removeAll()
      let cause = (error as NSError).userInfo[NSUnderlyingErrorKey] as? NSError ?? error as NSError
      let code = POSIXErrorCode(rawValue: Int32(cause.code))
      // The reader has seen enough: no error, and the status that the signal would have left.
      if code == .EPIPE { _exit(128 + SIGPIPE) }
      let reason =
        switch code {
        case .ENOSPC: "no space left"
        case .EBADF: "it is closed"
        default: "the system refuses it"
        }
      complain("standard output: cannot be written: \(reason)")
      _exit(ExitStatus.io.rawValue)
    }
  }

  /// One line on standard error.
  static func note(_ text: String) {
    writeError("normlens: " + text + "\n")
  }

  /// Text on standard error. That it cannot be written can be told to nobody.
  static func writeError(_ text: String) {
    try? FileHandle.standardError.write(contentsOf: Data(text.utf8))
  }

  /// Puts something unwritable where the caller closed a standard stream: the next file to be opened
  /// would get its number, and what is printed.
  static func occupyClosedStreams() {
    guard let null = FileHandle(forReadingAtPath: "/dev/null") else { return }
    let spare = fcntl(null.fileDescriptor, F_DUPFD, 3)
    try? null.close()
    for stream in Int32(0)...2 where fcntl(stream, F_GETFD) == -1 { dup2(spare, stream) }
    close(spare)
  }

  /// The columns that text should fill: `COLUMNS`, else the terminal's, else 80.
  static var columns: Int {
    let wish = ProcessInfo.processInfo.environment["COLUMNS"].flatMap { Int($0) } ?? 0
    return wish > 0 ? wish : TerminalWidth.columns ?? 80
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

  /// Tells that `done` of the total are done, which are `fraction` of the work if not all cost the
  /// same; what was `resumed` of both had been done before.
  mutating func update(
    _ done: Int, fraction: Double? = nil, resumed: (done: Int, fraction: Double) = (0, 0)
  ) {
    guard enabled else { return }
    let now = ContinuousClock.now
    guard now - shown > .milliseconds(200) || (drawn && done >= total), now - start > .seconds(1)
    else { return }
    shown = now
    drawn = true
    let seconds = (now - start) / .seconds(1)
    let rate = Double(done - resumed.done) / seconds
    let share = fraction ?? Double(done) / Double(max(1, total))
    let left = share > resumed.fraction ? seconds * (1 - share) / (share - resumed.fraction) : 0
    let line =
      "\(what): \(done)/\(total)  \(fixed(rate, rate < 10 ? 1 : 0))/s  \(fixed(left, 0)) s left"
    let end = done >= total ? "\n" : ""
    Terminal.writeError("\r\u{1B}[K\(line)\(end)")
  }
}

/// A time as a person would say it: seconds, minutes or hours.
func duration(_ seconds: Double) -> String {
  seconds < 120
    ? "\(fixed(seconds, 0)) s"
    : seconds < 7200 ? "\(fixed(seconds / 60, 0)) min" : "\(fixed(seconds / 3600, 1)) h"
}

/// SIGINT, SIGTERM and SIGHUP, as when a terminal is closed: the process ends at once and leaves no
/// temporary file.
enum Interruption {
  static func install() {
    TemporaryFiles.prepare()
    // nohup has SIGHUP ignored, and means it.
    let hangup = TemporaryFiles.isIgnored(SIGHUP) ? [] : [SIGHUP]
    for number in [SIGINT, SIGTERM] + hangup {
      signal(number) { number in
        TemporaryFiles.removeAll()
        _exit(128 + number)
      }
    }
    // A file beyond `ulimit -f` is then an error of writing like a full disk.
    signal(SIGXFSZ, SIG_IGN)
  }
}
