// Kernels that reduce over a row and then rewrite it.
#include "CKernels.h"
#include "simd.h"

#include <math.h>

// The sum of the row, and of the squares of its distances from `center` if `squares`.
NL_INLINE float row_sum(ptrdiff_t d, const float *x, float center, const int squares) {
#pragma clang fp contract(fast)
  f16 sum = {0}, v;
  for (ptrdiff_t i = 0; i < d; i += LANES) {
    if (i + LANES <= d) {
      load(&v, x + i);
    } else {
      load_part(&v, x + i, d - i, center);
    }
    v -= center;
    sum += squares ? v * v : v;
  }
  return sum16(&sum);
}

NL_CLONES void nl_layer_norm(
  ptrdiff_t rows, ptrdiff_t d, const float *x, float eps, const float *restrict gain,
  const float *restrict bias, float *y, float *restrict scale, float *restrict normalized) {
#pragma clang fp contract(fast)
  for (ptrdiff_t r = 0; r < rows; r++, x += d, y += d) {
    // The mean of what is left after a first mean removes the rounding of a large common part.
    float mean = row_sum(d, x, 0, 0) / (float)d;
    mean += row_sum(d, x, mean, 0) / (float)d;
    const float deviation = sqrtf(row_sum(d, x, mean, 1) / (float)d + eps);
    const float inverse = 1 / deviation;
    if (scale) scale[r] = deviation;
    for (ptrdiff_t i = 0; i < d; i++) {
      float v = (x[i] - mean) * inverse;
      if (normalized) normalized[r * d + i] = v;
      if (gain) v *= gain[i];
      if (bias) v += bias[i];
      y[i] = v;
    }
  }
}

NL_INLINE void softmax_row(ptrdiff_t columns, const float *in, float scale, float *out) {
#pragma clang fp contract(fast)
  f16 most = -INFINITY - (f16){0}, sum = {0}, v;
  for (ptrdiff_t i = 0; i < columns; i += LANES) {
    if (i + LANES <= columns) {
      load(&v, in + i);
    } else {
      load_part(&v, in + i, columns - i, -INFINITY);
    }
    // A NaN is not larger than anything; it comes back in the sum.
    i16 larger = v > most;
    select16(&most, &larger, &v, &most);
  }
  float top = -INFINITY;
  for (int i = 0; i < LANES; i++) top = most[i] > top ? most[i] : top;
  // Every weight of a fully masked row is 0. Subtracting 0 then keeps -inf - -inf out.
  if (top == -INFINITY) top = 0;
  for (ptrdiff_t i = 0; i < columns; i += LANES) {
    const ptrdiff_t left = columns - i;
    if (left >= LANES) {
      load(&v, in + i);
    } else {
      load_part(&v, in + i, left, -INFINITY);
    }
    v = (v - top) * scale;
    exp16(&v);
    sum += v;
    if (left >= LANES) {
      store(out + i, &v);
    } else {
      store_part(out + i, &v, left);
    }
  }
  const float total = sum16(&sum), inverse = total == 0 ? 0 : 1 / total;
  for (ptrdiff_t i = 0; i < columns; i++) out[i] *= inverse;
}

NL_CLONES void nl_softmax(
  ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t ld_in, const float *in, ptrdiff_t ld_out,
  float *out, float scale, ptrdiff_t first_valid, int causal) {
  for (ptrdiff_t r = 0; r < rows; r++, in += ld_in, out += ld_out) {
    ptrdiff_t visible = causal ? first_valid + r + 1 : columns;
    if (visible > columns) visible = columns;
    if (visible < 0) visible = 0;
    softmax_row(visible, in, scale, out);
    memset(out + visible, 0, (size_t)(columns - visible) * sizeof(float));
  }
}
