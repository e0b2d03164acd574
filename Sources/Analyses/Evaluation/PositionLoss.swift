import Results

/// How well tokens are predicted from each position (group `evaluate/position`).
///
/// Means are over all prompts that are long enough; medians are exact up to ``capacity`` prompts, and
/// those of a uniform sample of as many beyond.
struct PositionLoss {
  /// The most values that are kept of each position.
  static let capacity = 1024

  private struct Place {
    var count = 0
    var loss = 0.0
    var entropy = 0.0
    var values: [Double] = []
    var reservoir: Reservoir
  }

  private var places: [Place]

  init(positions: Int, seed: UInt64) {
    places = (0..<positions).map {
      Place(reservoir: Reservoir(capacity: Self.capacity, seed: seed &+ UInt64($0)))
    }
  }

  mutating func add(_ position: Int, loss: Double, entropy: Double) {
    places[position].count += 1
    places[position].loss += loss
    places[position].entropy += entropy
    for (_, slot) in places[position].reservoir.admit(0..<1) {
      if slot < places[position].values.count {
        places[position].values[slot] = loss
      } else {
        places[position].values.append(loss)
      }
    }
  }

  var group: ResultGroup {
    func mean(_ sum: KeyPath<Place, Double>) -> ResultVariable.Values {
      .float64(places.map { $0.count == 0 ? .nan : $0[keyPath: sum] / Double($0.count) })
    }
    func variable(
      _ name: String, _ values: ResultVariable.Values, _ longName: String, _ units: String,
      _ formula: String
    ) -> ResultVariable {
      ResultVariable(
        name, ["pos"], values, longName: longName, units: units,
        attributes: ["formula": .string(formula), "references": .string("arXiv:2507.02559")])
    }
    let isSampled = places.contains { $0.reservoir.isSampled }
    return ResultGroup(
      path: "evaluate/position", dimensions: [Dimension("pos", count: places.count)],
      variables: [
        variable(
          "loss_mean", mean(\.loss), "mean cross-entropy of the token at pos + 1", "nat",
          "mean over prompts of -ln p(token at pos + 1)"),
        variable(
          "loss_median", .float64(places.map { quantile($0.values, 0.5) }),
          "median cross-entropy of the token at pos + 1", "nat",
          "median over prompts of -ln p(token at pos + 1)"
            + (isSampled ? ", of \(Self.capacity) prompts drawn where there are more" : "")),
        variable(
          "entropy_mean", mean(\.entropy), "mean entropy of the prediction", "nat",
          "mean over prompts of -sum p ln p"),
        variable("count", .integers(places.map(\.count)), "tokens", "1", "tokens counted"),
      ])
  }
}
