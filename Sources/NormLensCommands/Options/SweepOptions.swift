import ArgumentParser
import NormLens

/// What a patching sweep overwrites, and what it measures.
struct SweepOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "What is overwritten, comma-separated: \(PatchSite.all.map(\.name).joined(separator: ", ")); "
        + "or the bundles blocks, heads, heads_by_pos.", valueName: "list"))
  var sites = "resid_pre,attn_out,mlp_out,head_z"

  @Flag(
    help: ArgumentHelp(
      "Patch the corrupted run with clean values (the default), or the clean run with corrupted "
        + "values (the default of ablations)."))
  var direction: DirectionFlag?

  @Option(
    help: ArgumentHelp(
      "What is measured: \(Metric.all.map(\.name).joined(separator: ", ")).", valueName: "name"))
  var metric = Metric.logitDifference.name

  @Option(
    parsing: .unconditional,  // else -1 would be taken for an option
    help: ArgumentHelp(
      "Only these layers: 0,3 or 2-5 or -1.", valueName: "list"))
  var layers: String?

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "Only these positions: numbers (BOS is 0, -1 the last) or names from the prompts file (S2,END).",
      valueName: "list"))
  var positions: String?

  @Option(
    help: ArgumentHelp(
      "How the positions of prompts of unequal lengths correspond: label (those with a name) or end "
        + "(counted from the end).", valueName: "how"))
  var align: Alignment?

  enum DirectionFlag: String, EnumerableFlag {
    case denoising, noising
  }

  enum Alignment: String, ExpressibleByArgument, CaseIterable {
    case label, end
  }

  func validate() throws {
    if positions != nil && align != nil {
      throw ValidationError("--positions and --align both choose positions: give one of them")
    }
  }

  /// The sites, bundles spelled out.
  func patchSites() throws -> [PatchSite] {
    let bundles = [
      "blocks": PatchSite.blocks, "heads": PatchSite.heads, "heads_by_pos": PatchSite.headsByPos,
    ]
    var result: [PatchSite] = []
    for word in listWords(sites) {
      let found = bundles[word] ?? PatchSite.all.filter { $0.name == word }
      if found.isEmpty {
        let names = PatchSite.all.map(\.name) + bundles.keys.sorted()
        let near = nearestText(to: word, among: names).map { "; did you mean '\($0)'?" } ?? ""
        throw CommandError(
          "--sites: unknown site '\(word)'\(near) (known: \(names.joined(separator: ", ")))")
      }
      // A site may be in a bundle and named again.
      result += found.filter { !result.contains($0) }
    }
    return result
  }

  /// The metric.
  func chosenMetric() throws -> Metric { try Self.metric(named: metric) }

  /// The metric of this name.
  static func metric(named metric: String) throws -> Metric {
    if let found = Metric.all.first(where: { $0.name == metric }) { return found }
    let names = Metric.all.map(\.name)
    let near = nearestText(to: metric, among: names).map { "; did you mean '\($0)'?" } ?? ""
    throw CommandError(
      "--metric: unknown metric '\(metric)'\(near) (known: \(names.joined(separator: ", ")))")
  }

  /// The positions.
  func patchPositions() -> PatchPositions {
    switch align {
    case .label: return .labels
    case .end: return .fromEnd
    case nil: return positions.map { .at(places($0)) } ?? .all
    }
  }
}

/// Positions by number or by name.
func places(_ list: String) -> [PatchPositions.Place] {
  listWords(list).map { word in Int(word).map { .index($0) } ?? .label(word) }
}
