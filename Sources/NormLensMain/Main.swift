import NormLensCommands

@main
enum Main {
  static func main() { NormLensCommand.runProcess() }
}
