public import Results

/// The losses of changed models as text: skips beside angular distances, the expansion in block writes,
/// and massive activations.
///
/// - Parameter groups: the groups of the result; `stream/ablation` is shown, with the angles of
///   `stream/distance` where these are there.
/// - Returns: the tables; nil where there is nothing to show.
public func ablationTables(_ groups: [ResultGroup]) -> String? {
  guard let group = groups.first(where: { $0.path == "stream/ablation" }),
    let base = group.numbers("base_loss")?.first, let count = group.numbers("count")?.first
  else { return nil }
  let prompts = group.attributes["prompts"]?.description ?? ""
  let heading =
    "losses in nats over \(Int(count)) tokens, position 0 among them (prompts: \(prompts)); "
    + "as it is: \(loss(base))"
  let parts = [
    skipTable(group, groups.first { $0.path == "stream/distance" }), expansionTable(group),
    massiveLine(group, base),
  ].compactMap { $0 }
  return ([heading] + parts).joined(separator: "\n\n")
}

/// For each number of blocks what the best skips cost: the best by loss, by angle, and in the middle.
private func skipTable(_ group: ResultGroup, _ distance: ResultGroup?) -> String? {
  guard let losses = group.numbers("skip_loss"), let middle = group.numbers("middle_span_loss"),
    let layers = group[dimension: "layer"]?.count
  else { return nil }
  let angles = distance?.numbers("angular_distance").flatMap {
    $0.count == (layers + 1) * (layers + 1) ? $0 : nil
  }
  func skipped(_ layer: Int, _ length: Int) -> String {
    length == 1 ? "\(layer)" : "\(layer)–\(layer + length - 1)"
  }
  var table = TextTable(
    [("left out", .right), ("best by loss", .left), ("loss", .right)]
      + (angles == nil ? [] : [("best by angle", .left), ("loss", .right)])
      + [("in the middle", .right)])
  for length in 1...layers {
    func best(_ value: (Int) -> Double) -> Int? {
      (0...layers - length).filter { !value($0).isNaN }.min { value($0) < value($1) }
    }
    func cells(_ layer: Int?) -> [String] {
      guard let layer else { return ["–", "–"] }
      return [skipped(layer, length), loss(losses[layer * layers + length - 1])]
    }
    let byAngle = angles.map { angles in
      cells(best { angles[$0 * (layers + 1) + $0 + length] })
    }
    table.add(
      [String(length)] + cells(best { losses[$0 * layers + length - 1] }) + (byAngle ?? [])
        + [loss(middle[length - 1])])
  }
  return "loss without so many blocks in a row:\n\(table.text)"
}

/// The loss over λ, and the parallel model.
private func expansionTable(_ group: ResultGroup) -> String? {
  guard let lambdas = group[dimension: "lambda"], let scaled = group.numbers("scaled_loss"),
    let parallel = group.numbers("parallel_loss")?.first,
    let divergence = group.numbers("parallel_kl")?.first,
    let errors = group.numbers("parallel_error"), let layers = group[dimension: "layer"]?.count
  else { return nil }
  var table = TextTable(
    [("lambda", .left)] + (0..<lambdas.count).map { (lambdas.label(at: $0), .right) })
  table.add(["loss"] + scaled.map(loss))
  return """
    every block's write multiplied by lambda:
    \(table.text)
    every block reading the embeddings (first order in block writes): loss \(loss(parallel)), divergence
    from the model \(loss(divergence)), error of the final stream \(significant(errors[2 * layers - 1])) of its length (\(significant(errors[layers - 1])) at position 0)
    """
}

private func massiveLine(_ group: ResultGroup, _ base: Double) -> String? {
  guard let zero = group.numbers("massive_zero_loss")?.first,
    let mean = group.numbers("massive_mean_loss")?.first,
    let layer = group.attributes["massive_layer"]?.description
  else { return group.attributes["massive"].map { "massive activations: \($0.description)" } }
  let dimensions = group[dimension: "massive_dim"].map { dimension in
    (0..<dimension.count).map { dimension.label(at: $0) }.joined(separator: ", ")
  }
  return "massive activations before block \(layer) (coordinates \(dimensions ?? "?")): loss "
    + "\(loss(zero)) set to 0, \(loss(mean)) set to their means"
}

/// Four decimals of a loss.
private func loss(_ value: Double) -> String { fixedOrDash(value, 4) }
