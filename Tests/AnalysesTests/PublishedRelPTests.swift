import Foundation
import NormLens
import TestSupport
import Testing

/// The arrays that RelP's authors published with their demo on GPT-2 small: eight prompts of the
/// indirect object task, sites resid_pre, attn_out and mlp_out over layers and positions, normalised.
/// (FarnoushRJ/RelP, lrp_patching.ipynb and attribution_patching.ipynb.)
private struct PublishedArrays: Decodable {
  /// `[site][layer][pos]`.
  let activation_patching: [[[Double]]]
  let attribution_patching: [[[Double]]]
  let relp_LN_only: [[[Double]]]
  let relp_LN_Identity: [[[Double]]]
  let clean_logit_diff: Double
  let corrupted_logit_diff: Double
  let tokens: [String]

  static let sites = ["resid_pre", "attn_out", "mlp_out"]
  /// `NORMLENS_RELP_GOLDEN`, or where the file lies beside the package.
  static let path =
    ProcessInfo.processInfo.environment["NORMLENS_RELP_GOLDEN"]
    ?? "\(Fixtures.repository)/../shared/golden/relp_gpt2small_golden.json"
  static let isThere = FileManager.default.fileExists(atPath: path)

  static func read() throws -> PublishedArrays {
    try JSONDecoder().decode(
      PublishedArrays.self, from: Data(contentsOf: URL(fileURLWithPath: path)))
  }

  /// The arrays as one method's group of a result.
  func group(_ method: String, _ arrays: [[[Double]]]) -> ResultGroup {
    let shape = [arrays[0].count, arrays[0][0].count]
    return ResultGroup(
      path: "patch/\(method)",
      dimensions: [
        Dimension("prompt", count: 1), Dimension("layer", count: shape[0]),
        Dimension("pos", count: shape[1]),
      ],
      variables: zip(Self.sites, arrays).flatMap { site, array in
        let values = ResultVariable.Values.float64(array.flatMap(\.self))
        return [
          ResultVariable(
            site, ["prompt", "layer", "pos"], values, longName: site, units: "logit"),
          ResultVariable(
            "\(site)_normalized", ["layer", "pos"], values, longName: site, units: "1"),
        ]
      })
  }
}

@Suite struct PublishedRelPTests {
  /// A real GPT-2 small: anything that can be opened.
  static let gpt2Small = ProcessInfo.processInfo.environment["NORMLENS_GPT2_SMALL"]

  /// What the arrays say of the methods, recomputed by the analysis: correlation, rank correlation and
  /// summed error of each site.
  @Test(
    .enabled(
      if: PublishedArrays.isThere,
      "the authors' arrays are not in the repository: NORMLENS_RELP_GOLDEN names the file"))
  func agreementOfThePublishedArrays() throws {
    let arrays = try PublishedArrays.read()
    #expect(arrays.tokens.count == 15 && arrays.tokens[10] == " John")
    #expect(arrays.clean_logit_diff == 3.5519 && arrays.corrupted_logit_diff == -3.5519)
    let published = [
      (
        arrays.attribution_patching, [0.735, 0.982, 0.436], [0.913, 0.856, 0.778],
        [7.08, 0.48, 0.97]
      ),
      (
        arrays.relp_LN_only, [0.873, 0.981, 0.941], [0.911, 0.832, 0.767], [4.93, 0.46, 0.73]
      ),
      (
        arrays.relp_LN_Identity, [0.962, 0.961, 0.989], [0.778, 0.664, 0.646], [3.46, 0.66, 0.51]
      ),
    ]
    for (estimates, pearson, spearman, error) in published {
      for array in [arrays.activation_patching, estimates] {
        #expect(array.map(\.count) == [12, 12, 12])
        #expect(array.joined().allSatisfy { $0.count == 15 })
      }
      let result = ResultSet(
        title: "published",
        groups: [
          arrays.group("activation", arrays.activation_patching),
          arrays.group("relevance", estimates),
        ])
      let agreement = try PatchAgreement.group(of: result)
      #expect(agreement[dimension: "site"]?.coordinates == .labels(PublishedArrays.sites))
      for (name, expected, allowed) in [
        ("pearson", pearson, 6e-4), ("spearman", spearman, 6e-4), ("abs_error", error, 6e-3),
      ] {
        let found = try agreement.doubles(name)
        print("published arrays: \(name) \(found), published \(expected)")
        for (a, b) in zip(found, expected) { #expect(abs(a - b) < allowed) }
        #expect(found.count == 3)
      }
      #expect(try agreement.doubles("cells") == [180, 180, 180])
    }
  }

  /// The demo itself, where a real GPT-2 small is at hand.
  @Test(
    .enabled(
      if: gpt2Small != nil && PublishedArrays.isThere,
      """
      NORMLENS_GPT2_SMALL names no GPT-2 small, or NORMLENS_RELP_GOLDEN not the authors' arrays
      """))
  func demo() throws {
    let model = try GPT2.load(try #require(Self.gpt2Small))
    let arrays = try PublishedArrays.read()
    #expect(model.config.nLayers == 12 && model.config.dModel == 768)
    let texts = [
      ("When John and Mary went to the shops,", " John", " Mary", "gave the bag to"),
      ("When Tom and James went to the park,", " James", " Tom", "gave the ball to"),
      ("When Dan and Sid went to the shops,", " Sid", " Dan", "gave an apple to"),
      ("After Martin and Amy went to the park,", " Amy", " Martin", "gave a drink to"),
    ]
    let tokenizer = try model.tokenizer
    let pairs = try texts.flatMap { beginning, subject, other, ending in
      try [(subject, other), (other, subject)].map { subject, other in
        PromptPair(
          clean: try model.tokens("\(beginning)\(subject) \(ending)"),
          corrupted: try model.tokens("\(beginning)\(other) \(ending)"),
          answer: try tokenizer.singleToken(other), wrong: try tokenizer.singleToken(subject))
      }
    }
    #expect(pairs.map(\.length) == Array(repeating: 15, count: 8))
    #expect(pairs[0].answer == [5335] && pairs[0].wrong == [1757])
    let experiment = ActivationPatching(of: PatchSite.blocks)
    let exact = try SweepValues(experiment.run(model, pairs))
    let metric = exact.cleanMetric.reduce(0, +) / 8
    #expect(abs(metric - arrays.clean_logit_diff) < 1e-3, "\(metric)")
    // Their coefficient of the identity rule divides by x ± 1e-6 instead of the closed form.
    for (title, method, expected, allowed) in [
      ("activation", nil, arrays.activation_patching, 1e-3),
      ("attribution", .attribution, arrays.attribution_patching, 1e-3),
      ("relevance, ln", .relevance(.init(ln: true)), arrays.relp_LN_only, 1e-3),
      ("relevance, ln and identity", .relevance(.relp), arrays.relp_LN_Identity, 2e-3),
    ] as [(String, AttributionPatching.Method?, [[[Double]]], Double)] {
      let found =
        try method.map {
          try SweepValues(
            AttributionPatching(of: experiment, by: [$0]).run(model, pairs), method: $0.group)
        } ?? exact
      for (site, array) in zip(PublishedArrays.sites, expected) {
        let values = try found["\(site)_normalized"]
        let difference = zip(values, array.flatMap(\.self)).reduce(0) { max($0, abs($1.0 - $1.1)) }
        print("\(title), \(site): differs from the published array by \(difference)")
        #expect(values.count == 180 && difference < allowed)
      }
    }
  }
}
