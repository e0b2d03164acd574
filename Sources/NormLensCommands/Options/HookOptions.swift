import ArgumentParser
import Foundation
import NormLens

/// Which activations to record.
struct HookOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      """
      Activations, separated by commas: hook names, shorthand (k6, resid_post-1), sites (= all \
      layers: resid_pre), globs (blocks.*.attn.hook_z), or all.
      """, valueName: "list"))
  var hooks: String

  @Option(
    parsing: .unconditional,  // else -1 would be taken for an option
    help: ArgumentHelp("Only these layers: 0,3 or 2-5 or -1.", valueName: "list"))
  var layers: String?

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("Only these positions: 0,-1.", valueName: "list"))
  var positions: String?

  /// The positions.
  func positionSelection() throws -> PositionSelection {
    guard let positions else { return .all }
    return .at(
      try listWords(positions).map { word in
        guard let position = Int(word) else {
          throw CommandError("--positions '\(positions)': '\(word)' is not a position")
        }
        return position
      })
  }

  /// The hooks in the order in which they fire.
  func names(_ config: GPT2Config) throws -> [HookName] {
    let wanted = try layerSet(config)
    let all = HookName.all(nLayers: config.nLayers, optional: true)
    var chosen: Set<HookName> = []
    for word in listWords(hooks) {
      var matches = try self.matches(word, all, config)
      // --layers picks among the layers of a site; what has no layer is not affected.
      if let wanted { matches.removeAll { $0.layer.map { !wanted.contains($0) } ?? false } }
      if matches.isEmpty {
        throw ModelError.nothingMatches(
          filter: word, reason: "no hook of that kind in the selected layers")
      }
      chosen.formUnion(matches)
    }
    return all.filter(chosen.contains)
  }

  private func matches(
    _ word: String, _ all: [HookName], _ config: GPT2Config
  ) throws -> [HookName] {
    if word == "all" { return all.filter { !$0.site.isOptional } }
    if word.contains("*") {
      let pattern = Array(word)
      let found = all.filter {
        globMatches(pattern, Array($0.rawValue))
          // `blocks.*.hook_z` names no optional hook; a star alone does not ask for the large ones.
          && (!$0.site.isOptional || !word.hasSuffix("*"))
      }
      if found.isEmpty {
        throw ModelError.nothingMatches(filter: word, reason: "no hook's name has this form")
      }
      return found
    }
    if let site = HookName.site(named: word) { return all.filter { $0.site == site } }
    return try HookFilter(HookName(parsing: word, nLayers: config.nLayers)).names(config)
  }

  private func layerSet(_ config: GPT2Config) throws -> Set<Int>? {
    try layers.map { Set(try layerList($0, config)) }
  }

  private func globMatches(_ pattern: [Character], _ text: [Character]) -> Bool {
    // `reachable[j]`: the pattern read so far can match the first j characters.
    var reachable = [true] + Array(repeating: false, count: text.count)
    for symbol in pattern {
      var next = Array(repeating: false, count: text.count + 1)
      if symbol == "*" {
        var any = false
        for j in 0...text.count {
          any = any || reachable[j]
          next[j] = any
        }
      } else {
        for j in 0..<text.count where reachable[j] && text[j] == symbol { next[j + 1] = true }
      }
      reachable = next
    }
    return reachable[text.count]
  }
}

/// The elements of a list, which may have a space behind its commas.
func listWords(_ list: String) -> [String] {
  list.split(separator: ",", omittingEmptySubsequences: false)
    .map { $0.trimmingCharacters(in: .whitespaces) }
}

/// The layers of a list such as 0,3 or 2-5 or -1, in its order.
func layerList(_ list: String, _ config: GPT2Config) throws -> [Int] {
  try listWords(list).flatMap { word in
    let range: ClosedRange<Int>
    if let match = word.wholeMatch(of: #/(\d+)-(\d+)/#), let first = Int(match.1),
      let last = Int(match.2), first <= last
    {
      range = first...last
    } else if let layer = Int(word) {
      let resolved = layer < 0 ? layer + config.nLayers : layer
      range = resolved...resolved
    } else {
      throw CommandError("--layers '\(list)': '\(word)' is not a layer or a range such as 2-5")
    }
    guard range.lowerBound >= 0 && range.upperBound < config.nLayers else {
      throw ModelError.layerOutOfRange(
        hook: "--layers \(list)", layer: Int(word) ?? range.upperBound, layers: config.nLayers)
    }
    return Array(range)
  }
}
