import NormLens

/// Pictures made by hand: one of each kind of drawing, and hostile ones.
enum SVGSamples {
  static let tokens = [
    "<|endoftext|>", "When", "·Mary", "·and", "·John", "·went", "·to", "·the", "·store", ",",
    "·John", "·gave", "·a", "·drink", "·to",
  ]
  static let layers = (0..<6).map(String.init)

  /// Numbers between −1 and 1 that only look random.
  static func noise(_ count: Int, seed: Int = 1) -> [Double] {
    var state = UInt64(truncatingIfNeeded: seed) &* 2_654_435_761 &+ 12345
    return (0..<count).map { _ in
      state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      return Double(state >> 40) / Double(1 << 23) - 1
    }
  }

  static let facts = [
    "mini-lnfree · normalization none · prompts 'ioi' (48)",
    "denoising: patched − corrupted, normalised; + restores the answer; unit 1",
  ]

  /// A picture of panels.
  static func picture(
    _ name: String, _ title: String, scale: ColourScale? = nil,
    layout: Picture.Layout = .row, facts: [String] = facts, _ panels: [Picture.Panel]
  ) -> Picture {
    Picture(
      name: name, group: "sample", title: title, facts: facts, layout: layout,
      views: [Picture.View(choice: "mean over 48 prompts", panels: panels, scale: scale)])
  }

  static func signed(_ end: Double, unit: String = "logit", isClipped: Bool = false) -> ColourScale
  {
    ColourScale(low: -end, high: end, isSigned: true, unit: unit, isClipped: isClipped)
  }

  /// A heat map of layers and positions with values that have their largest near one cell.
  static func map(_ x: Picture.Axis, _ y: Picture.Axis, seed: Int) -> Picture.Cells {
    let columns = x.labels.count
    let values = noise(columns * y.labels.count, seed: seed).enumerated().map { index, value in
      let (row, column) = (index / columns, index % columns)
      return value * 0.15 + (column == 10 && row < 3 ? 0.8 : 0)
        + (column == 14 && row > 3 ? -0.7 : 0)
    }
    return Picture.Cells(x: x, y: y, values: values)
  }

  static let facets: Picture = {
    let (x, y) = (Picture.Axis("position", tokens), Picture.Axis("layer", layers))
    var missing = map(x, y, seed: 3)
    for column in 0..<15 { missing.values[30 + column] = .nan }
    return picture(
      "cells", "Activation patching: effect on the logit difference",
      scale: signed(0.95, isClipped: true),
      [
        Picture.Panel("resid_pre", .cells(map(x, y, seed: 1))),
        Picture.Panel("attn_out", .cells(map(x, y, seed: 2))),
        Picture.Panel("mlp_out", .cells(missing)),
      ])
  }()

  static let lens: Picture = {
    let streams = (0..<6).flatMap { ["\($0)_pre", "\($0)_mid"] } + ["final_post"]
    let count = streams.count * tokens.count
    let words = ["·the", "·Mary", "·a", "·John", ",", "·store", "·something", "\\n", "·to", "'s"]
    return picture(
      "lens", "Logit lens: the most probable token",
      scale: ColourScale(low: 0, high: 1, isSigned: false, unit: "probability"),
      [
        Picture.Panel(
          "",
          .cells(
            Picture.Cells(
              x: Picture.Axis("position", tokens), y: Picture.Axis("stream", streams),
              values: noise(count).map(Swift.abs),
              texts: (0..<count).map { words[$0 * 7 % words.count] })))
      ])
  }()

  static let thumbnails: Picture = {
    let axis = Picture.Axis("key_pos", tokens)
    let panels = (0..<12).map { head in
      var values = [Double](repeating: .nan, count: 225)
      for query in 0..<15 {
        for key in 0...query {
          values[query * 15 + key] = key == 0 ? 0.6 : (key == query - head % 3 ? 0.4 : 0.02)
        }
      }
      return Picture.Panel(
        "L\(head / 6)H\(head % 6)",
        .cells(Picture.Cells(x: axis, y: Picture.Axis("query_pos", tokens), values: values)))
    }
    return picture(
      "thumbnails", "Attention patterns",
      scale: ColourScale(low: 0, high: 1, isSigned: false, unit: "probability"),
      layout: .thumbnails(columns: 6), panels)
  }()

  static let bars: Picture = {
    let components =
      ["embed", "pos_embed"] + (0..<6).flatMap { ["\($0)_attn_out", "\($0)_mlp_out"] } + ["bias"]
    func series(_ model: String, _ seed: Int) -> Picture.Series {
      let values = noise(components.count, seed: seed).map { $0 * 2 }
      return Picture.Series(
        model, model: model, values,
        interval: Picture.Interval(
          low: values.map { $0 - 0.3 }, high: values.map { $0 + 0.3 }, meaning: "95 % interval"))
    }
    return picture(
      "bars", "Direct logit attribution in stream order",
      [
        Picture.Panel(
          "",
          .bars(
            Picture.Bars(
              x: Picture.Axis("component", components), y: "contribution (logit)",
              series: [series("mini", 1), series("mini-lnfree", 2)])))
      ])
  }()

  static let curves: Picture = {
    let streams = (0..<6).flatMap { ["\($0)_pre", "\($0)_mid"] } + ["final_post"]
    func series(_ name: String, _ seed: Int, log: Bool) -> Picture.Series {
      var values = noise(13, seed: seed).enumerated().map { index, value in
        log ? Double.pow10(index, value) : Double(index) * 0.4 + value
      }
      if seed == 2 { values[5] = .nan }
      return Picture.Series(
        name, values,
        interval: Picture.Interval(
          low: values.map { $0 * 0.8 }, high: values.map { $0 * 1.2 }, meaning: "quartiles"))
    }
    func panel(_ title: String, log: Bool) -> Picture.Panel {
      Picture.Panel(
        title,
        .curves(
          Picture.Curves(
            x: Picture.Axis("stream", streams), y: log ? "norm" : "logit difference (logit)",
            series: [
              series("mini", 1, log: log), series("mini-vanilla", 2, log: log),
              series("mini-lnfree", 3, log: log),
            ], isLogarithmic: log)))
    }
    let wide = Picture.Curves(
      x: Picture.Axis("λ", (0...40).map { "\($0)" }), positions: (0...40).map { Double($0) / 40 },
      y: "loss (nats)",
      series: [Picture.Series("mini", (0...40).map { 3 + Double($0 * $0) / 800 })])
    return picture(
      "curves", "Curves over the stream",
      [
        panel("linear", log: false), panel("logarithmic", log: true),
        Picture.Panel("over numbers", .curves(wide)),
      ])
  }()

  static let points: Picture = {
    let (a, b) = (noise(60, seed: 4), noise(60, seed: 5))
    let scatter = Picture.Points(
      x: "activation (logit)", y: "attribution (logit)",
      clouds: [
        Picture.Points.Cloud(
          "attn_out", x: a, y: zip(a, b).map { $0 + 0.1 * $1 },
          labels: a.indices.map { "layer \($0 / 10), position \($0 % 10)" }),
        Picture.Points.Cloud("mlp_out", x: b, y: zip(b, a).map { 0.7 * $0 + 0.2 * $1 }),
      ], hasIdentityLine: true)
    let plane = Picture.Points(
      x: "along ones", y: "across",
      clouds: [
        Picture.Points.Cloud("attn_out", x: a.map { $0 * 0.4 }, y: b.map { 8 + $0 })
      ])
    let strips = Picture.Points(
      x: "norm", y: "angle (degrees)",
      strips: ["L0.ln1", "L0.ln2", "L1.ln1", "L1.ln2", "ln_final"],
      clouds: [
        Picture.Points.Cloud(
          "mlp_out", x: a.enumerated().map { Double($0 % 5) + 0.3 * $1 }, y: b + [])
      ])
    return picture(
      "points", "Scatter, half-plane and strips",
      [
        Picture.Panel("agreement", .points(scatter)), Picture.Panel("half-plane", .points(plane)),
        Picture.Panel("strips", .points(strips)),
      ])
  }()

  static let table = picture(
    "table", "Agreement with activation patching",
    [
      Picture.Panel(
        "",
        .table(
          Picture.Table(
            columns: ["method", "site", "pearson", "spearman", "sign_flips", "what it means"],
            rows: (0..<43).map { row in
              [
                row % 2 == 0 ? "attribution" : "relevance", "head_z", "-0.9\(row)", "0.8",
                row == 3 ? "–" : "12",
                row == 0 ? String(repeating: "a long remark ", count: 12) : "",
              ]
            })))
    ])

  static let note = picture(
    "note", "Nothing to draw", scale: signed(0),
    [
      Picture.Panel("head_z", .note("no value: all 60 cells are NaN")),
      Picture.Panel(
        "attn_out", .curves(Picture.Curves(x: Picture.Axis("layer", []), y: "", series: []))),
    ])

  /// One of each kind of drawing.
  static let kinds = [facets, lens, thumbnails, bars, curves, points, table, note]

  static let nasty = [
    "</text><script>alert(1)</script>", "&amp;", "a\nb", "\u{0}\u{1}\u{7F}\u{85}", "\u{202E}abc",
    "שלום", "مرحبا", "👩‍👩‍👧‍👦🏳️‍🌈", String(repeating: "x", count: 500), "\u{FFFE}", "]]>", "\"'",
    "e" + String(repeating: "\u{301}", count: 300),
  ]

  /// Every text that a picture has is one that a file may be broken with.
  static let hostile: Picture = {
    let axis = Picture.Axis(nasty[0], nasty)
    let values = noise(nasty.count * nasty.count)
    return Picture(
      name: "hostile", group: "g", title: nasty.joined(separator: " "), facts: nasty,
      views: [
        Picture.View(
          choice: nasty[0], prompt: nasty.joined(),
          panels: [
            Picture.Panel(
              nasty[8], model: nasty[1], .cells(Picture.Cells(x: axis, y: axis, values: values))),
            Picture.Panel(
              nasty[0],
              .cells(
                Picture.Cells(
                  x: axis, y: axis, values: values,
                  texts: values.indices.map { nasty[$0 % nasty.count] }))),
            Picture.Panel(
              nasty[2],
              .bars(
                Picture.Bars(
                  x: axis, y: nasty[8], series: nasty.map { Picture.Series($0, noise(nasty.count)) }
                ))),
            Picture.Panel(
              nasty[3],
              .points(
                Picture.Points(
                  x: nasty[5], y: nasty[6], strips: nasty,
                  clouds: nasty.map {
                    Picture.Points.Cloud(
                      $0, x: noise(nasty.count), y: noise(nasty.count), labels: nasty)
                  }))),
            Picture.Panel(
              nasty[4], .table(Picture.Table(columns: nasty, rows: [nasty, [], [nasty[0]]]))),
            Picture.Panel(nasty[7], .note(nasty.joined(separator: "\n"))),
          ], scale: signed(1, unit: nasty[0]))
      ])
  }()
}

extension Double {
  /// A number that grows by a factor from place to place.
  fileprivate static func pow10(_ index: Int, _ value: Double) -> Double {
    (0..<index).reduce(0.01 * (1.5 + value)) { result, _ in result * 2.2 }
  }
}
