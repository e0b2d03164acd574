// Kernels that reduce over a row and then rewrite it.
#include "CKernels.h"
#include "simd.h"

#include <math.h>

NL_INLINE void add16(f16 *sum, f16 *v, float center, const int squares) {
#pragma clang fp contract(fast)
  *v -= center;
  *sum += squares ? *v * *v : *v;
}

// The sum over a row of x - center, or of its square.
NL_INLINE float row_sum(ptrdiff_t d, const float *x, float center, const int squares) {
  // Several sums, because each addition has to wait for the one before it.
  f16 sum[4] = {{0}}, v;
  ptrdiff_t i = 0;
  for (; i + 4 * LANES <= d; i += 4 * LANES) {
#pragma clang loop unroll(full)
    for (int j = 0; j < 4; j++) {
      load(&v, x + i + j * LANES);
      add16(&sum[j], &v, center, squares);
    }
  }
  for (; i + LANES <= d; i += LANES) {
    load(&v, x + i);
    add16(&sum[0], &v, center, squares);
  }
  if (i < d) {
    load_part(&v, x + i, d - i, center);
    add16(&sum[1], &v, center, squares);
  }
  sum[0] += sum[1] + (sum[2] + sum[3]);
  return sum16(&sum[0]);
}

// (x - mean) * inverse for up to 16 columns of a row, then gain and bias where they exist.
NL_INLINE void normalize16(
  ptrdiff_t count, const float *x, float mean, float inverse, const float *gain,
  const float *bias, float *y, float *normalized) {
#pragma clang fp contract(fast)
  f16 v, g, b;
  load_part(&v, x, count, 0);
  v = (v - mean) * inverse;
  if (normalized) store_part(normalized, &v, count);
  if (gain) {
    load_part(&g, gain, count, 0);
    v *= g;
  }
  if (bias) {
    load_part(&b, bias, count, 0);
    v += b;
  }
  store_part(y, &v, count);
}

// Divides a row by its deviation from `mean`, then applies gain and bias; returns the deviation. The
// squares are those of the row and `more`, `width` of them.
NL_INLINE float norm_row(
  ptrdiff_t d, ptrdiff_t width, float more, const float *x, float mean, float eps,
  const float *gain, const float *bias, float *y, float *normalized) {
  const float deviation = sqrtf((row_sum(d, x, mean, 1) + more) / (float)width + eps);
  for (ptrdiff_t i = 0; i < d; i += LANES) {
    float *plain = normalized ? normalized + i : NULL;
    const float *g = gain ? gain + i : NULL, *b = bias ? bias + i : NULL;
    if (i + LANES <= d) {
      normalize16(LANES, x + i, mean, 1 / deviation, g, b, y + i, plain);
    } else {
      normalize16(d - i, x + i, mean, 1 / deviation, g, b, y + i, plain);
    }
  }
  return deviation;
}

NL_CLONES void nl_layer_norm(
  ptrdiff_t rows, ptrdiff_t d, const float *x, float eps, const float *restrict gain,
  const float *restrict bias, float *y, float *restrict scale, float *restrict normalized) {
  for (ptrdiff_t r = 0; r < rows; r++, x += d, y += d) {
    // The mean of what is left after a first mean removes the rounding of a large common part.
    float mean = row_sum(d, x, 0, 0) / (float)d;
    mean += row_sum(d, x, mean, 0) / (float)d;
    float *plain = normalized ? normalized + r * d : NULL;
    const float deviation = norm_row(d, d, 0, x, mean, eps, gain, bias, y, plain);
    if (scale) scale[r] = deviation;
  }
}

NL_CLONES void nl_rms_norm(
  ptrdiff_t rows, ptrdiff_t d, ptrdiff_t width, int rest, const float *x, float eps, const float *restrict gain,
  const float *restrict bias, float *y, float *restrict scale, float *restrict normalized) {
  for (ptrdiff_t r = 0; r < rows; r++, x += d, y += d) {
    float *plain = normalized ? normalized + r * d : NULL;
    const float sum = rest ? row_sum(d, x, 0, 0) : 0;
    const float deviation = norm_row(d, width, sum * sum, x, 0, eps, gain, bias, y, plain);
    if (scale) scale[r] = deviation;
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
