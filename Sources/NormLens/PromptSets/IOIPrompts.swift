public import HookedGPT2

/// Indirect object identification (Wang et al., arXiv:2211.00593): "When Mary and John went to the
/// store, John gave a drink to" is followed by the name that was not repeated, the indirect object
/// (IO); the repeated name is the subject (S), mentioned as S1 and S2.
extension PromptSet {
  /// Which name comes first.
  public enum IOIOrder: String, Sendable, CaseIterable {
    /// The indirect object: "Mary and John went …, John gave …".
    case abba
    /// The subject: "John and Mary went …, John gave …".
    case baba
  }

  /// What the corrupted prompt changes.
  public enum IOICorruption: String, Sendable, CaseIterable {
    /// S2 becomes the indirect object, which turns the answer round.
    case s2IO = "s2-io"
    /// S2 becomes a third name.
    case s2Random = "s2-random"
    /// IO, S1 and S2 become three other names.
    case abc
    /// IO and S1 change places; the answer stays.
    case ioS1 = "io-s1"
  }

  /// The number of templates; they are numbered from 1.
  public static let ioiTemplateCount = ioiTemplates.count

  /// Prompts of indirect object identification.
  ///
  /// Labels: `IO`, `S1`, `S1+1` (the token behind S1), `S2`, `END`.
  ///
  /// - Parameters:
  ///   - model: the model whose tokenizer must have every name, place and object as one token;
  ///     those that it has not are left out.
  ///   - count: how many prompts, all different.
  ///   - seed: what determines the prompts.
  ///   - templates: the numbers of the templates, taken in turn.
  ///   - orders: which name comes first.
  ///   - corruption: what the corrupted prompt changes.
  ///   - inGroups: whether prompts come in fours, both orders with either name as subject, as in
  ///     the study of LayerNorm removal (arXiv:2507.02559). `orders` has no say then.
  /// - Throws: `ModelSourceError.prompts` where the tokenizer has too few of the words, or where
  ///   there are fewer different prompts; `ModelError.noTokenizer`.
  /// - Precondition: `count` is positive, and a multiple of four in groups; the templates exist;
  ///   templates and orders are not empty and none is there twice.
  public static func ioi(
    model: GPT2, count: Int, seed: UInt64 = 0, templates: [Int] = Array(1...ioiTemplateCount),
    orders: [IOIOrder] = IOIOrder.allCases, corruption: IOICorruption = .s2IO,
    inGroups: Bool = false
  ) throws -> PromptSet {
    precondition(count > 0 && !(inGroups && count % 4 != 0), "ioi: count \(count)")
    precondition(
      !templates.isEmpty && templates.allSatisfy((1...ioiTemplateCount).contains)
        && Set(templates).count == templates.count,
      "ioi: templates \(templates) of 1...\(ioiTemplateCount)")
    precondition(
      !orders.isEmpty && Set(orders).count == orders.count, "ioi: orders \(orders)")
    var words = try PromptWords("ioi", model)
    let others = [.s2IO: 0, .s2Random: 1, .abc: 3, .ioS1: 0][corruption, default: 0]
    let names = try words.single(ioiNames, "names", atLeast: 2 + others)
    let places = try words.single(ioiPlaces, "places", atLeast: 1)
    let objects = try words.single(ioiObjects, "objects", atLeast: 1)

    var random = SeededGenerator(seed: seed)
    let roles = names.indices.flatMap { io in
      names.indices.filter { inGroups ? io < $0 : io != $0 }.map { (io: io, s: $0) }
    }
    let frames: [(template: String, order: IOIOrder)] = templates.flatMap { number in
      (inGroups ? [.abba] : orders).map { (ioiTemplates[number - 1], $0) }
    }
    let sizes = frames.map { frame in
      roles.count * (frame.template.contains("[PLACE]") ? places.count : 1)
        * (frame.template.contains("[OBJECT]") ? objects.count : 1)
    }
    let draws = try words.draw(inGroups ? count / 4 : count, from: sizes, using: &random)
    var prompts: [PromptText] = []
    for (frame, index) in draws {
      let (template, order) = frames[frame]
      let (io, s) = roles[index % roles.count]
      let scene = index / roles.count
      // A template without a place leaves the whole of the scene to the object.
      let hasPlace = template.contains("[PLACE]")
      let place = hasPlace ? places[scene % places.count] : ""
      let object = objects[hasPlace ? scene / places.count : scene]
      var unused = names.indices.filter { $0 != io && $0 != s }
      let third = (0..<others).map { _ in
        names[unused.remove(at: Int.random(in: unused.indices, using: &random))]
      }
      for order in inGroups ? IOIOrder.allCases : [order] {
        for (io, s) in inGroups ? [(io, s), (s, io)] : [(io, s)] {
          let (io, s) = (names[io], names[s])
          func text(_ order: IOIOrder, _ names: [String]) -> LabelledText {
            ioiText(template, order, names, place, object)
          }
          let clean = text(order, [io, s, s])
          let corrupted =
            switch corruption {
            case .s2IO: text(order, [io, s, io])
            case .s2Random: text(order, [io, s, third[0]])
            case .abc: text(order, third)
            case .ioS1: text(order == .abba ? .baba : .abba, [io, s, s])
            }
          prompts.append(
            PromptText(
              clean: clean.text, corrupted: corrupted.text, answer: [" " + io], wrong: [" " + s],
              positions: try clean.positions(
                ["IO", "S1", "S1+1", "S2", "END"], words.tokenizer, kind: "ioi")))
        }
      }
    }
    return try words.set(
      prompts,
      [
        "indirect object identification",
        "templates " + templates.map(String.init).joined(separator: ","),
        inGroups
          ? "groups of both orders and both subjects"
          : "order "
            + orders.map(\.rawValue).joined(separator: ","),
        "corruption \(corruption.rawValue)", "seed \(seed)",
      ], source: "templates and names of Wang et al., arXiv:2211.00593", model)
  }

  /// A template with IO, S1 and S2 filled in.
  private static func ioiText(
    _ template: String, _ order: IOIOrder, _ names: [String], _ place: String, _ object: String
  ) -> LabelledText {
    // The templates are written in BABA order.
    let template =
      order == .baba
      ? template : template.replacing("[B] and [A]", with: "[A] and [B]", maxReplacements: 1)
    return LabelledText(template, labels: ["A": ["IO"], "B": ["S1", "S2"]]) { slot, occurrence in
      switch slot {
      case "A": names[0]
      case "B": names[1 + occurrence]
      case "PLACE": place
      default: object
      }
    }
  }

  private static let ioiTemplates = [
    "Then, [B] and [A] went to the [PLACE]. [B] gave a [OBJECT] to",
    "Then, [B] and [A] had a lot of fun at the [PLACE]. [B] gave a [OBJECT] to",
    "Then, [B] and [A] were working at the [PLACE]. [B] decided to give a [OBJECT] to",
    "Then, [B] and [A] were thinking about going to the [PLACE]. [B] wanted to give a [OBJECT] to",
    "Then, [B] and [A] had a long argument, and afterwards [B] said to",
    "After [B] and [A] went to the [PLACE], [B] gave a [OBJECT] to",
    "When [B] and [A] got a [OBJECT] at the [PLACE], [B] decided to give it to",
    "When [B] and [A] got a [OBJECT] at the [PLACE], [B] decided to give the [OBJECT] to",
    "While [B] and [A] were working at the [PLACE], [B] gave a [OBJECT] to",
    "While [B] and [A] were commuting to the [PLACE], [B] gave a [OBJECT] to",
    "After the lunch, [B] and [A] went to the [PLACE]. [B] gave a [OBJECT] to",
    "Afterwards, [B] and [A] went to the [PLACE]. [B] gave a [OBJECT] to",
    "Then, [B] and [A] had a long argument. Afterwards [B] said to",
    "The [PLACE] [B] and [A] went to had a [OBJECT]. [B] gave it to",
    "Friends [B] and [A] found a [OBJECT] at the [PLACE]. [B] gave it to",
  ]

  private static let ioiPlaces = "store garden restaurant school hospital office house station"
  private static let ioiObjects = "ring kiss bone basketball computer necklace drink snack"
  private static let ioiNames = """
    Michael Christopher Jessica Matthew Ashley Jennifer Joshua Amanda Daniel David James Robert John \
    Joseph Andrew Ryan Brandon Jason Justin Sarah William Jonathan Stephanie Brian Nicole Nicholas \
    Anthony Heather Eric Elizabeth Adam Megan Melissa Kevin Steven Thomas Timothy Christina Kyle \
    Rachel Laura Lauren Amber Brittany Danielle Richard Kimberly Jeffrey Amy Crystal Michelle Tiffany \
    Jeremy Benjamin Mark Emily Aaron Charles Rebecca Jacob Stephen Patrick Sean Erin Jamie Kelly \
    Samantha Nathan Sara Dustin Paul Angela Tyler Scott Katherine Andrea Gregory Erica Mary Travis \
    Lisa Kenneth Bryan Lindsey Kristen Jose Alexander Jesse Katie Lindsay Shannon Vanessa Courtney \
    Christine Alicia Cody Allison Bradley Samuel
    """
}
