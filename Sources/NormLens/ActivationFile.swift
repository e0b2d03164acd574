public import Analyses
import HDF5Store
public import HookedGPT2
import OrderedCollections
public import Results
import Tensors

/// Records activations into a result file, a few prompts at a time: the file may be larger than
/// memory.
///
/// Group `activations` holds one variable a site, `resid_pre(prompt, layer, pos, d_model)`,
/// `pattern(prompt, layer, head, query_pos, key_pos)`. Layers that were not asked for and positions
/// past a prompt's end are NaN.
public struct ActivationRecording: Sendable {
  /// The hooks to record.
  public var hooks: [HookName]
  /// The positions to record.
  public var positions: PositionSelection
  /// How many prompts run at once.
  public var batchSize: Int

  /// A recording.
  public init(hooks: [HookName], positions: PositionSelection = .all, batchSize: Int = 1) {
    self.hooks = hooks
    self.positions = positions
    self.batchSize = batchSize
  }

  /// The bytes in memory that one prompt of `length` tokens needs.
  public func byteCount(_ config: GPT2Config, length: Int) -> Int {
    let recorded = hooks.reduce(0) { $0 + $1.site.shape(config, positions: length).reduce(1, *) }
    let working = length * (12 * config.dModel + 2 * config.dMLP)
    return 4 * (recorded + working)
  }

  /// Runs the model and writes the file; it appears complete or not at all.
  ///
  /// - Parameters:
  ///   - model: any model.
  ///   - prompts: what to run.
  ///   - path: the result file.
  ///   - provenance: facts added to those of the model.
  ///   - progress: told after each batch how many prompts are done; may throw to stop.
  /// - Returns: the bytes of activations written.
  /// - Throws: `ModelError`, `HDF5Error`, whatever `progress` throws.
  @discardableResult
  public func write(
    _ model: GPT2, _ prompts: [Prompt], to path: String, provenance: Provenance = Provenance(),
    progress: (Int) throws -> Void = { _ in }
  ) throws -> Int {
    if hooks.isEmpty {
      throw ModelError.nothingMatches(filter: "--hooks", reason: "no hooks were selected")
    }
    let layout = try Layout(self, model, prompts)
    let writer = try ResultFileWriter(
      path: path, title: "Activations of \(model.identity.name)",
      provenance: Provenance(model: model).merging(provenance), groups: [layout.group])
    for variable in layout.coordinates {
      let shape = variable.dimensions.map { layout.extents[$0] ?? 0 }
      try writer.write(
        group: "activations", variable: variable.name, start: shape.map { _ in 0 }, count: shape,
        values: variable.values)
    }
    var written = 0
    for start in stride(from: 0, to: prompts.count, by: max(batchSize, 1)) {
      let batch = prompts[start..<min(prompts.count, start + max(batchSize, 1))]
      let (_, cache) = try model.runWithCache(
        batch: batch.map(\.tokens), hooks: hooks.map { HookFilter($0) }, positions: positions,
        logits: .none)
      for index in 0..<batch.count {
        for name in hooks {
          let tensor = try cache.tensor(name, prompt: index)
          // Masked scores are −∞ by design; anything else must be a number, since NaN in the file
          // means "not computed".
          guard name.site == .attnScores || tensor.isFinite else {
            throw ModelError.nonFinite(what: "\(name) of prompt \(start + index)")
          }
          let slab = layout.slab(name, prompt: start + index, tensor)
          try writer.write(
            group: "activations", variable: name.site.rawValue, start: slab.start,
            count: slab.count, tensor: slab.values)
          written += 4 * tensor.count
        }
      }
      try progress(start + batch.count)
    }
    try writer.finish()
    return written
  }

  /// Where everything goes in the file.
  private struct Layout {
    let group: ResultFileWriter.Group
    let coordinates: [ResultVariable]
    let extents: [String: Int]
    private let layers: [Int]
    /// What one prompt and layer of a site fill in the file.
    private let slabShapes: [Site: [Int]]

    init(_ recording: ActivationRecording, _ model: GPT2, _ prompts: [Prompt]) throws {
      let config = model.config
      let axes = try PromptAxes(prompts, model: model, analysis: "cache")
      let positions = try prompts.map {
        try recording.positions.resolved(length: $0.tokens.count, hook: "positions")
      }
      for named in positions where Set(named).count != named.count {
        throw ModelError.nothingMatches(
          filter: "positions", reason: "one position is named twice: \(named)")
      }
      // Positions counted from the end differ from prompt to prompt and are then coordinates.
      let recorded: Dimension.Coordinates
      if case .at = recording.positions, Set(positions).count == 1 {
        recorded = .integers(positions[0])
      } else {
        recorded = .indices(positions.map(\.count).max() ?? 0)
      }
      let layers = Set(recording.hooks.compactMap(\.layer)).sorted()
      let all: [String: Dimension] = [
        "prompt": axes.prompt, "layer": Dimension("layer", .integers(layers)),
        "pos": Dimension("pos", recorded), "head": Dimension("head", count: config.nHeads),
        "query_pos": Dimension("query_pos", recorded),
        "key_pos": Dimension("key_pos", count: axes.longest),
        "d_model": Dimension("d_model", count: config.dModel),
        "d_head": Dimension("d_head", count: config.dHead),
        "d_mlp": Dimension("d_mlp", count: config.dMLP),
        "vocab": Dimension("vocab", count: config.dVocab),
      ]
      extents = all.mapValues(\.count)
      self.layers = layers

      var sites: [Site] = []
      for hook in recording.hooks where !sites.contains(hook.site) { sites.append(hook.site) }
      var dimensionNames = ["prompt", "pos"]
      let variables = sites.map { site in
        let axes = ["prompt"] + (site.isPerLayer ? ["layer"] : []) + site.axes.filter { $0 != "1" }
        dimensionNames += axes.filter { !dimensionNames.contains($0) }
        let leading = site.isPerLayer ? 2 : 1
        let hook =
          site.isPerLayer
          ? HookName(site, layer: 0).rawValue.replacing("blocks.0.", with: "blocks.{layer}.")
          : site.path
        return ResultFileWriter.Variable(
          site.rawValue, axes, .float32,
          attributes: [
            "long_name": .string("activation at \(hook)"), "units": .string("1"),
            "sign_convention": .string("as computed by the model"), "tl_hook": .string(hook),
            "tl_shape": .string("batch " + site.axes.joined(separator: " ")),
          ],
          chunk: Self.chunk(
            axes.enumerated().map { $0 < leading ? 1 : all[$1]?.count ?? 1 }))
      }
      slabShapes = Dictionary(
        uniqueKeysWithValues: sites.map { site in
          (site, site.axes.filter { $0 != "1" }.map { all[$0]?.count ?? 1 })
        })
      coordinates =
        recording.positions == .all
        ? axes.tokenCoordinates
        : Self.selectedTokens(
          prompts, positions, axes.pieces, attention: sites.contains(where: \.isAttention))
      group = ResultFileWriter.Group(
        path: "activations", dimensions: dimensionNames.compactMap { all[$0] },
        variables: coordinates.map { ResultFileWriter.Variable($0) } + variables)
    }

    /// The tokens at the recorded positions, and which positions those are.
    private static func selectedTokens(
      _ prompts: [Prompt], _ positions: [[Int]], _ pieces: [[String]]?, attention: Bool
    ) -> [ResultVariable] {
      func variable(
        _ name: String, _ values: ResultVariable.Values, _ meaning: String
      ) -> ResultVariable {
        ResultVariable(
          name, ["prompt", "pos"], values, longName: meaning, units: "1", isCoordinate: true)
      }
      let ids = zip(prompts, positions).flatMap { prompt, at in at.map { prompt.tokens[$0] } }
      var result = [
        variable("token_id", .integers(ids), "token id"),
        variable("position", .integers(positions.flatMap(\.self)), "position in the prompt"),
      ]
      if attention {
        result.append(
          ResultVariable(
            "query_position", ["prompt", "query_pos"], .integers(positions.flatMap(\.self)),
            longName: "position of the query in the prompt", units: "1", isCoordinate: true))
      }
      if let pieces {
        let texts = zip(pieces, positions).flatMap { pieces, at in at.map { pieces[$0] } }
        result.insert(variable("token", .strings(texts), "token text"), at: 0)
      }
      return result
    }

    /// Pieces of at most 4 MiB: what is read at once, and what the filters hold in memory.
    private static func chunk(_ slab: [Int]) -> [Int] {
      var chunk = slab
      for axis in chunk.indices {
        let size = 4 * chunk.reduce(1, *)
        if size <= 4 << 20 { break }
        let factor = (size + (4 << 20) - 1) / (4 << 20)
        chunk[axis] = max(1, chunk[axis] / factor)
      }
      return chunk
    }

    /// One prompt's activation with NaN behind a shorter prompt's end: whole slabs are written, so
    /// that no half-filled piece is kept in memory.
    func slab(
      _ name: HookName, prompt: Int, _ tensor: Tensor
    ) -> (start: [Int], count: [Int], values: Tensor) {
      var start = [prompt]
      if let layer = name.layer { start.append(layers.firstIndex(of: layer) ?? 0) }
      let shape = slabShapes[name.site] ?? tensor.shape
      let own = name.site.axes.last == "1" ? [tensor.shape[0]] : tensor.shape
      return (
        start + shape.map { _ in 0 }, start.map { _ in 1 } + shape,
        tensor.reshaped(own).padded(to: shape, with: .nan)
      )
    }
  }
}
