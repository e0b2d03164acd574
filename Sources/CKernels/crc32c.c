// CRC-32C (Castagnoli), bits reflected, as in iSCSI and RFC 3720.
#include "CKernels.h"

#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__ARM_FEATURE_CRC32)
#include <arm_acle.h>
#endif

// These work on the inner state, which is the complement of the checksum.

#if defined(__ARM_FEATURE_CRC32)

static uint32_t update(uint32_t state, const unsigned char *p, size_t n) {
  for (; n >= 8; n -= 8, p += 8) {
    uint64_t word;
    memcpy(&word, p, 8);
    state = __crc32cd(state, word);
  }
  while (n-- > 0) state = __crc32cb(state, *p++);
  return state;
}

#else

// Half a byte at a time: a small table for processors that are all but extinct.
static uint32_t update_by_table(uint32_t state, const unsigned char *p, size_t n) {
  static const uint32_t remainders[16] = {
    0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3, 0x61c69362, 0x7198540d,
    0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9, 0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75,
  };
  for (; n > 0; n--) {
    state ^= *p++;
    state = state >> 4 ^ remainders[state & 15];
    state = state >> 4 ^ remainders[state & 15];
  }
  return state;
}

#if defined(__x86_64__)

// The crc32 instruction starts every cycle but takes three to finish: three neighbouring parts are
// run side by side and then joined.
__attribute__((target("sse4.2,pclmul")))
static uint32_t update_by_instruction(uint32_t state, const unsigned char *p, size_t n) {
  enum { PART = 1024, LINE = 64 };
  // x^(8 * bytes - 33) modulo the polynomial, for one part and for two. The carry-less product of a
  // state with it, reduced by one crc32 step, is the state after that many zero bytes.
  const __m128i past_parts = _mm_set_epi64x(0x170076fa, 0xa51b6135);
  uint64_t a = state;
  for (; n >= 3 * PART; n -= 3 * PART, p += 3 * PART) {
    uint64_t b = 0, c = 0;
    for (size_t i = 0; i < PART; i += 8) {
      if (i % LINE == 0) {
        // Three short streams confuse the hardware's prefetcher.
        __builtin_prefetch(p + 3 * PART + 3 * i);
        __builtin_prefetch(p + 3 * PART + 3 * i + LINE);
        __builtin_prefetch(p + 3 * PART + 3 * i + 2 * LINE);
      }
      uint64_t words[3];
      memcpy(&words[0], p + i, 8);
      memcpy(&words[1], p + PART + i, 8);
      memcpy(&words[2], p + 2 * PART + i, 8);
      a = _mm_crc32_u64(a, words[0]);
      b = _mm_crc32_u64(b, words[1]);
      c = _mm_crc32_u64(c, words[2]);
    }
    const __m128i first = _mm_cvtsi64_si128((long long)a), second = _mm_cvtsi64_si128((long long)b);
    const __m128i both = _mm_xor_si128(
      _mm_clmulepi64_si128(first, past_parts, 0x00),
      _mm_clmulepi64_si128(second, past_parts, 0x10));
    a = _mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(both)) ^ c;
  }
  for (; n >= 8; n -= 8, p += 8) {
    uint64_t word;
    memcpy(&word, p, 8);
    a = _mm_crc32_u64(a, word);
  }
  while (n-- > 0) a = _mm_crc32_u8((uint32_t)a, *p++);
  return (uint32_t)a;
}

#endif

static uint32_t update(uint32_t state, const unsigned char *p, size_t n) {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul")) {
    return update_by_instruction(state, p, n);
  }
#endif
  return update_by_table(state, p, n);
}

#endif

uint32_t nl_crc32c(uint32_t crc, const void *data, size_t n) { return ~update(~crc, data, n); }
