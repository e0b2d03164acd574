import NormLens
import TestSupport
import Testing

/// The names of activations: TransformerLens' table, its shorthand, and names that do not exist.
@Suite struct HookNameTests {
  /// Every hook of GPT-2 in the order in which it fires and its shape, written out from
  /// TransformerLens: p positions, h heads, d = d_model, k = d_head, m = d_mlp, V = d_vocab.
  static let table: [(name: String, shape: String, optional: Bool)] = [
    ("hook_embed", "p d", false),
    ("hook_pos_embed", "p d", false),
    ("blocks.0.hook_resid_pre", "p d", false),
    ("blocks.0.hook_attn_in", "p h d", true),
    ("blocks.0.hook_q_input", "p h d", true),
    ("blocks.0.hook_k_input", "p h d", true),
    ("blocks.0.hook_v_input", "p h d", true),
    ("blocks.0.ln1.hook_scale", "p 1", false),
    ("blocks.0.ln1.hook_normalized", "p d", false),
    ("blocks.0.attn.hook_q", "p h k", false),
    ("blocks.0.attn.hook_k", "p h k", false),
    ("blocks.0.attn.hook_v", "p h k", false),
    ("blocks.0.attn.hook_attn_scores", "h p p", false),
    ("blocks.0.attn.hook_pattern", "h p p", false),
    ("blocks.0.attn.hook_z", "p h k", false),
    ("blocks.0.attn.hook_result", "p h d", true),
    ("blocks.0.hook_attn_out", "p d", false),
    ("blocks.0.hook_resid_mid", "p d", false),
    ("blocks.0.hook_mlp_in", "p d", true),
    ("blocks.0.ln2.hook_scale", "p 1", false),
    ("blocks.0.ln2.hook_normalized", "p d", false),
    ("blocks.0.mlp.hook_pre", "p m", false),
    ("blocks.0.mlp.hook_post", "p m", false),
    ("blocks.0.hook_mlp_out", "p d", false),
    ("blocks.0.hook_resid_post", "p d", false),
    ("ln_final.hook_scale", "p 1", false),
    ("ln_final.hook_normalized", "p d", false),
    ("unembed.hook_in", "p d", false),
    ("unembed.hook_out", "p V", false),
  ]

  @Test func namesAndShapesAreTransformerLens() throws {
    // Extents that are all different, so that no axis can stand for another.
    let config = try GPT2Config(
      nLayers: 1, dModel: 12, nHeads: 3, dMLP: 50, nCtx: 9, dVocab: 31)
    let extents = ["p": 5, "h": 3, "d": 12, "k": 4, "m": 50, "V": 31, "1": 1]
    let all = HookName.all(nLayers: 1, optional: true)
    #expect(all.map(\.rawValue) == Self.table.map(\.name))
    #expect(
      HookName.all(nLayers: 1).map(\.rawValue)
        == Self.table.filter { !$0.optional }.map(\.name))
    for (name, row) in zip(all, Self.table) {
      let expected = row.shape.split(separator: " ").compactMap { extents[String($0)] }
      #expect(name.site.shape(config, positions: 5) == expected, "\(name)")
      #expect(name.site.axes.count == expected.count, "\(name)")
      #expect(name.site.isOptional == row.optional, "\(name)")
    }
  }

  @Test func aModelHasTheHooksOfEveryBlock() {
    #expect(HookName.all(nLayers: 12).count == 6 + 12 * 17)  // 210, TransformerLens' count
    #expect(HookName.all(nLayers: 12, optional: true).count == 6 + 12 * 23)
    #expect(HookName.all(nLayers: 0).count == 6)
    #expect(Set(HookName.all(nLayers: 7, optional: true)).count == 6 + 7 * 23)
  }

  @Test func everyNameParsesToItself() throws {
    for name in HookName.all(nLayers: 12, optional: true) {
      #expect(try HookName(parsing: name.rawValue, nLayers: 12) == name)
      #expect(name.description == name.rawValue)
    }
  }

  @Test func everySiteHasAShorthand() throws {
    for site in Site.allCases {
      if site.isPerLayer {
        for layer in [0, 3, 11] {
          let name = HookName(site, layer: layer)
          #expect(try HookName(parsing: "\(site.rawValue)\(layer)", nLayers: 12) == name)
          #expect(try HookName(parsing: "\(site.rawValue)\(layer - 12)", nLayers: 12) == name)
        }
      } else {
        #expect(try HookName(parsing: site.rawValue, nLayers: 12) == HookName(site))
      }
    }
  }

  @Test(arguments: [
    ("k6", "blocks.6.attn.hook_k"), ("q0", "blocks.0.attn.hook_q"),
    ("v11", "blocks.11.attn.hook_v"),
    ("z3", "blocks.3.attn.hook_z"), ("resid_post-1", "blocks.11.hook_resid_post"),
    ("resid_pre0", "blocks.0.hook_resid_pre"), ("pattern3", "blocks.3.attn.hook_pattern"),
    ("attn3", "blocks.3.attn.hook_pattern"), ("attn_logits4", "blocks.4.attn.hook_attn_scores"),
    ("attn_scores4", "blocks.4.attn.hook_attn_scores"), ("attn_out5", "blocks.5.hook_attn_out"),
    ("key6", "blocks.6.attn.hook_k"), ("query6", "blocks.6.attn.hook_q"),
    ("value6", "blocks.6.attn.hook_v"), ("scale4ln1", "blocks.4.ln1.hook_scale"),
    ("normalized2ln2", "blocks.2.ln2.hook_normalized"),
    ("normalized-1ln2", "blocks.11.ln2.hook_normalized"),
    ("scale10ln2", "blocks.10.ln2.hook_scale"), ("pre2", "blocks.2.mlp.hook_pre"),
    ("post2", "blocks.2.mlp.hook_post"), ("mlp_pre2", "blocks.2.mlp.hook_pre"),
    ("mlp_post2", "blocks.2.mlp.hook_post"), ("mlp_mid2", "blocks.2.mlp.hook_post"),
    ("mlp_in2", "blocks.2.hook_mlp_in"), ("result7", "blocks.7.attn.hook_result"),
    ("q_input1", "blocks.1.hook_q_input"), ("attn_in1", "blocks.1.hook_attn_in"),
    ("embed", "hook_embed"), ("pos_embed", "hook_pos_embed"),
  ])
  func shorthand(_ text: String, _ full: String) throws {
    #expect(try HookName(parsing: text, nLayers: 12).rawValue == full)
  }

  @Test(arguments: [
    ("blocks.0.attn.hook_patern", "blocks.0.attn.hook_pattern"),
    ("blocks.3.hook_resid_prey", "blocks.3.hook_resid_pre"),
    ("blocks.1.attn.hook_zz", "blocks.1.attn.hook_z"),
    ("hook_embeds", "hook_embed"), ("ln_final.hook_scales", "ln_final.hook_scale"),
    ("patern3", "pattern3"), ("resid_psot1", "resid_post1"),
  ])
  func unknownNamesSuggestTheNearest(_ text: String, _ suggestion: String) {
    #expect(throws: ModelError.unknownHook(name: text, suggestion: suggestion)) {
      try HookName(parsing: text, nLayers: 4)
    }
  }

  @Test(arguments: [
    "", "k", "q+1", "k1.5", "blocks.0", "blocks..hook_resid_pre", "blocks.x.hook_resid_pre",
    "blocks.0.hook_pattern", "resid_pre", "scale4", "scale4ln3", "normalizedln1", "embed0",
    "blocks.1.attn.hook_pattern.x", "completely different", "é4", "k\u{0}3",
  ])
  func namesThatDoNotExist(_ text: String) {
    #expect {
      try HookName(parsing: text, nLayers: 4)
    } throws: { error in
      guard case .unknownHook(let name, _)? = error as? ModelError else { return false }
      return name == text && !"\(error)".contains("\n")
    }
  }

  @Test func layersAreChecked() {
    for text in ["k4", "k-5", "blocks.4.attn.hook_k", "scale4ln1", "k99999999"] {
      #expect {
        try HookName(parsing: text, nLayers: 4)
      } throws: { error in
        guard case .layerOutOfRange(let hook, _, let layers)? = error as? ModelError else {
          return false
        }
        return hook == text && layers == 4
      }
    }
    // A number that is no Int is no layer.
    #expect(throws: ModelError.self) {
      try HookName(parsing: "k99999999999999999999999", nLayers: 4)
    }
  }

  @Test func filtersMeanNames() throws {
    let config = try GPT2Config(nLayers: 3, dModel: 12, nHeads: 3, nCtx: 9, dVocab: 31)
    func names(_ filter: HookFilter) throws -> [String] { try filter.names(config).map(\.rawValue) }
    #expect(try names(.residPost(-1)) == ["blocks.2.hook_resid_post"])
    #expect(
      try names(.pattern(.all)) == (0..<3).map { "blocks.\($0).attn.hook_pattern" })
    #expect(
      try names(.q(.layers([2, 0, -2])))
        == [2, 0, 1].map { "blocks.\($0).attn.hook_q" })
    #expect(try names(.z(layer: 1, head: 2)) == ["blocks.1.attn.hook_z"])
    #expect(try names(.embed) == ["hook_embed"])
    #expect(
      try names(HookFilter(HookName(.mlpPre, layer: 1))) == ["blocks.1.mlp.hook_pre"])
  }

  @Test func aLayerNamedTwiceIsMeantOnce() throws {
    let config = try GPT2Config(nLayers: 3, dModel: 12, nHeads: 3, nCtx: 9, dVocab: 31)
    #expect(try HookFilter.q(.layers([2, -1, 2])).names(config) == [HookName(.q, layer: 2)])
  }
}
