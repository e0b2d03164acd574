// What the kernels share: a 16-float vector that every CPU has (as one AVX-512 register, two AVX2
// registers or four SSE or NEON registers), and the exponential on it.
//
// Explicit vectors instead of plain loops because clang prefers 256-bit registers when it vectorises
// for x86-64-v4 by itself. Helpers take vectors by pointer: by value they would need one calling
// convention per instruction set. All of them are inlined, so nothing is passed through memory.
#ifndef NORMLENS_SIMD_H
#define NORMLENS_SIMD_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define NL_INLINE static inline __attribute__((always_inline))

#if defined(__x86_64__) && defined(__linux__)
// Compiles a function once per x86-64 level; the loader picks the best that the CPU runs.
#define NL_CLONES \
  __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define NL_CLONES
#endif

enum { LANES = 16 };
typedef float f16 __attribute__((vector_size(64)));
typedef int32_t i16 __attribute__((vector_size(64)));

NL_INLINE void load(f16 *v, const float *from) { memcpy(v, from, sizeof *v); }
NL_INLINE void store(float *to, const f16 *v) { memcpy(to, v, sizeof *v); }

// The first `count` lanes from memory, `fill` in the others.
NL_INLINE void load_part(f16 *v, const float *from, ptrdiff_t count, float fill) {
  float lanes[LANES];
  for (int i = 0; i < LANES; i++) lanes[i] = fill;
  memcpy(lanes, from, (size_t)count * sizeof(float));
  load(v, lanes);
}

NL_INLINE void store_part(float *to, const f16 *v, ptrdiff_t count) {
  memcpy(to, v, (size_t)count * sizeof(float));
}

// Lane by lane: a where the mask is set, else b.
NL_INLINE void select16(f16 *out, const i16 *mask, const f16 *a, const f16 *b) {
  *out = (f16)((*mask & (i16)*a) | (~*mask & (i16)*b));
}

// Lane by lane: `limit` where v is below it; a NaN stays.
NL_INLINE void at_least(f16 *v, float limit) {
  f16 bound = limit - (f16){0};
  i16 below = *v < bound;
  select16(v, &below, &bound, v);
}

NL_INLINE void at_most(f16 *v, float limit) {
  f16 bound = limit - (f16){0};
  i16 above = *v > bound;
  select16(v, &above, &bound, v);
}

NL_INLINE float sum16(const f16 *v) {
  float s[LANES];
  store(s, v);
  for (int width = LANES / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; i++) s[i] += s[i + width];
  }
  return s[0];
}

// Lane by lane exp(v) = power exp(r) with power = 2^n, n an integer, and |r| <= ln(2)/2; r takes v's place.
NL_INLINE void split_exponent16(f16 *v, f16 *power) {
// No `reassociate` here: adding and subtracting `round` is what rounds.
#pragma clang fp contract(fast)
  // Adding 1.5 * 2^23 leaves n in the low mantissa bits; with 127 added too, these shift straight into the
  // exponent field of 2^n.
  const float round = 0x1.8p23f + 127.0f;
  f16 shifted = *v * 0x1.715476p0f + round;
  f16 n = shifted - round;
  // ln(2) in two parts: n times the first is exact.
  f16 r = *v - n * 0x1.62ep-1f;
  *v = r - n * 0x1.0bfbe8p-15f;
  *power = (f16)((i16)shifted << 23);
}

// Lane by lane exp(v), relative error below 2e-7. Below -87.3, where the result would be subnormal,
// exactly 0; above 88, exp(88) (finite, so that e / (e + 1) is 1); NaN stays NaN.
NL_INLINE void exp16(f16 *v) {
#pragma clang fp contract(fast)
  i16 vanishes = *v < -87.3f;
  at_most(v, 88.0f);
  at_least(v, -87.3f);
  f16 r = *v, power;
  split_exponent16(&r, &power);
  // Taylor's series; the first term left out is below 1.2e-7.
  f16 p = r * 1.3888889e-3f + 8.3333333e-3f;
  p = p * r + 4.1666667e-2f;
  p = p * r + 1.6666667e-1f;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  f16 e = p * power;
  *v = (f16)(~vanishes & (i16)e);
}

#endif
