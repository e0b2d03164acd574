// What the rows of an attention pattern say, in the pass over their scores that makes them.
#include "CKernels.h"
#include "simd.h"

#include <math.h>

// exp((x - top) * scale) of up to 16 columns in place; adds it to `sum`, and it times (top - x) * scale
// to `weighted`.
NL_INLINE void weigh16(
  float *x, ptrdiff_t count, float top, float scale, f16 *sum, f16 *weighted) {
#pragma clang fp contract(fast)
  f16 v, e;
  if (count == LANES) {
    load(&v, x);
  } else {
    load_part(&v, x, count, -INFINITY);
  }
  v = (v - top) * scale;
  e = v;
  exp16(&e);
  *sum += e;
  // 0 * -inf is not a number: what lies below the smallest exponential counts nothing.
  at_least(&v, -100);
  *weighted -= e * v;
  if (count == LANES) {
    store(x, &e);
  } else {
    store_part(x, &e, count);
  }
}

NL_CLONES void nl_pattern_rows(
  ptrdiff_t rows, ptrdiff_t ld, float *scores, float scale, ptrdiff_t first,
  float *restrict inverse, float *restrict between, float *restrict entropy) {
  for (ptrdiff_t r = 0; r < rows; r++, scores += ld) {
    const ptrdiff_t own = first + r;
    f16 most = scores[0] - (f16){0}, v;
    for (ptrdiff_t i = 0; i <= own; i += LANES) {
      const ptrdiff_t left = own + 1 - i;
      if (left >= LANES) {
        load(&v, scores + i);
      } else {
        load_part(&v, scores + i, left, -INFINITY);
      }
      i16 larger = v > most;
      select16(&most, &larger, &v, &most);
    }
    float top = most[0];
    for (int i = 1; i < LANES; i++) top = most[i] > top ? most[i] : top;

    // The first key and the query's own stand apart, so that what lies between them is summed by itself
    // and not as a difference.
    f16 ends = {0}, middle = {0}, weighted = {0};
    weigh16(scores, 1, top, scale, &ends, &weighted);
    if (own > 0) weigh16(scores + own, 1, top, scale, &ends, &weighted);
    for (ptrdiff_t i = 1; i < own; i += LANES) {
      weigh16(
        scores + i, own - i >= LANES ? LANES : own - i, top, scale, &middle, &weighted);
    }
    const float sum = sum16(&middle), total = sum + sum16(&ends);
    inverse[r] = 1 / total;
    between[r] = sum / total;
    entropy[r] = logf(total) + sum16(&weighted) / total;
  }
}
