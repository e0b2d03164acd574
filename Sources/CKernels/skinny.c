// Matrix products with few rows on the left. Such a product is limited by reading the weights, and
// sgemm, which first repacks them, moves each one three times; here each weight comes from memory
// once.
//
// The weights are walked in blocks that fit in the second-level cache. Inside a block a register
// tile of 16 columns by up to `most` rows of y runs down the rows of w and prefetches the
// block that follows. x is transposed first, so that a tile finds its factors side by side.
#include "CKernels.h"
#include "simd.h"

enum {
  BLOCK = 32,      // rows of k that a tile passes over before y is written back
  PANEL = 2048,    // columns of y in a block of nl_skinny_nn: 32 x 2048 weights are 256 KB
  DEPTH = 768,     // rows of k for which nl_skinny_nt keeps x transposed while it walks n
  MOST_ROWS = 28,  // the tallest tile of any instruction set
  PASS_ROWS = 64,  // rows of y in one pass over w, at most
  QUARTERS = 4,    // sequences of prefetches
};

NL_INLINE ptrdiff_t min_of(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }
NL_INLINE ptrdiff_t quotient_up(ptrdiff_t a, ptrdiff_t b) { return (a + b - 1) / b; }

// Weights that are needed soon: part of a matrix, walked along its rows, its four quarters side by
// side. One sequence of addresses would not keep enough reads in flight.
typedef struct {
  const char *at;
  ptrdiff_t quarter;  // bytes from a place to its counterpart in the next quarter
  ptrdiff_t step;     // bytes
  ptrdiff_t left;     // steps left in this row
  ptrdiff_t width;    // steps in a row
  ptrdiff_t skip;     // bytes from the end of a row to the start of the next
} Ahead;

// The walk is spread over a stack of `tiles`: a step is a cache line, or the fraction of one that
// makes the whole stack advance by as many lines as it reads.
NL_INLINE Ahead ahead_of(
  const float *w, ptrdiff_t ldw, ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t tiles) {
  const ptrdiff_t scalar = sizeof(float), step = LANES * scalar / tiles;
  const ptrdiff_t width = quotient_up(columns * scalar, step);
  return (Ahead){
    .at = (const char *)w, .quarter = quotient_up(rows, QUARTERS) * ldw * scalar, .step = step,
    .left = width, .width = width, .skip = ldw * scalar - width * step,
  };
}

// Fetches the same line for ever.
NL_INLINE Ahead nothing_ahead(const float *w) {
  return (Ahead){.at = (const char *)w, .left = PTRDIFF_MAX, .width = PTRDIFF_MAX};
}

NL_INLINE void fetch(Ahead *ahead) {
#pragma clang loop unroll(full)
  for (int i = 0; i < QUARTERS; i++) {
    // Into the second-level cache: the first has no room for a block.
    __builtin_prefetch(ahead->at + i * ahead->quarter, 0, 2);
  }
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
    if (i % QUARTERS == 0) fetch(&ahead);
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

typedef float f4 __attribute__((vector_size(16)));
typedef float f8 __attribute__((vector_size(32)));

// In each quarter of two vectors: the lower or upper two lanes of both, alternating or in a row.
#define INTERLEAVE_LOW(a, b) \
  __builtin_shufflevector(a, b, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29)
#define INTERLEAVE_HIGH(a, b) \
  __builtin_shufflevector(a, b, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31)
#define JOIN_LOW(a, b) \
  __builtin_shufflevector(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29)
#define JOIN_HIGH(a, b) \
  __builtin_shufflevector(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31)

// Four floats from each of four places.
NL_INLINE void gather(f16 *v, const float *from[4]) {
  f4 part[4];
  for (int i = 0; i < 4; i++) memcpy(&part[i], from[i], sizeof part[i]);
  f8 low = __builtin_shufflevector(part[0], part[1], 0, 1, 2, 3, 4, 5, 6, 7);
  f8 high = __builtin_shufflevector(part[2], part[3], 0, 1, 2, 3, 4, 5, 6, 7);
  *v = __builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}

// out[c, r] = from[r, c] for r < 16, with `stride` floats between the rows of `out`. Lanes past
// `rows` (1 to 16) repeat the last row, so that no row is read that does not exist.
NL_INLINE void transpose(
  ptrdiff_t rows, ptrdiff_t columns, const float *restrict from, ptrdiff_t ld,
  float *restrict out, ptrdiff_t stride) {
  const float *row[LANES];
  for (int r = 0; r < LANES; r++) row[r] = from + min_of(r, rows - 1) * ld;
  ptrdiff_t c = 0;
  for (; c + 4 <= columns; c += 4) {
    // Quarter q of a[r] holds four columns of row 4q + r; what remains is to transpose 4 x 4 numbers
    // inside each quarter.
    f16 a[4];
#pragma clang loop unroll(full)
    for (int r = 0; r < 4; r++) {
      gather(&a[r], (const float *[]){row[r] + c, row[4 + r] + c, row[8 + r] + c, row[12 + r] + c});
    }
    f16 low01 = INTERLEAVE_LOW(a[0], a[1]), high01 = INTERLEAVE_HIGH(a[0], a[1]);
    f16 low23 = INTERLEAVE_LOW(a[2], a[3]), high23 = INTERLEAVE_HIGH(a[2], a[3]);
    a[0] = JOIN_LOW(low01, low23);
    a[1] = JOIN_HIGH(low01, low23);
    a[2] = JOIN_LOW(high01, high23);
    a[3] = JOIN_HIGH(high01, high23);
#pragma clang loop unroll(full)
    for (int i = 0; i < 4; i++) store(out + (c + i) * stride, &a[i]);
  }
  for (; c < columns; c++) {
    for (int r = 0; r < LANES; r++) out[c * stride + r] = row[r][c];
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

// y[m, columns] += xt^T w for up to 16 columns, in a stack of tiles of `height` rows. w has 16
// readable columns in any case; where y has fewer, the tiles work on a copy.
NL_INLINE void stack(
  Tile *run, ptrdiff_t m, ptrdiff_t height, ptrdiff_t columns, ptrdiff_t depth,
  const float *restrict xt, ptrdiff_t ldxt, const float *restrict w, ptrdiff_t ldw,
  float *restrict y, ptrdiff_t ldy, Ahead *restrict next) {
  for (ptrdiff_t r = 0; r < m; r += height) {
    int rows = (int)min_of(height, m - r);
    float *out = y + r * ldy;
    if (columns == LANES) {
      run(rows, depth, xt + r, ldxt, w, ldw, out, ldy, next);
    } else {
      float copy[MOST_ROWS * LANES] = {0};
      for (int i = 0; i < rows; i++) {
        memcpy(copy + i * LANES, out + i * ldy, (size_t)columns * sizeof(float));
      }
      run(rows, depth, xt + r, ldxt, w, ldw, copy, LANES, next);
      for (int i = 0; i < rows; i++) {
        memcpy(out + i * ldy, copy + i * LANES, (size_t)columns * sizeof(float));
      }
    }
  }
}

// Rows of y in one pass over w: whole tiles.
NL_INLINE ptrdiff_t pass_rows(ptrdiff_t most) { return PASS_ROWS / most * most; }

// One pass over the weights w[k, n] for at most PASS_ROWS rows.
NL_INLINE void nn_pass(
  Tile *run, const ptrdiff_t most, ptrdiff_t m, ptrdiff_t n, ptrdiff_t k,
  const float *restrict x, ptrdiff_t ldx, const float *restrict w, ptrdiff_t ldw,
  const float *restrict bias, float *restrict y, ptrdiff_t ldy) {
  float xt[BLOCK * PASS_ROWS], edge[BLOCK * LANES];
  const ptrdiff_t tiles = quotient_up(m, most), height = quotient_up(m, tiles);
  const ptrdiff_t ldxt = quotient_up(m, LANES) * LANES;
  for (ptrdiff_t left = 0; left < n; left += PANEL) {
    const ptrdiff_t columns = min_of(PANEL, n - left);
    start(m, columns, bias ? bias + left : NULL, y + left, ldy);
    for (ptrdiff_t top = 0; top < k; top += BLOCK) {
      const ptrdiff_t depth = min_of(BLOCK, k - top), below = k - top - depth;
      const float *block = w + top * ldw + left;
      Ahead next = nothing_ahead(block);
      if (below > 0) {
        next = ahead_of(block + BLOCK * ldw, ldw, min_of(BLOCK, below), columns, tiles);
      } else if (left + PANEL < n) {
        next = ahead_of(
          w + left + PANEL, ldw, min_of(BLOCK, k), min_of(PANEL, n - left - PANEL), tiles);
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
  const ptrdiff_t tiles = quotient_up(m, most), height = quotient_up(m, tiles);
  const ptrdiff_t ldxt = quotient_up(m, LANES) * LANES;
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
        next = ahead_of(
          rows + LANES * ldw, ldw, min_of(LANES, n - j - LANES), columns, tiles);
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
