// What rows of logits say, in double precision on 8-double vectors: normalisers and entropies, and how
// far two rows are from one another as distributions.
#include "CKernels.h"

#include <math.h>

#include "simd.h"

enum { WIDE = 8 };
typedef float f8 __attribute__((vector_size(32)));
typedef double d8 __attribute__((vector_size(64)));
typedef int64_t l8 __attribute__((vector_size(64)));

// The first `count` lanes from memory, `fill` in the others.
NL_INLINE void load8(d8 *v, const float *from, ptrdiff_t count, float fill) {
  f8 lanes = fill - (f8){0};
  if (count >= WIDE) {
    memcpy(&lanes, from, sizeof lanes);
  } else {
    float part[WIDE];
    for (int i = 0; i < WIDE; i++) part[i] = i < count ? from[i] : fill;
    memcpy(&lanes, part, sizeof lanes);
  }
  *v = __builtin_convertvector(lanes, d8);
}

NL_INLINE double sum8(const d8 *v) {
  return (((*v)[0] + (*v)[4]) + ((*v)[2] + (*v)[6])) + (((*v)[1] + (*v)[5]) + ((*v)[3] + (*v)[7]));
}

// Lane by lane: a where the mask is set, else b.
NL_INLINE void select8(d8 *out, const l8 *mask, const d8 *a, const d8 *b) {
  *out = (d8)((*mask & (l8)*a) | (~*mask & (l8)*b));
}

// Lane by lane exp(v) for v <= 0, relative error below 1e-15; below -700 exactly 0; NaN stays NaN.
NL_INLINE void exp8(d8 *v) {
// No `reassociate` here: adding and subtracting `round` is what rounds.
#pragma clang fp contract(fast)
  l8 vanishes = *v < -700.0;
  // As exp16: v = n ln(2) + r, 2^n by way of the mantissa bits that `round` leaves n in.
  const double round = 0x1.8p52 + 1023;
  d8 shifted = *v * 0x1.71547652b82fep0 + round;
  d8 n = shifted - round;
  d8 r = *v - n * 0x1.62e42fefap-1;
  r = r - n * 0x1.cf79abc9e3b39p-40;
  d8 p = r / 479001600.0 + 1 / 39916800.0;
  p = p * r + 1 / 3628800.0;
  p = p * r + 1 / 362880.0;
  p = p * r + 1 / 40320.0;
  p = p * r + 1 / 5040.0;
  p = p * r + 1 / 720.0;
  p = p * r + 1 / 120.0;
  p = p * r + 1 / 24.0;
  p = p * r + 1 / 6.0;
  p = p * r + 0.5;
  p = p * r + 1.0;
  p = p * r + 1.0;
  d8 e = p * (d8)((l8)shifted << 52);
  *v = (d8)(~vanishes & (l8)e);
}

// Lane by lane ln(1 + w) for -1/2 <= w <= 0, exactly 0 at 0: 2 artanh(w / (2 + w)) by its series.
NL_INLINE void log1p8(d8 *w) {
#pragma clang fp contract(fast)
  d8 s = *w / (2.0 + *w), t = s * s;
  d8 p = t * (1 / 31.0) + 1 / 29.0;
  for (int k = 27; k >= 1; k -= 2) p = p * t + 1.0 / k;
  *w = 2.0 * s * p;
}

NL_CLONES void nl_logit_row(
  ptrdiff_t n, const float *x, float target, ptrdiff_t *top, ptrdiff_t *larger, double *sum,
  double *weighted) {
  f16 most = -INFINITY - (f16){0}, v;
  i16 above = {0};
  for (ptrdiff_t i = 0; i < n; i += LANES) {
    if (i + LANES <= n) {
      load(&v, x + i);
    } else {
      load_part(&v, x + i, n - i, -INFINITY);
    }
    // A NaN is not larger than anything; it comes back in the sums.
    i16 larger16 = v > most;
    select16(&most, &larger16, &v, &most);
    above -= v > target;
  }
  float largest = -INFINITY;
  for (int i = 0; i < LANES; i++) largest = most[i] > largest ? most[i] : largest;
  ptrdiff_t first = 0;
  while (first + 1 < n && x[first] != largest) first++;
  *top = first;
  *larger = 0;
  for (int i = 0; i < LANES; i++) *larger += above[i];

  d8 sums[2] = {{0}}, products[2] = {{0}}, w;
  for (ptrdiff_t i = 0; i < n; i += 2 * WIDE) {
#pragma clang loop unroll(full)
    for (int j = 0; j < 2; j++) {
      const ptrdiff_t at = i + j * WIDE;
      if (at >= n) break;
      load8(&w, x + at, n - at, -INFINITY);
      d8 difference = w - (double)largest, floor = -1000.0 - (d8){0};
      // Its weight is 0, and minus infinity times 0 would not be.
      l8 below = difference < floor;
      select8(&difference, &below, &floor, &difference);
      w = difference;
      exp8(&w);
      sums[j] += w;
      products[j] += w * difference;
    }
  }
  sums[0] += sums[1];
  products[0] += products[1];
  *sum = sum8(&sums[0]);
  *weighted = sum8(&products[0]);
}

NL_CLONES void nl_divergence_row(
  ptrdiff_t n, const float *a, const float *b, double log_a, double log_b, double *jsd,
  double *kl, double *reverse) {
  d8 js = {0}, ab = {0}, ba = {0}, p, q;
  for (ptrdiff_t i = 0; i < n; i += WIDE) {
    load8(&p, a + i, n - i, -1e30f);
    load8(&q, b + i, n - i, -1e30f);
    p -= log_a;
    q -= log_b;
    d8 gap = p - q, negative = -gap;
    l8 smaller = gap < 0.0;
    d8 high, distance;
    select8(&high, &smaller, &q, &p);
    select8(&distance, &smaller, &gap, &negative);  // -|gap|
    d8 share = distance;
    exp8(&high);
    exp8(&share);
    d8 low = high * share;
    // The mean of both over the larger one is (1 + share)/2.
    d8 middle = (share - 1.0) * 0.5;
    log1p8(&middle);
    js += 0.5 * high * (share * (distance - middle) - middle);
    d8 of_a, of_b;
    select8(&of_a, &smaller, &low, &high);
    select8(&of_b, &smaller, &high, &low);
    ab += of_a * gap;
    ba += of_b * negative;
  }
  *jsd = sum8(&js);
  *kl = sum8(&ab);
  *reverse = sum8(&ba);
}
