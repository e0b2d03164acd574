#ifndef NORMLENS_COPENBLAS_SHIM_H
#define NORMLENS_COPENBLAS_SHIM_H

#include <cblas.h>

// LAPACK's eigenvalues and eigenvectors of a symmetric matrix, which OpenBLAS contains.
void dsyevd_(
  const char *jobz, const char *uplo, const blasint *n, double *a, const blasint *lda, double *w,
  double *work, const blasint *lwork, blasint *iwork, const blasint *liwork, blasint *info);

// LAPACK's Cholesky factor of a positive semidefinite matrix, the largest pivot first.
void dpstrf_(
  const char *uplo, const blasint *n, double *a, const blasint *lda, blasint *pivots,
  blasint *rank, const double *tolerance, double *work, blasint *info);

#endif
