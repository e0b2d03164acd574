// The hot kernels that a profile asked for. No allocation, no globals, no threads: a caller slices
// the work over its threads. Matrices are row-major float32; `ld...` is the number of floats from
// one row to the next. Each kernel picks the widest instructions that the CPU has.
#ifndef NORMLENS_CKERNELS_H
#define NORMLENS_CKERNELS_H

#include <stddef.h>
#include <stdint.h>

// Floats in a vector register: 16 with AVX-512, 8 with AVX2, else 4.
int nl_simd_width(void);

// y[m, n] = x[m, k] w[k, n] + bias[n] (bias may be NULL) for few rows m: reads w from memory once,
// where sgemm would first repack it. Against single-threaded OpenBLAS on GPT-2 small's shapes it was
// 2 to 2.7 times as fast up to m = 32 and 1.6 times at 56 (the most rows in one pass over w) with a
// simd width of 16, and ahead up to 32 rows with 8; with 4 it is only worth its while at m = 1.
//
// Threads share a product best by k: each takes some rows of w, which are contiguous, into a partial
// y of its own. Ranges of n (multiples of 16) need no sum, but read memory in short pieces. Rows
// of w should be 64-byte aligned. Stack: 12 KB.
void nl_skinny_nn(
  ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const float *restrict x, ptrdiff_t ldx,
  const float *restrict w, ptrdiff_t ldw, const float *restrict bias, float *restrict y,
  ptrdiff_t ldy);

// y[m, n] = x[m, k] w[n, k]^T + bias[n] (bias may be NULL), likewise: 1.5 to 2.5 times as fast as
// sgemm up to m = 32, 1.3 times at 56. Threads take ranges of n. Stack: 200 KB.
void nl_skinny_nt(
  ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const float *restrict x, ptrdiff_t ldx,
  const float *restrict w, ptrdiff_t ldw, const float *restrict bias, float *restrict y,
  ptrdiff_t ldy);

// out[n] = gelu(in[n]) within 1e-6 |in|: by the tanh formula (GPT-2's gelu_new) or, if `exact`, by the
// error function. The limits at infinity are 0 and infinity; NaN stays NaN. `out` may be `in`.
void nl_gelu(ptrdiff_t n, const float *in, float *out, int exact);

// out[n] = gradient[n] gelu'(in[n]) or, if `share`, gradient[n] gelu(in[n]) / in[n] (1/2 at 0).
// `out` may be `in` or `gradient`.
void nl_gelu_gradient(
  ptrdiff_t n, const float *in, const float *gradient, float *out, int exact, int share);

// For each of x[rows, d]: scale = sqrt(var + eps) with the biased variance,
// normalized = (x - mean) / scale, y = normalized * gain[d] + bias[d]. gain and bias may be NULL (1
// and 0); scale[rows] and normalized[rows, d] may be NULL (not wanted). `y` may be `x`.
void nl_layer_norm(
  ptrdiff_t rows, ptrdiff_t d, const float *x, float eps, const float *restrict gain,
  const float *restrict bias, float *y, float *restrict scale, float *restrict normalized);

// Likewise without centring: scale = sqrt(sum(x^2) / width + eps), normalized = x / scale; if `rest`,
// the squares are one more: that of sum(x).
void nl_rms_norm(
  ptrdiff_t rows, ptrdiff_t d, ptrdiff_t width, int rest, const float *x, float eps, const float *restrict gain,
  const float *restrict bias, float *y, float *restrict scale, float *restrict normalized);

// out[rows, columns] = softmax(scale * in[rows, columns]) with scale > 0. If `causal`, row r sees
// the columns 0 ... first_valid + r and is 0 in the others, whose inputs are not read. An input of
// -inf has weight 0; a row without any other input is 0 everywhere. `out` may be `in`.
void nl_softmax(
  ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t ld_in, const float *in, ptrdiff_t ld_out,
  float *out, float scale, ptrdiff_t first_valid, int causal);

// For each causal row r of scores, whose keys are 0 ... first + r (the last is the query's own), with
// weights p = softmax(scale * scores): inverse[r] = 1 / sum(e) with e = p / max(p), which takes the
// scores' place; between[r] = the weight of the keys after the first and before the query's own;
// entropy[r] = -sum(p ln p). A score that is NaN or +inf makes them NaN.
void nl_pattern_rows(
  ptrdiff_t rows, ptrdiff_t ld, float *scores, float scale, ptrdiff_t first,
  float *restrict inverse, float *restrict between, float *restrict entropy);

// Of a row of logits x[n], n > 0: the index `top` of its largest (the first of equals), how many are
// larger than `target`, and with m = x[top] in double precision sum = sum of exp(x - m) and weighted =
// sum of (x - m) exp(x - m), relative error below 1e-14. A NaN in the row makes both sums NaN.
void nl_logit_row(
  ptrdiff_t n, const float *x, float target, ptrdiff_t *top, ptrdiff_t *larger, double *sum,
  double *weighted);

// For the distributions p = exp(a - log_a) and q = exp(b - log_b) with m = (p + q)/2, in double
// precision: jsd = sum of (p ln(p/m) + q ln(q/m))/2, kl = sum of p ln(p/q), reverse = sum of q ln(q/p);
// all exactly 0 for equal rows.
void nl_divergence_row(
  ptrdiff_t n, const float *a, const float *b, double log_a, double log_b, double *jsd,
  double *kl, double *reverse);

// How a distribution p[n] with log_p = ln p changes when its logits change by
// delta_c = stretch[c] base[n] + shift[c] u[c, n], for each of `changes` changes c. Adds to sums[3 c]:
//   sum p (exp(delta) - 1),  sum p ((exp(delta) - 1) (log_p + delta) + delta),
// and leaves the largest |delta| in the third if it is larger; the sums mean nothing beyond 16.
void nl_softmax_changes(
  ptrdiff_t changes, ptrdiff_t n, const float *restrict log_p, const float *restrict p,
  const float *restrict base, const float *restrict u, ptrdiff_t ldu,
  const float *restrict stretch, const float *restrict shift, double *restrict sums);

// The CRC-32C of data[n], continuing from the checksum `crc` of the bytes before (0 if none).
uint32_t nl_crc32c(uint32_t crc, const void *data, size_t n);

// Works blocks of 64 bytes into the state of a SHA-256; returns 0, and does nothing, on a processor
// without instructions for it.
int nl_sha256(uint32_t state[8], const void *data, size_t blocks);

#endif
