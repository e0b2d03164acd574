// The hot kernels that a profile asked for. No allocation, no globals, no threads.
#ifndef NORMLENS_CKERNELS_H
#define NORMLENS_CKERNELS_H

#include <stddef.h>
#include <stdint.h>

#endif
