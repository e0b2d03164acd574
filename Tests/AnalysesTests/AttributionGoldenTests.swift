import NormLens
import TestSupport
import Testing

/// Estimates of patching effects against autograd in float64 (`Tests/Golden/make_gradient_golden.py`).
@Suite struct AttributionGoldenTests {
  private func replacement(_ name: String, _ golden: PatchingGolden) throws -> Replacement {
    switch name {
    case "zero": .zero
    case "mean": .mean(over: try golden.references("ragged"))
    case "position_mean": .positionMean(over: try golden.references("seven"))
    default: .otherRun
    }
  }

  private func method(_ sweep: PatchingGolden.Sweep) throws -> AttributionPatching.Method {
    switch sweep.method {
    case "attribution": .attribution
    case "relevance": .relevance(.relp)
    default: .integratedGradients(steps: sweep.steps)
    }
  }

  private func sweep(
    _ sweep: PatchingGolden.Sweep, _ golden: PatchingGolden
  ) throws -> ActivationPatching {
    let sites = try sweep.sites.map { name in
      try #require(PatchSite.all.first { $0.name == name }, "no site \(name)")
    }
    let metric = try #require(
      Metric.all.first { $0.name == sweep.metric }, "no metric \(sweep.metric)")
    return ActivationPatching(
      of: sites, direction: try #require(.init(rawValue: sweep.direction)), metric: metric,
      replacement: try replacement(sweep.replacement, golden))
  }

  /// Every golden sweep, each site within 3e-4 of its largest value.
  @Test(arguments: PatchingGolden.checkpoints)
  func everySweep(_ name: String) throws {
    let model = try GPT2.load(Fixtures.checkpoint(name))
    let golden = try PatchingGolden(name)
    let values = try GradientGolden(name).golden
    let sweeps = try PatchingGolden.sweeps(in: values)
    #expect(sweeps.count == (name == "tiny-ln" ? 60 : 12))
    var comparisons: [String: Comparison] = [:]
    let metrics = Comparison("\(name), golden metrics of the clean runs")
    for each in sweeps {
      let pairs = try golden.pairs(each.set, answers: each.answers)
      let result = try AttributionPatching(of: try sweep(each, golden), by: [try method(each)])
        .run(model, pairs)
      let found = try SweepValues(result, method: try method(each).group)
      // Where the clean run is its own target nothing has a slope, in the golden up to rounding.
      let vanishes =
        each.metric == "kl" && each.direction == "noising" && each.steps == 0
      let comparison =
        comparisons[each.method]
        ?? Comparison("\(name), golden estimates, \(each.method)", relative: 3e-4)
      comparisons[each.method] = comparison
      for site in each.sites {
        let label = "\(each.set) \(each.direction) \(each.metric) \(each.replacement) \(site)"
        let expected = try values.array("\(each.path)/\(site)")
        if vanishes {
          #expect(expected.magnitude < 1e-10)
          #expect(try found[site].allSatisfy { $0 == 0 }, "\(label)")
        } else {
          comparison.check(label, try found[site], expected.values)
        }
      }
      let clean = try values.array("\(each.path)/clean_metric")
      metrics.check(each.path, found.cleanMetric, clean.values, scale: max(1, clean.magnitude))
    }
    #expect(comparisons.count == 3)
    for comparison in comparisons.values { comparison.report("sites") }
    metrics.report("sweeps")
  }

  /// Pairs of two lengths in one set, and all methods in one run.
  @Test(arguments: PatchingGolden.checkpoints, [ActivationPatching.Direction.denoising, .noising])
  func unequalLengths(_ name: String, _ direction: ActivationPatching.Direction) throws {
    let model = try GPT2.load(Fixtures.checkpoint(name))
    let golden = try PatchingGolden(name)
    let values = try GradientGolden(name).golden
    let sweeps = try PatchingGolden.sweeps(in: values).filter {
      $0.direction == direction.rawValue && $0.metric == "logit-difference"
        && $0.replacement == "other_run"
    }
    #expect(sweeps.count == 6)
    let (seven, five) = (try golden.pairs("seven"), try golden.pairs("five"))
    let order = [("seven", 0), ("five", 0), ("seven", 1), ("five", 1), ("seven", 2)]
    let pairs = order.map { $0.0 == "seven" ? seven[$0.1] : five[$0.1] }
    let sites = PatchSite.all.filter { ![.mlpPost, .headPatternDestSrc].contains($0) }
    var experiment = ActivationPatching(of: sites, direction: direction)
    experiment.positions = .fromEnd
    let steps = try #require(sweeps.map(\.steps).max())
    let methods: [AttributionPatching.Method] = [
      .attribution, .integratedGradients(steps: steps), .relevance(.relp),
    ]
    let result = try AttributionPatching(of: experiment, by: methods).run(model, pairs)
    let comparison = Comparison(
      "\(name), golden estimates, unequal lengths, \(direction.rawValue)", relative: 3e-4)
    for method in methods {
      let found = try SweepValues(result, method: method.group)
      for site in sites {
        for (prompt, (set, index)) in order.enumerated() {
          let path = try #require(
            sweeps.first { $0.method == method.name && $0.set == set }
          ).path
          let expected = try values.array("\(path)/\(site.name)")
          let row = expected.row(index)
          let cells = try found.cells(site.name, prompt: prompt, length: pairs[prompt].length)
          let order = NaivePatching.cells(row.shape)
          #expect(cells.count == order.count)
          comparison.check(
            "\(method.name) \(site) of \(prompt)", order.map { cells[$0] ?? .nan }, row.values,
            scale: expected.magnitude)
        }
      }
    }
    comparison.report("sites")
  }
}
