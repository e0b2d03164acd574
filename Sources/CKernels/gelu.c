#include "CKernels.h"
#include "simd.h"

// Below -14 both GELUs are 0 to float precision; the bound keeps -inf * 0 out.
static const float vanishing = -14;

// The slope of both is 1 from here on, and no square overflows.
static const float saturated = 14;

// 0.5 v (1 + tanh(u)) with u = sqrt(2/pi) (v + 0.044715 v^3) is v e / (e + 1) with e = exp(2u).
NL_INLINE void exp_2u(const f16 *v, f16 *e) {
#pragma clang fp contract(fast)
  *e = *v * (*v * *v * 0.0713548163f + 1.59576912f);
  exp16(e);
}

NL_INLINE void gelu_new16(f16 *v) {
#pragma clang fp contract(fast)
  at_least(v, vanishing);
  f16 e;
  exp_2u(v, &e);
  *v = *v * (e / (e + 1.0f));
}

// With s = e / (e + 1) = gelu(v) / v the slope is s + v s (1 - s) 2u'.
NL_INLINE void gelu_new_slope16(f16 *v, const int share) {
#pragma clang fp contract(fast)
  at_least(v, vanishing);
  at_most(v, saturated);
  f16 e;
  exp_2u(v, &e);
  // Divided, s is exactly 1 where e is large.
  f16 s = e / (e + 1.0f);
  *v = share ? s : s + *v * s / (e + 1.0f) * (*v * *v * (3 * 0.0713548163f) + 1.59576912f);
}

// The normal distribution function and e = exp(-v^2 / 2): erfc by the rational approximation 7.1.26
// of Abramowitz and Stegun (error below 1.5e-7), mirrored for positive v.
NL_INLINE void normal16(const f16 *v, f16 *probability, f16 *e) {
#pragma clang fp contract(fast)
  f16 minus = -*v, size;
  i16 negative = *v < 0.0f;
  select16(&size, &negative, &minus, v);
  *e = size * size * -0.5f;
  exp16(e);
  // 0.3275911 / sqrt(2), and the coefficients with the factor 1/2 of the distribution function.
  f16 t = 1.0f / (size * 0.231641888f + 1.0f);
  f16 tail = t * 0.5307027145f - 0.7265760135f;
  tail = tail * t + 0.7107068705f;
  tail = tail * t - 0.142248368f;
  tail = tail * t + 0.127414796f;
  tail = tail * t * *e;
  f16 rest = 1.0f - tail;
  select16(probability, &negative, &tail, &rest);
}

NL_INLINE void gelu_erf16(f16 *v) {
#pragma clang fp contract(fast)
  at_least(v, vanishing);
  f16 below, e;
  normal16(v, &below, &e);
  *v = *v * below;
}

NL_INLINE void gelu_erf_slope16(f16 *v, const int share) {
#pragma clang fp contract(fast)
  at_least(v, vanishing);
  at_most(v, saturated);
  f16 below, e;
  normal16(v, &below, &e);
  // 1 / sqrt(2 pi)
  *v = share ? below : below + *v * e * 0.3989422804f;
}

#define EACH(kernel)                                     \
  ptrdiff_t i = 0;                                       \
  f16 v;                                                 \
  for (; i + LANES <= n; i += LANES) {                   \
    load(&v, in + i);                                    \
    kernel(&v);                                          \
    store(out + i, &v);                                  \
  }                                                      \
  if (i < n) {                                           \
    load_part(&v, in + i, n - i, 0);                     \
    kernel(&v);                                          \
    store_part(out + i, &v, n - i);                      \
  }

NL_CLONES void nl_gelu(ptrdiff_t n, const float *in, float *out, int exact) {
  if (exact) {
    EACH(gelu_erf16)
  } else {
    EACH(gelu_new16)
  }
}

#define EACH_SLOPE(kernel, share)                        \
  ptrdiff_t i = 0;                                       \
  f16 v, g;                                              \
  for (; i < n; i += LANES) {                            \
    const ptrdiff_t left = n - i;                        \
    if (left >= LANES) {                                 \
      load(&v, in + i);                                  \
      load(&g, gradient + i);                            \
      kernel(&v, share);                                 \
      v *= g;                                            \
      store(out + i, &v);                                \
    } else {                                             \
      load_part(&v, in + i, left, 0);                    \
      load_part(&g, gradient + i, left, 0);              \
      kernel(&v, share);                                 \
      v *= g;                                            \
      store_part(out + i, &v, left);                     \
    }                                                    \
  }

NL_CLONES void nl_gelu_gradient(
  ptrdiff_t n, const float *in, const float *gradient, float *out, int exact, int share) {
  if (exact && share) {
    EACH_SLOPE(gelu_erf_slope16, 1)
  } else if (exact) {
    EACH_SLOPE(gelu_erf_slope16, 0)
  } else if (share) {
    EACH_SLOPE(gelu_new_slope16, 1)
  } else {
    EACH_SLOPE(gelu_new_slope16, 0)
  }
}
