public import Tensors

extension BaseRun {
  /// The activation of `site` in `layer`, shape as the site's; those that are not kept are computed
  /// from those that are.
  ///
  /// - Parameter model: the model that was run.
  /// - Throws: `ModelError.notRecorded` for a site outside `SuffixRuns.sites`.
  /// - Complexity: nothing for kept sites, a product of the run's rows with one weight for the others.
  public func activation(
    _ site: Site, layer: Int, of model: GPT2
  ) throws(ModelError) -> Tensor {
    let block = model.weights.blocks[layer]
    switch site {
    case .attnScores:
      return attentionScores(
        q: try activation(.q, layer), k: try activation(.k, layer),
        segment: AttentionSegment(queries: 0..<length, keys: 0..<length),
        scale: model.config.attentionScale(layer: layer))
    case .pattern: return causalSoftmax(try activation(.attnScores, layer: layer, of: model))
    case .result: return ForwardPass.headResults(try activation(.z, layer), block.W_O)
    case .mlpPre:
      let stream = try activation(.residMid, layer)
      return matmul(block.ln2?(stream) ?? stream, MatrixView(block.W_in), bias: block.b_in)
    case .mlpPost: return model.config.activation(try activation(.mlpPre, layer: layer, of: model))
    default: return try activation(site, layer)
    }
  }
}

extension HookFilter {
  /// Whether the part of two activations at `name` that this choice means is bit for bit the same.
  ///
  /// - Throws: `ModelError.nothingMatches` for positions or elements that do not exist.
  /// - Precondition: both have the site's shape.
  public func isSame(_ a: Tensor, _ b: Tensor, at name: HookName) throws(ModelError) -> Bool {
    precondition(a.shape == b.shape, "isSame: shapes \(a.shape) and \(b.shape)")
    let cells = try InterventionCells(
      site: name.site, target: self, shape: a.shape, hook: name.rawValue)
    let (x, y) = (a.span, b.span)
    for position in cells.positions {
      for head in cells.heads {
        let start = cells.start(position, head)
        for i in start..<start + cells.width where x[i].bitPattern != y[i].bitPattern {
          return false
        }
      }
    }
    return true
  }
}
