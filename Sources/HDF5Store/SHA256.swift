import Tensors

/// SHA-256 (FIPS 180-4), fed in pieces.
struct SHA256 {
  /// Whether the processor's own instructions are used where it has any.
  private let usesInstructions: Bool
  private var state: [UInt32] = [
    0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a,
    0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19,
  ]
  private var pending: [UInt8] = []
  private var byteCount = 0

  /// The first 32 bits of the fractional parts of the cube roots of the first 64 primes.
  private static let constants: [UInt32] = [
    0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5, 0x3956_c25b, 0x59f1_11f1, 0x923f_82a4,
    0xab1c_5ed5, 0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3, 0x72be_5d74, 0x80de_b1fe,
    0x9bdc_06a7, 0xc19b_f174, 0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc, 0x2de9_2c6f,
    0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da, 0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7,
    0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967, 0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc,
    0x5338_0d13, 0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85, 0xa2bf_e8a1, 0xa81a_664b,
    0xc24b_8b70, 0xc76c_51a3, 0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070, 0x19a4_c116,
    0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5, 0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3,
    0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208, 0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7,
    0xc671_78f2,
  ]

  init(usesInstructions: Bool = true) { self.usesInstructions = usesInstructions }

  /// Takes more bytes.
  mutating func update(_ bytes: UnsafeRawBufferPointer) {
    byteCount += bytes.count
    var rest = bytes[...]
    if !pending.isEmpty {
      let taken = rest.prefix(64 - pending.count)
      pending.append(contentsOf: taken)
      rest = rest.dropFirst(taken.count)
      guard pending.count == 64 else { return }
      let block = pending
      block.withUnsafeBytes { absorb($0) }
      pending.removeAll(keepingCapacity: true)
    }
    let whole = rest.count / 64 * 64
    absorb(UnsafeRawBufferPointer(rebasing: rest.prefix(whole)))
    pending.append(contentsOf: rest.dropFirst(whole))
  }

  /// Takes more bytes.
  mutating func update(_ bytes: [UInt8]) {
    bytes.withUnsafeBytes { update($0) }
  }

  /// The digest of everything taken, in lower-case hexadecimal.
  consuming func hexDigest() -> String {
    let bits = UInt64(byteCount) * 8
    var padding: [UInt8] = [0x80]
    while (pending.count + padding.count) % 64 != 56 { padding.append(0) }
    for shift in stride(from: 56, through: 0, by: -8) {
      padding.append(UInt8(truncatingIfNeeded: bits >> UInt64(shift)))
    }
    update(padding)
    let digits = Array("0123456789abcdef")
    var text = ""
    for word in state {
      for shift in stride(from: 28, through: 0, by: -4) {
        text.append(digits[Int((word >> UInt32(shift)) & 15)])
      }
    }
    return text
  }

  /// Works whole blocks of 64 bytes into the state.
  private mutating func absorb(_ blocks: UnsafeRawBufferPointer) {
    let isDone =
      usesInstructions
      && state.withUnsafeMutableBufferPointer { state in
        state.baseAddress.map { sha256($0, absorb: blocks) } ?? false
      }
    if !isDone { SHA256.absorb(blocks, into: &state) }
  }

  private static func absorb(_ blocks: UnsafeRawBufferPointer, into state: inout [UInt32]) {
    guard !blocks.isEmpty else { return }
    withUnsafeTemporaryAllocation(of: UInt32.self, capacity: 64) { w in
      constants.withUnsafeBufferPointer { k in
        state.withUnsafeMutableBufferPointer { state in
          var position = 0
          while position < blocks.count {
            for t in 0..<16 {
              w[t] = UInt32(
                bigEndian: blocks.loadUnaligned(
                  fromByteOffset: position + 4 * t, as: UInt32.self))
            }
            for t in 16..<64 {
              let s0 = rotate(w[t - 15], 7) ^ rotate(w[t - 15], 18) ^ (w[t - 15] >> 3)
              let s1 = rotate(w[t - 2], 17) ^ rotate(w[t - 2], 19) ^ (w[t - 2] >> 10)
              w[t] = w[t - 16] &+ s0 &+ w[t - 7] &+ s1
            }
            var (a, b, c, d) = (state[0], state[1], state[2], state[3])
            var (e, f, g, h) = (state[4], state[5], state[6], state[7])
            // Eight rounds a step: instead of moving eight words along, their roles change.
            for t in stride(from: 0, to: 64, by: 8) {
              round(a, b, c, &d, e, f, g, &h, k[t] &+ w[t])
              round(h, a, b, &c, d, e, f, &g, k[t + 1] &+ w[t + 1])
              round(g, h, a, &b, c, d, e, &f, k[t + 2] &+ w[t + 2])
              round(f, g, h, &a, b, c, d, &e, k[t + 3] &+ w[t + 3])
              round(e, f, g, &h, a, b, c, &d, k[t + 4] &+ w[t + 4])
              round(d, e, f, &g, h, a, b, &c, k[t + 5] &+ w[t + 5])
              round(c, d, e, &f, g, h, a, &b, k[t + 6] &+ w[t + 6])
              round(b, c, d, &e, f, g, h, &a, k[t + 7] &+ w[t + 7])
            }
            state[0] &+= a
            state[1] &+= b
            state[2] &+= c
            state[3] &+= d
            state[4] &+= e
            state[5] &+= f
            state[6] &+= g
            state[7] &+= h
            position += 64
          }
        }
      }
    }
  }

  @inline(__always)
  private static func round(
    _ a: UInt32, _ b: UInt32, _ c: UInt32, _ d: inout UInt32,
    _ e: UInt32, _ f: UInt32, _ g: UInt32, _ h: inout UInt32, _ word: UInt32
  ) {
    let s1 = rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)
    let t1 = h &+ s1 &+ (((f ^ g) & e) ^ g) &+ word
    let s0 = rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)
    d = d &+ t1
    h = t1 &+ s0 &+ (((a | b) & c) | (a & b))
  }

  @inline(__always)
  private static func rotate(_ value: UInt32, _ bits: UInt32) -> UInt32 {
    (value &>> bits) | (value &<< (32 &- bits))
  }
}
