import OrderedCollections

/// The checked header of a safetensors file.
struct SafetensorsHeader {
  private(set) var entries: OrderedDictionary<String, SafetensorsFile.Entry> = [:]
  private(set) var metadata: OrderedDictionary<String, String> = [:]

  /// A tensor as the header's text describes it, unchecked.
  ///
  /// The format's own limit of the header's length would let a text of 100 MB describe ten million
  /// tensors; each takes far more memory than text, so their number is limited too.
  private struct Raw {
    var dtype: String?
    var shape: [Int]?
    var offsets: [Int]?
  }

  init(file: MappedFile) throws(HDF5Error) {
    let path = file.path
    func damaged(_ object: String, _ expected: String, _ found: String) -> HDF5Error {
      .damaged(path: path, object: object, expected: expected, found: found)
    }
    guard file.bytes.count >= 8 else {
      throw damaged("header", "at least 8 bytes", "\(file.bytes.count)")
    }
    let length = UInt64(littleEndian: file.bytes.loadUnaligned(as: UInt64.self))
    let room = min(file.bytes.count - 8, SafetensorsFile.headerLimit)
    guard length <= UInt64(room) else {
      throw damaged("header length", "at most \(room) bytes", "\(length)")
    }
    let dataStart = 8 + Int(length)
    let text = UnsafeRawBufferPointer(rebasing: file.bytes[8..<dataStart])
    let raw: OrderedDictionary<String, Raw>
    do throws(JSONError) {
      raw = try SafetensorsHeader.parse(text, metadata: &metadata)
    } catch {
      throw damaged("header, \(error.place)", error.expected, error.found)
    }
    for (name, raw) in raw {
      entries[name] = try SafetensorsHeader.entry(raw, dataStart: dataStart) {
        damaged("tensor " + OneLine.quoted(name), $0, $1)
      }
    }
    // Sorted by place, the tensors must follow each other from the data's first byte to its last.
    var end = dataStart
    for (name, entry) in entries.sorted(by: {
      ($0.value.bytes.lowerBound, $0.value.bytes.upperBound)
        < ($1.value.bytes.lowerBound, $1.value.bytes.upperBound)
    }) {
      guard entry.bytes.lowerBound == end else {
        throw damaged(
          "tensor " + OneLine.quoted(name),
          "data from byte \(end - dataStart), where the one before ends",
          "data_offsets from \(entry.bytes.lowerBound - dataStart)")
      }
      end = entry.bytes.upperBound
    }
    guard end == file.bytes.count else {
      throw damaged(
        "data", "\(end - dataStart) bytes, as the header says",
        "\(file.bytes.count - dataStart)")
    }
  }

  private static func parse(
    _ text: UnsafeRawBufferPointer, metadata: inout OrderedDictionary<String, String>
  ) throws(JSONError) -> OrderedDictionary<String, Raw> {
    var tensors: OrderedDictionary<String, Raw> = [:]
    var texts: OrderedDictionary<String, String> = [:]
    let bytes = text.bindMemory(to: UInt8.self)
    try JSONScanner.scan(bytes.span, limit: SafetensorsFile.headerLimit) {
      (scanner: inout JSONScanner) throws(JSONError) in
      try scanner.object { (scanner: inout JSONScanner, name: String) throws(JSONError) in
        if name == "__metadata__" {
          try scanner.object { (scanner: inout JSONScanner, key: String) throws(JSONError) in
            texts[key] = try scanner.string()
            guard texts.count <= HDF5Limits.objects else {
              throw scanner.tooMany("texts in __metadata__", limit: HDF5Limits.objects)
            }
          }
        } else {
          tensors[name] = try tensor(&scanner)
          guard tensors.count <= HDF5Limits.objects else {
            throw scanner.tooMany("tensors", limit: HDF5Limits.objects)
          }
        }
      }
    }
    metadata = texts
    return tensors
  }

  private static func tensor(_ scanner: inout JSONScanner) throws(JSONError) -> Raw {
    var raw = Raw()
    try scanner.object { (scanner: inout JSONScanner, key: String) throws(JSONError) in
      switch key {
      case "dtype": raw.dtype = try scanner.string()
      case "shape": raw.shape = try integers(&scanner)
      case "data_offsets": raw.offsets = try integers(&scanner)
      default: try scanner.skip()
      }
    }
    return raw
  }

  private static func integers(_ scanner: inout JSONScanner) throws(JSONError) -> [Int] {
    var values: [Int] = []
    try scanner.array { (scanner: inout JSONScanner) throws(JSONError) in
      values.append(try scanner.integer())
      guard values.count <= HDF5Limits.rank else {
        throw scanner.tooMany("numbers in a shape or data_offsets", limit: HDF5Limits.rank)
      }
    }
    return values
  }

  private static func entry(
    _ raw: Raw, dataStart: Int, _ damaged: (String, String) -> HDF5Error
  ) throws(HDF5Error) -> SafetensorsFile.Entry {
    guard let dtype = raw.dtype, let shape = raw.shape, let offsets = raw.offsets else {
      let missing = [
        raw.dtype == nil ? "dtype" : nil, raw.shape == nil ? "shape" : nil,
        raw.offsets == nil ? "data_offsets" : nil,
      ]
      throw damaged(
        "dtype, shape and data_offsets",
        "no " + missing.compactMap { $0 }.joined(separator: ", no "))
    }
    guard let type = SafetensorsFile.ScalarType(rawValue: dtype) else {
      let known = SafetensorsFile.ScalarType.allCases.map(\.rawValue).joined(separator: ", ")
      throw damaged("a dtype of \(known)", OneLine.quoted(dtype))
    }
    guard shape.allSatisfy({ $0 >= 0 }) else { throw damaged("no negative extent", "\(shape)") }
    var bytes = type.byteCount
    for extent in shape {
      let (product, overflow) = bytes.multipliedReportingOverflow(by: extent)
      guard !overflow else { throw damaged("extents whose product fits 64 bits", "\(shape)") }
      bytes = product
    }
    guard offsets.count == 2, offsets[0] >= 0, offsets[0] <= offsets[1],
      offsets[1] <= Int.max - dataStart
    else { throw damaged("two rising data_offsets", "\(offsets)") }
    guard offsets[1] - offsets[0] == bytes else {
      throw damaged(
        "\(bytes) bytes for \(dtype) of shape \(shape)",
        "data_offsets for \(offsets[1] - offsets[0])")
    }
    return SafetensorsFile.Entry(
      type: type, shape: shape, bytes: dataStart + offsets[0]..<dataStart + offsets[1])
  }
}
