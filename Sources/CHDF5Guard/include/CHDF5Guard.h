#ifndef NORMLENS_CHDF5GUARD_H
#define NORMLENS_CHDF5GUARD_H

#include <stdint.h>

// A trial reading of an HDF5 file in a child process.
//
// HDF5 trusts the metadata of its older formats: a damaged file can crash it, make it loop for ever
// or ask for all memory. The child reads everything that the caller may read later, under limits of
// time and memory; if it dies, the caller has lost nothing.

/// What is looked at, and for how long.
struct nl_guard_limits {
  /// Seconds until the child is ended.
  uint32_t seconds;
  /// Bytes that the child may map beyond what the process has mapped already (Linux only, and not
  /// under AddressSanitizer, which maps terabytes).
  uint64_t memory_bytes;
  /// Bytes of the file, and its identity: the child refuses another file of the same name.
  uint64_t file_bytes;
  uint64_t device;
  uint64_t inode;
  /// The walk's limits: names in a group and objects in all, groups within groups, axes, bytes of a
  /// name and of a path.
  uint64_t objects;
  uint32_t depth;
  uint32_t rank;
  uint32_t name_bytes;
  uint32_t path_bytes;
  /// Larger attributes and arrays are not read, as the caller will refuse them: bytes of an attribute
  /// in memory, bytes of an array however little of it is stored, bytes that one stored byte can
  /// stand for.
  uint64_t attribute_bytes;
  uint64_t sparse_bytes;
  uint64_t expansion;
  /// Bytes of all texts together: more than this means that many texts share one place.
  uint64_t text_bytes;
};

/// How a trial reading has ended.
enum nl_guard_outcome {
  /// The child is still reading, or died without a word.
  NL_GUARD_LOST = 0,
  /// Everything was read.
  NL_GUARD_SOUND = 1,
  /// HDF5 refused to read `object`, or it is beyond a limit: see `reason`.
  NL_GUARD_REFUSED = 2,
  /// The file's name leads to another file by now.
  NL_GUARD_REPLACED = 3,
  /// The child was ended by the signal `detail` while reading `object`.
  NL_GUARD_SIGNAL = 4,
  /// There is no child: `detail` is the system's error number.
  NL_GUARD_NO_CHILD = 5,
};

/// The end of a trial reading. Texts are cut where they are too long, and end with a zero byte.
struct nl_guard_report {
  uint32_t outcome;
  int32_t detail;
  /// The path of the object, perhaps with an attribute.
  char object[9216];
  /// What was expected of it, in a few words; empty if HDF5 failed.
  char expected[128];
  /// What HDF5 says, or what was found.
  char reason[512];
};

// Swift sees no arrays of this length.
static inline const char *nl_guard_object(const struct nl_guard_report *report) {
  return report->object;
}
static inline const char *nl_guard_expected(const struct nl_guard_report *report) {
  return report->expected;
}
static inline const char *nl_guard_reason(const struct nl_guard_report *report) {
  return report->reason;
}

/// Reads the file at `path` in a child process, with the file access property list `access`.
///
/// The caller must hold whatever keeps other threads out of HDF5. The child prints nothing, writes
/// no file and runs none of the program's exit handlers.
void nl_hdf5_guard(
  const char *path, int64_t access, const struct nl_guard_limits *limits,
  struct nl_guard_report *report);

#endif
