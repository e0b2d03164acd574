import HookedGPT2
import Tensors

/// The estimates of a group of pairs by one method, summed up while the gradients come down.
///
/// A cell's estimate is the sum of `(new − base)·gradient` over what it would overwrite. For each
/// activation the products are summed once, over all axes that no chosen cut of it has; the cuts then
/// add up these *fine cells*: `head_z` is the sum of `head_z_by_pos` over positions, from one reading of
/// the memory. Sums are in double precision.
struct AttributionScores: BackwardVisitor {
  /// A run whose gradients are taken.
  struct Run {
    /// Its pair in the group.
    let pair: Int
    /// What its gradients count for.
    let weight: Double
    /// The first position of the gradients that the pass hands over.
    let first: Int
  }

  private let setup: PatchSetup
  private let pairs: [PairRuns]
  private let means: ReferenceMeans?
  private let group: Range<Int>
  private let layers: [Int: Int]
  /// The sites of the experiment that cut an activation, by their numbers.
  private let cuts: [Site: [Int]]
  /// The runs of the pass at hand.
  var runs: [Run] = []
  /// What a relevance pass is held against.
  var ledger: ConservationLedger?
  /// The estimates of each site, `[pair, axes…]`.
  private(set) var values: [[Double]]
  /// Whether there is such a cell: a prompt may lack a position.
  private(set) var exists: [[Bool]]
  /// The activations that were looked at last: several runs of one pair, or sites, ask for the same.
  private var last: (name: HookName, pair: Int, base: Tensor, new: Tensor)?

  /// No gradients yet.
  ///
  /// - Parameters:
  ///   - pairs: the runs of a group's pairs.
  ///   - means: `PatchSetup.referenceMeans()`.
  ///   - group: the pairs' places among all.
  init(_ setup: PatchSetup, _ pairs: [PairRuns], _ means: ReferenceMeans?, group: Range<Int>) {
    self.setup = setup
    self.pairs = pairs
    self.means = means
    self.group = group
    layers = Dictionary(uniqueKeysWithValues: setup.layers.enumerated().map { ($1, $0) })
    cuts = Dictionary(grouping: setup.experiment.sites.indices) {
      setup.experiment.sites[$0].site
    }
    values = setup.experiment.sites.map { site in
      Array(repeating: 0, count: pairs.count * setup.shape(site).reduce(1, *))
    }
    exists = values.map { Array(repeating: false, count: $0.count) }
    for number in setup.experiment.sites.indices {
      for pair in pairs.indices {
        let places = places(of: number, pair, from: 0, elements: nil)
        for layer in layers.values {
          places.forEach(at: start(of: number, pair, layer)) { cell, _, _, _ in
            exists[number][cell] = true
          }
        }
      }
    }
  }

  // MARK: the backward pass

  func wants(_ name: HookName) -> Bool {
    if ledger?.wants(name) == true { return true }
    guard let layer = name.layer else { return false }
    return layers[layer] != nil && cuts[name.site] != nil
  }

  mutating func visit(_ name: HookName, run: Int, _ gradient: Tensor) throws {
    let run = runs[run]
    if ledger?.wants(name) == true, let layer = name.layer {
      let base = pairs[run.pair].base(setup.experiment.direction)
      let stream = try base.activation(name.site, layer: layer, of: setup.model)
      ledger?.take(name, prompt: group.lowerBound + run.pair, stream, gradient)
    }
    guard let index = name.layer.flatMap({ layers[$0] }), let cuts = cuts[name.site] else { return }
    let start = setup.firstDifferences[group.lowerBound + run.pair]
    if start >= pairs[run.pair].pair.length { return }
    let (base, new) = try activations(name, run.pair)
    let isFine = cuts.contains {
      !Set(setup.experiment.sites[$0].axes).isDisjoint(with: [.neuron, .keyPos])
    }
    let fine = FineCells(
      name.site, base: base, new: new, gradient, from: start, gradientFrom: run.first,
      byElement: isFine)
    for number in cuts {
      let places = places(of: number, run.pair, from: start, elements: fine.elements)
      fine.add(
        to: &values[number], times: run.weight, at: self.start(of: number, run.pair, index), places)
    }
  }

  func wants(_ step: ParameterStep) -> Bool { ledger != nil }

  mutating func visit(
    _ step: ParameterStep, run: Int, input: () throws -> Tensor, gradient: Tensor
  ) throws {
    ledger?.take(step, prompt: group.lowerBound + runs[run].pair, gradient)
  }

  private mutating func activations(
    _ name: HookName, _ pair: Int
  ) throws -> (base: Tensor, new: Tensor) {
    if let last, last.name == name, last.pair == pair { return (last.base, last.new) }
    let (base, new) = try setup.activations(name, of: pairs[pair], means)
    last = (name, pair, base, new)
    return (base, new)
  }
}

// MARK: from activations to cells

extension AttributionScores {
  /// Where the cells of one layer begin in a site's estimates.
  private func start(of number: Int, _ pair: Int, _ layer: Int) -> Int {
    let shape = setup.shape(setup.experiment.sites[number])
    return (pair * shape[0] + layer) * shape.dropFirst().reduce(1, *)
  }

  /// Which cells of a layer the positions, heads and elements of an activation belong to.
  ///
  /// - Parameters:
  ///   - first: the first position that counts.
  ///   - elements: how many elements the fine cells have; nil means as many as the site's axis.
  private func places(of number: Int, _ pair: Int, from first: Int, elements: Int?) -> CellPlaces {
    let site = setup.experiment.sites[number]
    let shape = setup.shape(site)
    let length = pairs[pair].pair.length
    let slots = setup.slots.positions[group.lowerBound + pair]
    // What the sweep has no axis for adds up in one cell.
    var places = CellPlaces(
      positions: (first..<max(first, length)).map { .init(index: $0 - first, offset: 0) },
      heads: (0..<(site.site.hasHeads ? setup.model.config.nHeads : 1)).map {
        .init(index: $0, offset: 0)
      },
      elements: (0..<(elements ?? 1)).map { .init(index: $0, offset: 0) })
    var stride = 1
    for (axis, extent) in zip(site.axes, shape).dropFirst().reversed() {
      let offset = stride
      stride *= extent
      func along(_ positions: [Int?], from first: Int) -> [CellPlaces.Place] {
        positions.enumerated().compactMap { slot, position in
          position.flatMap {
            $0 < first ? nil : .init(index: $0 - first, offset: slot * offset)
          }
        }
      }
      switch axis {
      case .layer: break
      case .pos, .queryPos: places.positions = along(slots, from: first)
      case .keyPos: places.elements = along(slots, from: 0)
      case .head:
        places.heads = (0..<extent).map { .init(index: $0, offset: $0 * offset) }
      case .neuron:
        places.elements = (0..<extent).map { .init(index: $0, offset: $0 * offset) }
      }
    }
    return places
  }
}

extension Site {
  /// Whether the activation is one of each head.
  fileprivate var hasHeads: Bool { hasHeadAxis || isAttention }
}

/// Which cells the positions, heads and elements of an activation belong to: the cell of one of each is
/// the sum of the three offsets.
private struct CellPlaces {
  struct Place {
    let index: Int
    let offset: Int
  }

  var positions: [Place]
  var heads: [Place]
  var elements: [Place]

  /// Every position, head and element with its cell.
  func forEach(
    at start: Int, _ body: (_ cell: Int, _ position: Int, _ head: Int, _ element: Int) -> Void
  ) {
    for position in positions {
      for head in heads {
        let cell = start + position.offset + head.offset
        for element in elements {
          body(cell + element.offset, position.index, head.index, element.index)
        }
      }
    }
  }
}

/// `(new − base)·gradient` of one activation, summed over its innermost axis or left as it is.
///
/// Where new and base are bit for bit the same the product is 0, also where both are −∞ as the scores of
/// what a causal model does not see.
private struct FineCells {
  /// `[position, head, element]`, or `[head, position, element]` of attention.
  private var values: [Double]
  private let isAttention: Bool
  private let positions: Int
  private let heads: Int
  /// How many elements there are: 1 where they were summed.
  let elements: Int

  /// - Parameters:
  ///   - base: what would be overwritten, shape as the site's.
  ///   - new: what would be put in.
  ///   - gradient: from position `gradientFrom` on.
  ///   - first: the first position that counts.
  ///   - byElement: whether each element is a cell of its own.
  init(
    _ site: Site, base: Tensor, new: Tensor, _ gradient: Tensor, from first: Int,
    gradientFrom: Int, byElement: Bool
  ) {
    isAttention = site.isAttention
    let length = base.shape[isAttention ? 1 : 0]
    let width = base.shape[base.rank - 1]
    positions = length - first
    heads = site.hasHeads ? base.shape[isAttention ? 0 : 1] : 1
    elements = byElement ? width : 1
    precondition(
      new.shape == base.shape
        && gradient.count == base.count / length * (length - gradientFrom),
      "FineCells: '\(site.rawValue)' \(base.shape) from \(gradientFrom), gradient \(gradient.shape)"
    )
    values = Array(repeating: 0, count: positions * heads * elements)
    // Runs of rows that follow each other in memory: all of them, or those of one head's pattern.
    let blocks = isAttention ? heads : 1
    let rows = positions * (isAttention ? 1 : heads)
    let rowsBefore = first * (isAttention ? 1 : heads)
    let gradientRowsBefore = (first - gradientFrom) * (isAttention ? 1 : heads)
    let (base, new, gradient) = (base.span, new.span, gradient.span)
    for block in 0..<blocks {
      let blockStart = block * length * width
      let gradientStart = block * (length - gradientFrom) * width
      for row in 0..<rows {
        let from = blockStart + (rowsBefore + row) * width
        let gradientFrom = gradientStart + (gradientRowsBefore + row) * width
        let (a, b) = (base.extracting(from..<from + width), new.extracting(from..<from + width))
        let g = gradient.extracting(gradientFrom..<gradientFrom + width)
        let place = (block * rows + row) * elements
        if byElement {
          for i in 0..<width { values[place + i] = Self.product(a[i], b[i], g[i]) }
        } else {
          values[place] = Self.sum(a, b, g)
        }
      }
    }
  }

  @inline(__always)
  private static func product(_ base: Float, _ new: Float, _ gradient: Float) -> Double {
    base.bitPattern == new.bitPattern ? 0 : (Double(new) - Double(base)) * Double(gradient)
  }

  /// Four sums at once: one would wait for its own last addition.
  private static func sum(
    _ base: Span<Float>, _ new: Span<Float>, _ gradient: Span<Float>
  ) -> Double {
    let count = base.count
    var (s0, s1, s2, s3) = (0.0, 0.0, 0.0, 0.0)
    var i = 0
    while i + 4 <= count {
      s0 += product(base[i], new[i], gradient[i])
      s1 += product(base[i + 1], new[i + 1], gradient[i + 1])
      s2 += product(base[i + 2], new[i + 2], gradient[i + 2])
      s3 += product(base[i + 3], new[i + 3], gradient[i + 3])
      i += 4
    }
    while i < count {
      s0 += product(base[i], new[i], gradient[i])
      i += 1
    }
    return (s0 + s1) + (s2 + s3)
  }

  /// Adds these cells to a site's estimates.
  func add(to estimates: inout [Double], times weight: Double, at start: Int, _ places: CellPlaces)
  {
    let (positionStride, headStride) =
      isAttention ? (elements, positions * elements) : (heads * elements, elements)
    places.forEach(at: start) { cell, position, head, element in
      estimates[cell] +=
        weight * values[position * positionStride + head * headStride + element]
    }
  }
}
