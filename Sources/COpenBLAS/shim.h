#ifndef NORMLENS_COPENBLAS_SHIM_H
#define NORMLENS_COPENBLAS_SHIM_H

#include <cblas.h>

// Of LAPACK, which OpenBLAS contains: eigenvalues and eigenvectors of a symmetric matrix.
void dsyevd_(
  const char *jobz, const char *uplo, const blasint *n, double *a, const blasint *lda, double *w,
  double *work, const blasint *lwork, blasint *iwork, const blasint *liwork, blasint *info);

// Eigenvalues and eigenvectors of any square matrix.
void dgeev_(
  const char *jobvl, const char *jobvr, const blasint *n, double *a, const blasint *lda, double *wr,
  double *wi, double *vl, const blasint *ldvl, double *vr, const blasint *ldvr, double *work,
  const blasint *lwork, blasint *info);

// Singular values and vectors.
void dgesdd_(
  const char *jobz, const blasint *m, const blasint *n, double *a, const blasint *lda, double *s,
  double *u, const blasint *ldu, double *vt, const blasint *ldvt, double *work, const blasint *lwork,
  blasint *iwork, blasint *info);

// The factorisation into an orthogonal and an upper triangular matrix.
void dgeqrf_(
  const blasint *m, const blasint *n, double *a, const blasint *lda, double *tau, double *work,
  const blasint *lwork, blasint *info);

// The Cholesky factor of a positive semidefinite matrix, the largest pivot first.
void dpstrf_(
  const char *uplo, const blasint *n, double *a, const blasint *lda, blasint *pivots,
  blasint *rank, const double *tolerance, double *work, blasint *info);

#endif
