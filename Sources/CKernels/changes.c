// What small changes of logits do to the softmax.
#include "CKernels.h"
#include "simd.h"

// Lane by lane exp(v) - 1 for |v| <= 16 (beyond, that of the bound), with the relative precision of v where
// v is small.
NL_INLINE void expm1_16(f16 *v) {
#pragma clang fp contract(fast)
  at_most(v, 16.0f);
  at_least(v, -16.0f);
  // 2^n - 1 is exact.
  f16 r = *v, power;
  split_exponent16(&r, &power);
  f16 p = r * 1.3888889e-3f + 8.3333333e-3f;
  p = p * r + 4.1666667e-2f;
  p = p * r + 1.6666667e-1f;
  p = p * r + 0.5f;
  p = p * r * r + r;
  *v = p * power + (power - 1.0f);
}

// The sums of one change, kept in lanes.
typedef struct {
  f16 mass, surprise, largest;
} change_sums;

NL_INLINE void change16(
  change_sums *sums, const f16 *log_p, const f16 *p, const f16 *base, const f16 *u, float stretch,
  float shift) {
#pragma clang fp contract(fast)
  f16 delta = *base * stretch + *u * shift;
  f16 size = (f16)((i16)delta & 0x7fffffff);
  // A NaN is the largest of all.
  i16 smaller = size <= sums->largest;
  select16(&sums->largest, &smaller, &sums->largest, &size);
  f16 e = delta;
  expm1_16(&e);
  sums->mass += *p * e;
  sums->surprise += *p * (e * (*log_p + delta) + delta);
}

NL_CLONES void nl_softmax_changes(
  ptrdiff_t changes, ptrdiff_t n, const float *restrict log_p, const float *restrict p,
  const float *restrict base, const float *restrict u, ptrdiff_t ldu,
  const float *restrict stretch, const float *restrict shift, double *restrict sums) {
  for (ptrdiff_t c = 0; c < changes; c++, u += ldu, sums += 3) {
    change_sums s = {{0}, {0}, {0}};
    f16 a, b, x, y;
    ptrdiff_t i = 0;
    for (; i + LANES <= n; i += LANES) {
      load(&a, log_p + i);
      load(&b, p + i);
      load(&x, base + i);
      load(&y, u + i);
      change16(&s, &a, &b, &x, &y, stretch[c], shift[c]);
    }
    if (i < n) {
      load_part(&a, log_p + i, n - i, 0);
      load_part(&b, p + i, n - i, 0);
      load_part(&x, base + i, n - i, 0);
      load_part(&y, u + i, n - i, 0);
      change16(&s, &a, &b, &x, &y, stretch[c], shift[c]);
    }
    sums[0] += sum16(&s.mass);
    sums[1] += sum16(&s.surprise);
    float largest[LANES];
    store(largest, &s.largest);
    for (int j = 0; j < LANES; j++) {
      if (!(largest[j] <= sums[2])) sums[2] = largest[j];
    }
  }
}
