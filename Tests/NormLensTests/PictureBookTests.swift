import NormLens
import TestSupport
import Testing

/// What the picture book chooses, on results made by hand.
@Suite struct PictureBookTests {
  /// Numbers 0, 1, 2, … in a variable of these axes.
  private static func counting(
    _ name: String, _ axes: [(String, Int)], sign: String = "not signed", units: String = "1",
    from first: Double = 0
  ) -> (ResultVariable, [Dimension]) {
    let count = axes.map(\.1).reduce(1, *)
    let values = (0..<count).map { first + Double($0) }
    return (
      ResultVariable(
        name, axes.map(\.0), .float64(values), longName: "what \(name) is", units: units, sign: sign
      ),
      axes.map { Dimension($0.0, count: $0.1) }
    )
  }

  private static func result(
    _ path: String, _ variables: [(ResultVariable, [Dimension])],
    coordinates: [ResultVariable] = [], dimensions more: [Dimension] = [],
    facts: Provenance = Provenance(["model_name": .string("tiny")])
  ) -> ResultSet {
    var dimensions: [Dimension] = more
    for dimension in variables.flatMap(\.1)
    where !dimensions.contains(where: { $0.name == dimension.name }) {
      dimensions.append(dimension)
    }
    return ResultSet(
      title: "test",
      groups: [
        ResultGroup(
          path: path, dimensions: dimensions, variables: coordinates + variables.map(\.0))
      ], provenance: facts)
  }

  private static func cells(_ panel: Picture.Panel) throws -> Picture.Cells {
    guard case .cells(let cells) = panel.drawing else {
      Issue.record("not cells: \(panel)")
      throw CancellationError()
    }
    return cells
  }

  /// Layers by heads: rows are layers, the mean over prompts comes first, every prompt follows.
  @Test func meanAndPrompts() throws {
    let picture = try #require(
      PictureBook().pictures(
        of: Self.result(
          "sweep", [Self.counting("effect", [("prompt", 3), ("layer", 2), ("head", 2)])])
      ).first)
    #expect(
      picture.views.map(\.choice) == ["mean over 3 prompts", "prompt 0", "prompt 1", "prompt 2"])
    let mean = try Self.cells(picture.views[0].panels[0])
    #expect(mean.values == [4, 5, 6, 7])
    #expect(mean.y == Picture.Axis("layer", ["0", "1"]))
    #expect(mean.x == Picture.Axis("head", ["0", "1"]))
    #expect(try Self.cells(picture.views[3].panels[0]).values == [8, 9, 10, 11])
    // The mean has its own scale, single prompts share one.
    #expect(picture.views[0].scale?.high == 7)
    #expect(picture.views[1].scale == picture.views[3].scale)
    #expect(picture.views[1].scale?.high == 11)
    #expect(picture.name == "sweep-effect" && picture.facts.contains("tiny"))
  }

  /// Signed numbers lie symmetrically about white; a sign in words suffices.
  @Test func symmetricScale() throws {
    for (sign, first) in [("positive = raises the metric", 0.0), ("not signed", -1.0)] {
      let picture = try #require(
        PictureBook().pictures(
          of: Self.result(
            "sweep",
            [Self.counting("effect", [("layer", 2), ("head", 3)], sign: sign, from: first)])
        ).first)
      let scale = try #require(picture.views[0].scale)
      #expect(scale.isSigned && scale.low == -scale.high)
      #expect(scale.colour(0).hex == "#f7f7f7")
      #expect(scale.colour(scale.high).hex == "#053061")
      #expect(scale.colour(scale.low).hex == "#67001f")
      #expect(scale.colour(.nan) == ColourScale.missing)
    }
  }

  private static func tokens(_ rows: [[String]]) -> [ResultVariable] {
    [
      ResultVariable(
        "token", ["prompt", "pos"], .strings(rows.flatMap { $0 }), longName: "token", units: "1",
        isCoordinate: true),
      ResultVariable(
        "token_id", ["prompt", "pos"],
        .integers(rows.flatMap { $0.map { $0.isEmpty ? -1 : 7 } }), longName: "id", units: "1",
        isCoordinate: true),
    ]
  }

  /// Tokens stand at positions, with blanks to be seen; a prompt ends where its tokens do, and there
  /// is no mean over prompts of different lengths.
  @Test func tokenLabels() throws {
    let picture = try #require(
      PictureBook().pictures(
        of: Self.result(
          "sweep", [Self.counting("norm", [("prompt", 2), ("layer", 2), ("pos", 3)])],
          coordinates: Self.tokens([["A", " cat", "\n"], ["A", " dog", ""]]))
      ).first)
    #expect(picture.views.map(\.choice) == ["prompt 0", "prompt 1"])
    #expect(picture.views[0].prompt == "A cat\n")
    #expect(try Self.cells(picture.views[0].panels[0]).x.labels == ["A", "·cat", "\\n"])
    let short = try Self.cells(picture.views[1].panels[0])
    #expect(short.x.labels == ["A", "·dog"] && short.values == [6, 7, 9, 10])
  }

  /// Of prompts of one length, the mean names the tokens that all share.
  @Test func sharedTokens() throws {
    let picture = try #require(
      PictureBook().pictures(
        of: Self.result(
          "sweep", [Self.counting("norm", [("prompt", 2), ("layer", 2), ("pos", 2)])],
          coordinates: Self.tokens([["A", " cat"], ["A", " dog"]]))
      ).first)
    #expect(picture.views[0].choice == "mean over 2 prompts")
    #expect(try Self.cells(picture.views[0].panels[0]).x.labels == ["A", "1"])
  }

  /// A pattern is a thumbnail a head, without what lies in the future.
  @Test func patterns() throws {
    let (axes, heads) = ([("query_pos", 2), ("key_pos", 2)], [("layer", 2), ("head", 3)])
    let (variable, dimensions) = Self.counting("pattern", [("prompt", 1)] + heads + axes)
    var pattern = variable
    // A causal head attends to itself and what is before; one that does not is drawn as it is.
    pattern.values = .float32((0..<6).flatMap { [1, $0 == 0 ? 0.5 : 0, 0.25, 0.75] })
    let picture = try #require(
      PictureBook().pictures(of: Self.result("activations", [(pattern, dimensions)])).first)
    #expect(picture.layout == .thumbnails(columns: 3) && picture.isMain)
    #expect(
      picture.views[0].panels.map(\.title) == ["L0H0", "L0H1", "L0H2", "L1H0", "L1H1", "L1H2"])
    #expect(try Self.cells(picture.views[0].panels[0]).values == [1, 0.5, 0.25, 0.75])
    let last = try Self.cells(picture.views[0].panels[5]).values
    #expect(last[0] == 1 && last[1].isNaN && last[2...] == [0.25, 0.75])
  }

  /// Vectors are drawn by their length, and the picture says so.
  @Test func lengths() throws {
    let picture = try #require(
      PictureBook().pictures(
        of: Self.result(
          "activations", [Self.counting("resid_pre", [("layer", 2), ("pos", 2), ("d_model", 2)])])
      ).first)
    let expected = [1.0, 13, 41, 85].map { $0.squareRoot() }
    #expect(try Self.cells(picture.views[0].panels[0]).values == expected)
    #expect(picture.facts.contains("length over d_model (2)"))
  }

  /// Heads by position are rows of heads; paths from all heads are layers by heads.
  @Test func headsAsRows() throws {
    let rows = try #require(
      PictureBook().pictures(
        of: Self.result("sweep", [Self.counting("z", [("layer", 2), ("pos", 3), ("head", 2)])])
      ).first)
    let cells = try Self.cells(rows.views[0].panels[0])
    #expect(cells.y.labels == ["L0H0", "L0H1", "L1H0", "L1H1"])
    // [layer, pos, head] = [1, 2, 0] is value 10, in row L1H0.
    #expect(cells.values[2 * 3 + 2] == 10)
    let senders = Dimension("sender", .labels(["L0H0", "L0H1", "L1H0", "L1H1"]))
    let variable = ResultVariable(
      "effect_normalized", ["sender", "receiver"], .float64([0, 1, 2, 3]), longName: "effect",
      units: "1")
    let paths = try #require(
      PictureBook().pictures(
        of: Self.result("path", [(variable, [senders, Dimension("receiver", .labels(["final"]))])])
      ).first)
    let grid = try Self.cells(paths.views[0].panels[0])
    #expect(grid.y.labels == ["0", "1"] && grid.x.labels == ["0", "1"] && grid.x.title == "head")
  }

  /// Every finding of the bundled results is in a picture, and no two pictures have one name.
  @Test(arguments: ["relp-mini", "ln-geometry-mini", "layernorm-questions-mini"])
  func nothingIsLeftOut(_ name: String) throws {
    let result = try ResultFile.read("\(Fixtures.data)/results/\(name).h5")
    let pictures = PictureBook().pictures(of: result)
    #expect(Set(pictures.map(\.name)).count == pictures.count)
    for group in result.groups {
      let drawn = Set(pictures.filter { $0.group == group.path }.flatMap(\.variables))
      let findings = group.variables.filter { !$0.isCoordinate }.map(\.name)
      #expect(drawn.isSuperset(of: findings), "\(group.path): \(Set(findings).subtracting(drawn))")
    }
    print("\(name): \(pictures.count) pictures")
  }

  /// Nothing to draw is said: all NaN, an empty axis.
  @Test func nothing() throws {
    let empty = ResultVariable(
      "void", ["layer", "head"], .float32(Array(repeating: .nan, count: 4)), longName: "void",
      units: "1")
    let none = ResultVariable(
      "none", ["layer", "rank"], .float32([]), longName: "none", units: "1")
    let pictures = PictureBook().pictures(
      of: Self.result(
        "sweep",
        [
          (empty, [Dimension("layer", count: 2), Dimension("head", count: 2)]),
          (none, [Dimension("rank", count: 0)]),
        ]))
    #expect(
      pictures.map { $0.views[0].panels[0].drawing } == [
        .note("no value: all 4 cells are NaN"), .note("no value: an axis is empty"),
      ])
    #expect(PictureBook().pictures(of: ResultSet(title: "nothing", groups: [])).isEmpty)
  }

  /// Models are facets of heat maps and series of curves, each with its name; differences point to
  /// what they are the difference of.
  @Test func models() throws {
    func group(_ path: String, _ axis: Dimension) -> ResultGroup {
      let count = axis.count
      return ResultGroup(
        path: path, dimensions: [axis, Dimension("layer", count: 2), Dimension("head", count: 2)],
        variables: [
          ResultVariable(
            "score", [axis.name, "layer", "head"],
            .float64((0..<count * 4).map(Double.init)), longName: "score", units: "1"),
          ResultVariable(
            "loss", [axis.name, "layer"], .float64((0..<count * 2).map(Double.init)),
            longName: "loss", units: "nat"),
        ])
    }
    let result = ResultSet(
      title: "two",
      groups: [
        group("measure", Dimension("model", .labels(["a", "b"]))),
        group("measure/difference", Dimension("pair", .labels(["b − a"]))),
      ],
      provenance: Provenance([
        "model_name": .strings(["a", "b"]), "normalization": .strings(["layernorm", "none"]),
        "weight_processing": .strings(["none", "fold_ln"]),
      ]))
    let pictures = PictureBook().pictures(of: result)
    let score = try #require(pictures.first { $0.name == "measure-score" })
    #expect(score.views[0].panels.map(\.model) == ["a", "b"])
    #expect(
      score.facts.prefix(2) == [
        "a: LayerNorm, weights as stored", "b: no LayerNorm, gauge fold_ln",
      ])
    let loss = try #require(pictures.first { $0.name == "measure-loss" })
    guard case .curves(let curves) = loss.views[0].panels[0].drawing else {
      Issue.record("not curves")
      return
    }
    #expect(curves.series.map(\.model) == ["a", "b"] && curves.y == "loss [nats]")
    let difference = try #require(pictures.first { $0.name == "measure-difference-score" })
    #expect(difference.differenceOf == "measure-score")
    #expect(difference.views[0].panels.map(\.model) == ["b − a"])
  }

  /// Quartiles are intervals around the middle.
  @Test func quantiles() throws {
    let variable = ResultVariable(
      "norm", ["position_class", "ln", "quantile"], .float64((0..<12).map(Double.init)),
      longName: "norm", units: "1")
    let picture = try #require(
      PictureBook().pictures(
        of: Self.result(
          "stream/summary",
          [
            (
              variable,
              [
                Dimension("position_class", .labels(["first", "rest"])), Dimension("ln", count: 2),
                Dimension("quantile", .labels(["p05", "p50", "p95"])),
              ]
            )
          ])
      ).first)
    guard case .curves(let curves) = picture.views[0].panels[0].drawing else {
      Issue.record("not curves")
      return
    }
    #expect(curves.series.map(\.name) == ["position 0", "other positions"])
    #expect(curves.series[1].values == [7, 10])
    #expect(
      curves.series[1].interval
        == Picture.Interval(low: [6, 9], high: [8, 11], meaning: "p05 to p95"))
  }

  /// A first position that dwarfs the rest does not take the scale from it.
  @Test func clippedFirstPosition() throws {
    let variable = ResultVariable(
      "norm", ["layer", "pos"], .float64([300, 1, 2, 400, 3, 4]), longName: "norm", units: "1")
    let picture = try #require(
      PictureBook().pictures(
        of: Self.result(
          "stream", [(variable, [Dimension("layer", count: 2), Dimension("pos", count: 3)])])
      ).first)
    let scale = try #require(picture.views[0].scale)
    #expect(scale.high == 4 && scale.isClipped && scale.low == 0)
  }
}
