// Matrix products with few rows on the left. Such a product is limited by reading the weights, and
// sgemm, which first repacks them, moves each one three times; here each weight comes from memory
// once.
//
// The weights are walked in blocks that fit in the second-level cache. Inside a block a register
// tile of 16 columns by up to `most` rows of y runs down the rows of w, and meanwhile prefetches the
// block that follows. x is transposed first, so that a tile finds its factors side by side.
#include "CKernels.h"
#include "simd.h"

enum {
  BLOCK = 64,      // rows of k that a tile passes over before y is written back
  PANEL = 1024,    // columns of y in a block of nl_skinny_nn: 64 x 1024 weights are 256 KB
  DEPTH = 768,     // rows of k for which nl_skinny_nt keeps x transposed while it walks n
  MOST_ROWS = 28,  // the tallest tile of any instruction set
  PASS_ROWS = 64,  // rows of y in one pass over w, at most
};

NL_INLINE ptrdiff_t min_of(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }
NL_INLINE ptrdiff_t quotient_up(ptrdiff_t a, ptrdiff_t b) { return (a + b - 1) / b; }

// Weights that are needed soon: part of a matrix, walked along its rows a cache line at a time, the
// upper and the lower half side by side. Two sequences of addresses keep more reads in flight than
// one.
typedef struct {
  const char *at;
  ptrdiff_t other;  // bytes from a line to its counterpart in the lower half
  ptrdiff_t left;   // lines left in this row
  ptrdiff_t width;  // lines in a row
  ptrdiff_t skip;   // bytes from the end of a row to the start of the next
  ptrdiff_t step;   // bytes from a line to the next
} Ahead;

NL_INLINE Ahead ahead_of(const float *w, ptrdiff_t ldw, ptrdiff_t rows, ptrdiff_t columns) {
  const ptrdiff_t scalar = sizeof(float), width = quotient_up(columns, LANES);
  return (Ahead){
    .at = (const char *)w, .other = quotient_up(rows, 2) * ldw * scalar, .left = width,
    .width = width, .skip = (ldw - width * LANES) * scalar, .step = LANES * scalar,
  };
}

// Fetches the same line for ever.
NL_INLINE Ahead nothing_ahead(const float *w) {
  return (Ahead){.at = (const char *)w, .left = PTRDIFF_MAX, .width = PTRDIFF_MAX};
}

NL_INLINE void fetch(Ahead *ahead) {
  __builtin_prefetch(ahead->at);
  __builtin_prefetch(ahead->at + ahead->other);
  ahead->at += ahead->step;
  if (--ahead->left == 0) {
    ahead->left = ahead->width;
    ahead->at += ahead->skip;
  }
}

// y[rows, 16] += xt[depth, rows]^T w[depth, 16], summed in registers: `rows` is a constant wherever
// this is inlined.
NL_INLINE void tile(
  const int rows, ptrdiff_t depth, const float *restrict xt, ptrdiff_t ldxt,
  const float *restrict w, ptrdiff_t ldw, float *restrict y, ptrdiff_t ldy,
  Ahead *restrict next) {
#pragma clang fp contract(fast)
  f16 sum[MOST_ROWS], weights;
  Ahead ahead = *next;
#pragma clang loop unroll(full)
  for (int r = 0; r < rows; r++) sum[r] = (f16){0};
  for (ptrdiff_t i = 0; i < depth; i++) {
    if (i % 2 == 0) fetch(&ahead);
    load(&weights, w);
#pragma clang loop unroll(full)
    for (int r = 0; r < rows; r++) sum[r] += weights * xt[r];
    w += ldw;
    xt += ldxt;
  }
#pragma clang loop unroll(full)
  for (int r = 0; r < rows; r++) {
    f16 before;
    load(&before, y + r * ldy);
    sum[r] += before;
    store(y + r * ldy, &sum[r]);
  }
  *next = ahead;
}

typedef void Tile(
  int rows, ptrdiff_t depth, const float *restrict xt, ptrdiff_t ldxt, const float *restrict w,
  ptrdiff_t ldw, float *restrict y, ptrdiff_t ldy, Ahead *restrict next);

// out[c, r] = from[r, c] for r < 16, with `stride` floats between the rows of `out`. Lanes past
// `rows` (1 to 16) repeat the last row, so that no row is read that does not exist.
NL_INLINE void transpose(
  ptrdiff_t rows, ptrdiff_t columns, const float *restrict from, ptrdiff_t ld,
  float *restrict out, ptrdiff_t stride) {
  ptrdiff_t c = 0;
  for (; c + LANES <= columns; c += LANES) {
    f16 a[LANES], b[LANES];
#pragma clang loop unroll(full)
    for (int r = 0; r < LANES; r++) load(&a[r], from + min_of(r, rows - 1) * ld + c);
#pragma clang loop unroll(full)
    for (int r = 0; r < LANES; r += 2) {
      b[r] = __builtin_shufflevector(
        a[r], a[r + 1], 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29);
      b[r + 1] = __builtin_shufflevector(
        a[r], a[r + 1], 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31);
    }
#pragma clang loop unroll(full)
    for (int r = 0; r < LANES; r += 4) {
#pragma clang loop unroll(full)
      for (int i = 0; i < 2; i++) {
        a[r + 2 * i] = __builtin_shufflevector(
          b[r + i], b[r + 2 + i], 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29);
        a[r + 2 * i + 1] = __builtin_shufflevector(
          b[r + i], b[r + 2 + i], 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
      }
    }
    // a[4g + i] now holds columns i, i+4, i+8, i+12 of rows 4g .. 4g+3, four lanes each.
#pragma clang loop unroll(full)
    for (int i = 0; i < 4; i++) {
      f16 low01 = __builtin_shufflevector(
        a[i], a[4 + i], 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27);
      f16 high01 = __builtin_shufflevector(
        a[i], a[4 + i], 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31);
      f16 low23 = __builtin_shufflevector(
        a[8 + i], a[12 + i], 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27);
      f16 high23 = __builtin_shufflevector(
        a[8 + i], a[12 + i], 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31);
      b[i] = __builtin_shufflevector(
        low01, low23, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23);
      b[4 + i] = __builtin_shufflevector(
        high01, high23, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23);
      b[8 + i] = __builtin_shufflevector(
        low01, low23, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
      b[12 + i] = __builtin_shufflevector(
        high01, high23, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
    }
#pragma clang loop unroll(full)
    for (int r = 0; r < LANES; r++) store(out + (c + r) * stride, &b[r]);
  }
  for (; c < columns; c++) {
    for (int r = 0; r < LANES; r++) out[c * stride + r] = from[min_of(r, rows - 1) * ld + c];
  }
}

// xt[c, r] = x[r, c], with the rows of xt filled up to a multiple of 16.
NL_INLINE void transpose_rows(
  ptrdiff_t rows, ptrdiff_t columns, const float *restrict x, ptrdiff_t ldx, float *restrict xt,
  ptrdiff_t ldxt) {
  for (ptrdiff_t r = 0; r < rows; r += LANES) {
    transpose(min_of(LANES, rows - r), columns, x + r * ldx, ldx, xt + r, ldxt);
  }
}

// y[m, n] = bias, or 0.
NL_INLINE void start(
  ptrdiff_t m, ptrdiff_t n, const float *restrict bias, float *restrict y, ptrdiff_t ldy) {
  for (ptrdiff_t r = 0; r < m; r++) {
    if (bias) {
      memcpy(y + r * ldy, bias, (size_t)n * sizeof(float));
    } else {
      memset(y + r * ldy, 0, (size_t)n * sizeof(float));
    }
  }
}

// y[m, columns] += xt^T w for up to 16 columns, in tiles of `height` rows. w has 16 readable columns
// in any case; where y has fewer, the tiles work on a copy.
NL_INLINE void stack(
  Tile *run, ptrdiff_t m, ptrdiff_t height, ptrdiff_t columns, ptrdiff_t depth,
  const float *restrict xt, ptrdiff_t ldxt, const float *restrict w, ptrdiff_t ldw,
  float *restrict y, ptrdiff_t ldy, Ahead *restrict next) {
  Ahead nothing = nothing_ahead(xt);
  for (ptrdiff_t r = 0; r < m; r += height) {
    int rows = (int)min_of(height, m - r);
    float *out = y + r * ldy;
    // The first tile fetches for the whole stack.
    Ahead *ahead = r == 0 ? next : &nothing;
    if (columns == LANES) {
      run(rows, depth, xt + r, ldxt, w, ldw, out, ldy, ahead);
    } else {
      float copy[MOST_ROWS * LANES] = {0};
      for (int i = 0; i < rows; i++) {
        memcpy(copy + i * LANES, out + i * ldy, (size_t)columns * sizeof(float));
      }
      run(rows, depth, xt + r, ldxt, w, ldw, copy, LANES, ahead);
      for (int i = 0; i < rows; i++) {
        memcpy(out + i * ldy, copy + i * LANES, (size_t)columns * sizeof(float));
      }
    }
  }
}

// The height of tiles, at most `most`, that divides `rows` most evenly.
NL_INLINE ptrdiff_t even_height(ptrdiff_t rows, ptrdiff_t most) {
  return quotient_up(rows, quotient_up(rows, most));
}

// Rows of y in one pass over w: whole tiles.
NL_INLINE ptrdiff_t pass_rows(ptrdiff_t most) { return PASS_ROWS / most * most; }

// One pass over the weights w[k, n] for at most PASS_ROWS rows.
NL_INLINE void nn_pass(
  Tile *run, const ptrdiff_t most, ptrdiff_t m, ptrdiff_t n, ptrdiff_t k,
  const float *restrict x, ptrdiff_t ldx, const float *restrict w, ptrdiff_t ldw,
  const float *restrict bias, float *restrict y, ptrdiff_t ldy) {
  float xt[BLOCK * PASS_ROWS], edge[BLOCK * LANES];
  const ptrdiff_t height = even_height(m, most), ldxt = quotient_up(m, LANES) * LANES;
  for (ptrdiff_t left = 0; left < n; left += PANEL) {
    const ptrdiff_t columns = min_of(PANEL, n - left);
    start(m, columns, bias ? bias + left : NULL, y + left, ldy);
    for (ptrdiff_t top = 0; top < k; top += BLOCK) {
      const ptrdiff_t depth = min_of(BLOCK, k - top), below = k - top - depth;
      const float *block = w + top * ldw + left;
      Ahead next = nothing_ahead(block);
      if (below > 0) {
        next = ahead_of(block + BLOCK * ldw, ldw, min_of(BLOCK, below), columns);
      } else if (left + PANEL < n) {
        next = ahead_of(
          w + left + PANEL, ldw, min_of(BLOCK, k), min_of(PANEL, n - left - PANEL));
      }
      transpose_rows(m, depth, x + top, ldx, xt, ldxt);
      for (ptrdiff_t j = 0; j < columns; j += LANES) {
        const ptrdiff_t width = min_of(LANES, columns - j);
        const float *part = block + j;
        ptrdiff_t ldpart = ldw;
        if (width < LANES) {
          // A whole tile would read past the end of w.
          memset(edge, 0, sizeof edge);
          for (ptrdiff_t i = 0; i < depth; i++) {
            memcpy(edge + i * LANES, part + i * ldw, (size_t)width * sizeof(float));
          }
          part = edge;
          ldpart = LANES;
        }
        stack(
          run, m, height, width, depth, xt, ldxt, part, ldpart, y + left + j, ldy, &next);
      }
    }
  }
}

// One pass over the weights w[n, k] for at most PASS_ROWS rows.
NL_INLINE void nt_pass(
  Tile *run, const ptrdiff_t most, ptrdiff_t m, ptrdiff_t n, ptrdiff_t k,
  const float *restrict x, ptrdiff_t ldx, const float *restrict w, ptrdiff_t ldw,
  const float *restrict bias, float *restrict y, ptrdiff_t ldy) {
  float xt[DEPTH * PASS_ROWS], part[BLOCK * LANES];
  const ptrdiff_t height = even_height(m, most), ldxt = quotient_up(m, LANES) * LANES;
  if (k == 0) start(m, n, bias, y, ldy);
  for (ptrdiff_t left = 0; left < k; left += DEPTH) {
    const ptrdiff_t columns = min_of(DEPTH, k - left);
    transpose_rows(m, columns, x + left, ldx, xt, ldxt);
    for (ptrdiff_t j = 0; j < n; j += LANES) {
      const ptrdiff_t width = min_of(LANES, n - j);
      const float *rows = w + j * ldw + left;
      if (left == 0) start(m, width, bias ? bias + j : NULL, y + j, ldy);
      Ahead next = nothing_ahead(rows);
      if (j + LANES < n) {
        next = ahead_of(rows + LANES * ldw, ldw, min_of(LANES, n - j - LANES), columns);
      }
      for (ptrdiff_t i = 0; i < columns; i += BLOCK) {
        const ptrdiff_t depth = min_of(BLOCK, columns - i);
        transpose(width, depth, rows + i, ldw, part, LANES);
        stack(
          run, m, height, width, depth, xt + i * ldxt, ldxt, part, LANES, y + j, ldy, &next);
      }
    }
  }
}

#define ROWS_CASE(count)                                                                     \
  case count: tile(count, depth, xt, ldxt, w, ldw, y, ldy, next); break;
#define ROWS_TO_3 ROWS_CASE(1) ROWS_CASE(2) ROWS_CASE(3)
#define ROWS_TO_6 ROWS_TO_3 ROWS_CASE(4) ROWS_CASE(5) ROWS_CASE(6)
#define ROWS_TO_28                                                                           \
  ROWS_TO_6 ROWS_CASE(7) ROWS_CASE(8) ROWS_CASE(9) ROWS_CASE(10) ROWS_CASE(11)               \
  ROWS_CASE(12) ROWS_CASE(13) ROWS_CASE(14) ROWS_CASE(15) ROWS_CASE(16) ROWS_CASE(17)        \
  ROWS_CASE(18) ROWS_CASE(19) ROWS_CASE(20) ROWS_CASE(21) ROWS_CASE(22) ROWS_CASE(23)        \
  ROWS_CASE(24) ROWS_CASE(25) ROWS_CASE(26) ROWS_CASE(27) ROWS_CASE(28)

// Both products for one instruction set, whose registers hold tiles of `most` rows.
#define INSTANTIATE(name, attributes, most)                                                  \
  attributes static void tile_##name(                                                        \
    int rows, ptrdiff_t depth, const float *restrict xt, ptrdiff_t ldxt,                     \
    const float *restrict w, ptrdiff_t ldw, float *restrict y, ptrdiff_t ldy,                \
    Ahead *restrict next) {                                                                  \
    switch (rows) { ROWS_TO_##most }                                                         \
  }                                                                                          \
  attributes static void nn_##name(                                                          \
    ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const float *restrict x, ptrdiff_t ldx,           \
    const float *restrict w, ptrdiff_t ldw, const float *restrict bias, float *restrict y,   \
    ptrdiff_t ldy) {                                                                         \
    for (ptrdiff_t r = 0, step = pass_rows(most); r < m; r += step) {                        \
      nn_pass(                                                                               \
        tile_##name, most, min_of(step, m - r), n, k, x + r * ldx, ldx, w, ldw, bias,        \
        y + r * ldy, ldy);                                                                   \
    }                                                                                        \
  }                                                                                          \
  attributes static void nt_##name(                                                          \
    ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const float *restrict x, ptrdiff_t ldx,           \
    const float *restrict w, ptrdiff_t ldw, const float *restrict bias, float *restrict y,   \
    ptrdiff_t ldy) {                                                                         \
    for (ptrdiff_t r = 0, step = pass_rows(most); r < m; r += step) {                        \
      nt_pass(                                                                               \
        tile_##name, most, min_of(step, m - r), n, k, x + r * ldx, ldx, w, ldw, bias,        \
        y + r * ldy, ldy);                                                                   \
    }                                                                                        \
  }

#ifdef __x86_64__
// Without min_vector_width clang would split the vectors in two for x86-64-v4.
INSTANTIATE(avx512, __attribute__((target("arch=x86-64-v4"), min_vector_width(512))), 28)
INSTANTIATE(avx2, __attribute__((target("arch=x86-64-v3"))), 6)
INSTANTIATE(portable, , 3)
#else
INSTANTIATE(portable, , 6)
#endif

int nl_simd_width(void) {
#ifdef __x86_64__
  if (__builtin_cpu_supports("x86-64-v4")) return 16;
  if (__builtin_cpu_supports("x86-64-v3")) return 8;
#endif
  return 4;
}

void nl_skinny_nn(
  ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const float *restrict x, ptrdiff_t ldx,
  const float *restrict w, ptrdiff_t ldw, const float *restrict bias, float *restrict y,
  ptrdiff_t ldy) {
  switch (nl_simd_width()) {
#ifdef __x86_64__
    case 16: nn_avx512(m, n, k, x, ldx, w, ldw, bias, y, ldy); break;
    case 8: nn_avx2(m, n, k, x, ldx, w, ldw, bias, y, ldy); break;
#endif
    default: nn_portable(m, n, k, x, ldx, w, ldw, bias, y, ldy);
  }
}

void nl_skinny_nt(
  ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const float *restrict x, ptrdiff_t ldx,
  const float *restrict w, ptrdiff_t ldw, const float *restrict bias, float *restrict y,
  ptrdiff_t ldy) {
  switch (nl_simd_width()) {
#ifdef __x86_64__
    case 16: nt_avx512(m, n, k, x, ldx, w, ldw, bias, y, ldy); break;
    case 8: nt_avx2(m, n, k, x, ldx, w, ldw, bias, y, ldy); break;
#endif
    default: nt_portable(m, n, k, x, ldx, w, ldw, bias, y, ldy);
  }
}
