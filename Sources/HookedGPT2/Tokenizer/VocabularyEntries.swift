/// The entries of a vocabulary as its file lists them: printable texts and their ids, in any order.
///
/// The texts lie one behind the other, so that a vocabulary takes little more memory than its text.
public struct VocabularyEntries: Sendable {
  private var bytes: [UInt8] = []
  private var ends: [Int] = []
  private var ids: [Int] = []

  /// No entries.
  public init() {}

  /// The number of entries.
  public var count: Int { ids.count }

  /// The bytes of all the texts together.
  public var textCount: Int { bytes.count }

  /// Adds an entry.
  public mutating func append(_ token: String, id: Int) {
    bytes.append(contentsOf: token.utf8)
    ends.append(bytes.count)
    ids.append(id)
  }

  /// The text of the entry at `place` in UTF-8.
  public func text(at place: Int) -> ArraySlice<UInt8> {
    bytes[(place == 0 ? 0 : ends[place - 1])..<ends[place]]
  }

  /// The text of the first entry with this id.
  public func token(of id: Int) -> String? {
    ids.firstIndex(of: id).map { String(decoding: text(at: $0), as: UTF8.self) }
  }

  /// The ids of those of some texts that are entries, compared scalar by scalar.
  public func ids(of tokens: some Sequence<String>) -> [String: Int] {
    var wanted: [ArraySlice<UInt8>: String] = [:]
    for token in tokens { wanted[ArraySlice(Array(token.utf8))] = token }
    let lengths = Set(wanted.keys.map(\.count))
    var found: [String: Int] = [:]
    for place in ids.indices {
      let text = text(at: place)
      if lengths.contains(text.count), let token = wanted[text] { found[token] = ids[place] }
    }
    return found
  }

  /// The place of the entry of each id.
  ///
  /// - Throws: ``TokenizerError`` where the ids are not each of `0..<count` once.
  public func placesByID() throws(TokenizerError) -> [Int32] {
    var places = [Int32](repeating: -1, count: count)
    func token(_ place: Int) -> String { String(decoding: text(at: place), as: UTF8.self) }
    for (place, id) in ids.enumerated() {
      guard places.indices.contains(id) else {
        throw .idsNotContiguous(token: token(place), id: id, count: count)
      }
      guard places[id] < 0 else {
        throw .duplicateID(id: id, first: token(Int(places[id])), second: token(place))
      }
      places[id] = Int32(truncatingIfNeeded: place)
    }
    return places
  }
}
