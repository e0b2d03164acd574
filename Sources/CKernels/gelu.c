#include "CKernels.h"
#include "simd.h"

// Below -14 both GELUs are 0 to float precision; the bound keeps -inf * 0 out.
static const float vanishing = -14;

// 0.5 v (1 + tanh(u)) with u = sqrt(2/pi) (v + 0.044715 v^3) is v e / (e + 1) with e = exp(2u).
NL_INLINE void gelu_new16(f16 *v) {
#pragma clang fp contract(fast)
  at_least(v, vanishing);
  f16 e = *v * (*v * *v * 0.0713548163f + 1.59576912f);
  exp16(&e);
  *v = *v * (e / (e + 1.0f));
}

// v times the normal distribution function: erfc by the rational approximation 7.1.26 of Abramowitz
// and Stegun (error below 1.5e-7), mirrored for positive v.
NL_INLINE void gelu_erf16(f16 *v) {
#pragma clang fp contract(fast)
  at_least(v, vanishing);
  f16 minus = -*v, size;
  i16 negative = *v < 0.0f;
  select16(&size, &negative, &minus, v);
  f16 e = size * size * -0.5f;
  exp16(&e);
  // 0.3275911 / sqrt(2), and the coefficients with the factor 1/2 of the distribution function.
  f16 t = 1.0f / (size * 0.231641888f + 1.0f);
  f16 tail = t * 0.5307027145f - 0.7265760135f;
  tail = tail * t + 0.7107068705f;
  tail = tail * t - 0.142248368f;
  tail = tail * t + 0.127414796f;
  tail = tail * t * e;
  f16 rest = 1.0f - tail, below;
  select16(&below, &negative, &tail, &rest);
  *v = *v * below;
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

NL_CLONES void nl_gelu_new(ptrdiff_t n, const float *in, float *out) { EACH(gelu_new16) }

NL_CLONES void nl_gelu_erf(ptrdiff_t n, const float *in, float *out) { EACH(gelu_erf16) }
