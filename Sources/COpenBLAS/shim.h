#ifndef NORMLENS_COPENBLAS_SHIM_H
#define NORMLENS_COPENBLAS_SHIM_H

#include <cblas.h>

#endif
