#ifndef NORMLENS_CHDF5_SHIM_H
#define NORMLENS_CHDF5_SHIM_H

#include <hdf5.h>
#include <hdf5_hl.h>

// Most HDF5 constants are macros that call H5open() first, which Swift does not import; a few are
// imported, but as Int32 instead of hid_t. Each one that NormLens needs is a function here.

// Defaults and limits.
static inline hid_t nl_H5P_DEFAULT(void) { return H5P_DEFAULT; }
static inline hid_t nl_H5S_ALL(void) { return H5S_ALL; }
static inline hid_t nl_H5E_DEFAULT(void) { return H5E_DEFAULT; }
static inline size_t nl_H5T_VARIABLE(void) { return H5T_VARIABLE; }
static inline haddr_t nl_HADDR_UNDEF(void) { return HADDR_UNDEF; }

// File access flags.
static inline unsigned nl_H5F_ACC_RDONLY(void) { return H5F_ACC_RDONLY; }
static inline unsigned nl_H5F_ACC_TRUNC(void) { return H5F_ACC_TRUNC; }

// Property list classes.
static inline hid_t nl_H5P_FILE_CREATE(void) { return H5P_FILE_CREATE; }
static inline hid_t nl_H5P_FILE_ACCESS(void) { return H5P_FILE_ACCESS; }
static inline hid_t nl_H5P_GROUP_CREATE(void) { return H5P_GROUP_CREATE; }
static inline hid_t nl_H5P_DATASET_CREATE(void) { return H5P_DATASET_CREATE; }
static inline hid_t nl_H5P_DATASET_ACCESS(void) { return H5P_DATASET_ACCESS; }
static inline unsigned nl_H5P_CRT_ORDER(void) {
  return H5P_CRT_ORDER_TRACKED | H5P_CRT_ORDER_INDEXED;
}

// Types in files: little-endian.
static inline hid_t nl_H5T_IEEE_F32LE(void) { return H5T_IEEE_F32LE; }
static inline hid_t nl_H5T_IEEE_F64LE(void) { return H5T_IEEE_F64LE; }
static inline hid_t nl_H5T_STD_U8LE(void) { return H5T_STD_U8LE; }
static inline hid_t nl_H5T_STD_I32LE(void) { return H5T_STD_I32LE; }
static inline hid_t nl_H5T_STD_U32LE(void) { return H5T_STD_U32LE; }
static inline hid_t nl_H5T_STD_I64LE(void) { return H5T_STD_I64LE; }
static inline hid_t nl_H5T_C_S1(void) { return H5T_C_S1; }

// Types in memory.
static inline hid_t nl_H5T_NATIVE_FLOAT(void) { return H5T_NATIVE_FLOAT; }
static inline hid_t nl_H5T_NATIVE_DOUBLE(void) { return H5T_NATIVE_DOUBLE; }
static inline hid_t nl_H5T_NATIVE_INT64(void) { return H5T_NATIVE_INT64; }
static inline hid_t nl_H5T_NATIVE_UINT64(void) { return H5T_NATIVE_UINT64; }
static inline hid_t nl_H5T_NATIVE_UINT8(void) { return H5T_NATIVE_UINT8; }

// Filters.
static inline unsigned nl_H5Z_FILTER_CONFIG_DECODE_ENABLED(void) {
  return H5Z_FILTER_CONFIG_DECODE_ENABLED;
}

// H5Lget_info and its struct have several versions behind one macro; the type is all we ask for.
// Returns the H5L_type_t, or -1.
static inline int nl_link_type(hid_t location, const char *name) {
  H5L_info_t info;
  return H5Lget_info(location, name, &info, H5P_DEFAULT) < 0 ? -1 : (int)info.type;
}

#endif
