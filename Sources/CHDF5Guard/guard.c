// Trial readings: see CHDF5Guard.h. Everything from `read_file` up runs in the child, between fork
// and _exit, and calls HDF5 and the C library only: neither Swift's runtime nor anything that other
// threads of the parent may have held a lock of (glibc keeps malloc usable across fork).

#define _GNU_SOURCE

#include "CHDF5Guard.h"

#include <errno.h>
#include <fcntl.h>
#include <hdf5.h>
#include <hdf5_hl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef __linux__
#include <sys/prctl.h>
#endif
#ifdef __GLIBC__
#include <malloc.h>
#endif

#if defined(__SANITIZE_ADDRESS__)
#define NL_ADDRESS_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define NL_ADDRESS_SANITIZER 1
#endif
#endif

// Bytes that are read at once, and texts.
static const uint64_t piece_bytes = 4 << 20;
static const uint64_t piece_texts = 1 << 16;
// Bytes of a chunk that is read at once although the file is smaller.
static const uint64_t whole_bytes = 16 << 20;

// A walk: its limits, where it is, and what it has seen so far. The path lies in the report, which
// the parent sees even if the child crashes in the next line.
struct walk {
  const struct nl_guard_limits *limits;
  struct nl_guard_report *report;
  size_t path_length;
  uint64_t objects;
  uint64_t text_bytes;
};

// MARK: Failures

static void copy_text(char *target, size_t size, const char *text) {
  size_t length = strnlen(text, size - 1);
  memcpy(target, text, length);
  target[length] = 0;
}

static herr_t keep_deepest(unsigned depth, const H5E_error2_t *entry, void *target) {
  if (depth == 0 && entry->desc) copy_text(target, 512, entry->desc);
  return 0;
}

/// HDF5 has just failed.
static bool failed(struct walk *walk) {
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_deepest, walk->report->reason);
  if (walk->report->outcome == NL_GUARD_LOST) walk->report->outcome = NL_GUARD_REFUSED;
  return false;
}

/// Something is beyond a limit.
static bool exceeded(struct walk *walk, uint64_t limit, const char *what) {
  snprintf(
    walk->report->expected, sizeof walk->report->expected, "at most %llu %s",
    (unsigned long long)limit, what);
  copy_text(walk->report->reason, sizeof walk->report->reason, "more");
  walk->report->outcome = NL_GUARD_REFUSED;
  return false;
}

// MARK: Values

struct extents {
  int rank;
  hsize_t sizes[H5S_MAX_RANK];
  uint64_t count;
  bool fits;
};

static bool get_extents(struct walk *walk, hid_t space, struct extents *extents) {
  H5S_class_t class = H5Sget_simple_extent_type(space);
  *extents = (struct extents){.rank = 0, .count = class == H5S_NULL ? 0 : 1, .fits = true};
  if (class == H5S_SCALAR || class == H5S_NULL) return true;
  int rank = class == H5S_SIMPLE ? H5Sget_simple_extent_ndims(space) : -1;
  if (rank < 0 || rank > H5S_MAX_RANK) return failed(walk);
  if (rank > (int)walk->limits->rank) return exceeded(walk, walk->limits->rank, "axes");
  if (H5Sget_simple_extent_dims(space, extents->sizes, NULL) != rank) return failed(walk);
  extents->rank = rank;
  for (int axis = 0; axis < rank; axis++) {
    if (__builtin_mul_overflow(extents->count, extents->sizes[axis], &extents->count)) {
      extents->fits = false;
    }
  }
  return true;
}

/// The type as which the caller may read values of `type`; -1 if it reads none of this kind.
static hid_t memory_type(hid_t type) {
  switch (H5Tget_class(type)) {
  case H5T_FLOAT: return H5Tequal(type, H5T_IEEE_F32LE) > 0 ? H5T_NATIVE_FLOAT : H5T_NATIVE_DOUBLE;
  case H5T_INTEGER: return H5Tget_sign(type) == H5T_SGN_2 ? H5T_NATIVE_INT64 : H5T_NATIVE_UINT64;
  case H5T_STRING: return type;
  default: return -1;
  }
}

/// Adds the lengths of texts that HDF5 has allocated.
static bool count_texts(struct walk *walk, char *const *texts, uint64_t count) {
  for (uint64_t index = 0; index < count; index++) {
    if (texts[index]) walk->text_bytes += strlen(texts[index]);
  }
  if (walk->text_bytes <= walk->limits->text_bytes) return true;
  return exceeded(walk, walk->limits->text_bytes, "bytes of text in a file of this size");
}

static bool read_attribute_values(struct walk *walk, hid_t attribute, hid_t type, hid_t space) {
  struct extents extents;
  if (!get_extents(walk, space, &extents)) return false;
  hid_t memory = memory_type(type);
  if (memory < 0 || !extents.fits || extents.count == 0) return true;
  size_t size = H5Tget_size(memory);
  if (size == 0) return failed(walk);
  uint64_t bytes;
  // The caller refuses these without reading them.
  if (__builtin_mul_overflow(extents.count, size, &bytes)) return true;
  if (bytes > walk->limits->attribute_bytes) return true;
  void *values = calloc(1, bytes);
  if (!values) return exceeded(walk, walk->limits->memory_bytes, "bytes of memory");
  bool done = H5Aread(attribute, memory, values) >= 0 || failed(walk);
  if (done && H5Tis_variable_str(type) > 0) {
    done = count_texts(walk, values, extents.count);
    if (H5Dvlen_reclaim(type, space, H5P_DEFAULT, values) < 0) done = failed(walk);
  }
  free(values);
  return done;
}

static bool read_attribute(struct walk *walk, hid_t object, H5_index_t index, hsize_t position) {
  hid_t attribute =
    H5Aopen_by_idx(object, ".", index, H5_ITER_INC, position, H5P_DEFAULT, H5P_DEFAULT);
  if (attribute < 0) return failed(walk);
  char *object_text = walk->report->object;
  ssize_t length = H5Aget_name(attribute, 0, NULL);
  if (length <= 0) return failed(walk);
  if (length > walk->limits->name_bytes) {
    return exceeded(walk, walk->limits->name_bytes, "bytes in an attribute's name");
  }
  memcpy(object_text + walk->path_length, " attribute '", 12);
  char *name = object_text + walk->path_length + 12;
  if (H5Aget_name(attribute, (size_t)length + 1, name) != length) return failed(walk);
  memcpy(name + length, "'", 2);
  hid_t type = H5Aget_type(attribute);
  hid_t space = H5Aget_space(attribute);
  if (type < 0 || space < 0) return failed(walk);
  if (!read_attribute_values(walk, attribute, type, space)) return false;
  H5Sclose(space);
  H5Tclose(type);
  H5Aclose(attribute);
  object_text[walk->path_length] = 0;
  return true;
}

static bool read_attributes(struct walk *walk, hid_t object, hid_t creation) {
  unsigned flags = 0;
  H5_index_t index =
    H5Pget_attr_creation_order(creation, &flags) >= 0
        && (flags & H5P_CRT_ORDER_TRACKED) && (flags & H5P_CRT_ORDER_INDEXED)
      ? H5_INDEX_CRT_ORDER : H5_INDEX_NAME;
  int count = H5Aget_num_attrs(object);
  if (count < 0) return failed(walk);
  if ((uint64_t)count > walk->limits->objects) {
    return exceeded(walk, walk->limits->objects, "attributes");
  }
  for (int position = 0; position < count; position++) {
    if (!read_attribute(walk, object, index, (hsize_t)position)) return false;
  }
  return true;
}

// MARK: Arrays

/// The block in which an array is read: a chunk (all of it where there are none), cut or grown along
/// the last axes to at most `most` scalars.
static void choose_block(
  const struct extents *extents, const hsize_t *chunk, uint64_t most, hsize_t *block
) {
  uint64_t count = 1;
  for (int axis = extents->rank - 1; axis >= 0; axis--) {
    hsize_t size = chunk && chunk[axis] < extents->sizes[axis] ? chunk[axis] : extents->sizes[axis];
    if (size > most / count) size = most / count;
    block[axis] = size > 0 ? size : 1;
    count *= block[axis];
  }
  for (int axis = extents->rank - 1; axis >= 0; axis--) {
    uint64_t times = most / count;
    if (times < 2 || block[axis] >= extents->sizes[axis]) continue;
    hsize_t room = (extents->sizes[axis] + block[axis] - 1) / block[axis];
    uint64_t factor = times < room ? times : room;
    count *= factor;
    block[axis] *= factor;
  }
}

static bool read_block(
  struct walk *walk, hid_t dataset, hid_t type, hid_t memory, hid_t space, int rank,
  const hsize_t *start, const hsize_t *count, void *values
) {
  hid_t target = H5S_ALL;
  hid_t source = H5S_ALL;
  uint64_t scalars = 1;
  if (rank > 0) {
    for (int axis = 0; axis < rank; axis++) scalars *= count[axis];
    hsize_t extent = scalars;
    if (H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, count, NULL) < 0) {
      return failed(walk);
    }
    source = space;
    target = H5Screate_simple(1, &extent, NULL);
  } else {
    target = H5Screate(H5S_SCALAR);
  }
  if (target < 0) return failed(walk);
  bool done = H5Dread(dataset, memory, target, source, H5P_DEFAULT, values) >= 0 || failed(walk);
  if (done && H5Tis_variable_str(type) > 0) {
    done = count_texts(walk, values, scalars);
    if (H5Dvlen_reclaim(type, target, H5P_DEFAULT, values) < 0) done = failed(walk);
  }
  H5Sclose(target);
  return done;
}

static bool read_blocks(
  struct walk *walk, hid_t dataset, hid_t type, hid_t memory, hid_t space,
  const struct extents *extents, const hsize_t *chunk
) {
  size_t size = H5Tget_size(memory);
  if (size == 0) return failed(walk);
  uint64_t most = piece_bytes / size > 0 ? piece_bytes / size : 1;
  if (H5Tis_variable_str(type) > 0 && most > piece_texts) most = piece_texts;
  if (chunk) {
    // A chunk is decompressed as a whole, and in parts again and again.
    uint64_t whole = 1;
    for (int axis = 0; axis < extents->rank; axis++) {
      if (__builtin_mul_overflow(whole, chunk[axis], &whole)) whole = UINT64_MAX;
    }
    uint64_t room = walk->limits->file_bytes > whole_bytes ? walk->limits->file_bytes : whole_bytes;
    if (whole > most && whole <= room / size) most = whole;
  }
  hsize_t block[H5S_MAX_RANK] = {0};
  hsize_t start[H5S_MAX_RANK] = {0};
  hsize_t count[H5S_MAX_RANK] = {0};
  choose_block(extents, chunk, most, block);
  uint64_t room = 1;
  for (int axis = 0; axis < extents->rank; axis++) room *= block[axis];
  void *values = calloc(room, size);
  if (!values) return exceeded(walk, walk->limits->memory_bytes, "bytes of memory");
  bool done = true;
  while (done) {
    for (int axis = 0; axis < extents->rank; axis++) {
      hsize_t rest = extents->sizes[axis] - start[axis];
      count[axis] = rest < block[axis] ? rest : block[axis];
    }
    done = read_block(walk, dataset, type, memory, space, extents->rank, start, count, values);
    int axis = extents->rank - 1;
    for (; axis >= 0; axis--) {
      start[axis] += block[axis];
      if (start[axis] < extents->sizes[axis]) break;
      start[axis] = 0;
    }
    if (axis < 0) break;
  }
  free(values);
  return done;
}

/// Reads an array unless it is numbers in one piece: their bytes are looked at in the mapped file,
/// and HDF5 reads them without interpreting anything.
static bool read_values(
  struct walk *walk, hid_t dataset, hid_t type, hid_t space, hid_t creation
) {
  struct extents extents;
  if (!get_extents(walk, space, &extents)) return false;
  int filters = H5Pget_nfilters(creation);
  H5D_layout_t layout = H5Pget_layout(creation);
  if (filters < 0 || layout < 0) return failed(walk);
  hid_t memory = memory_type(type);
  size_t stored_size = H5Tget_size(type);
  if (stored_size == 0) return failed(walk);
  if (memory < 0 || !extents.fits || extents.count == 0) return true;
  hsize_t chunk[H5S_MAX_RANK] = {0};
  switch (layout) {
  case H5D_CONTIGUOUS: {
    int elsewhere = H5Pget_external_count(creation);
    if (elsewhere < 0) return failed(walk);
    (void)H5Dget_offset(dataset);
    if (elsewhere > 0 || H5Tis_variable_str(type) <= 0) return true;
    break;
  }
  case H5D_CHUNKED:
    if (extents.rank == 0 || H5Pget_chunk(creation, extents.rank, chunk) != extents.rank) {
      return failed(walk);
    }
    break;
  case H5D_COMPACT: break;
  default: return true;
  }
  // What no file of this size can hold is refused by the caller, unread.
  hsize_t stored = H5Dget_storage_size(dataset);
  if (stored > walk->limits->file_bytes) return true;
  uint64_t bytes;
  if (__builtin_mul_overflow(extents.count, stored_size, &bytes)) return true;
  uint64_t most = stored * walk->limits->expansion;
  if (bytes > (most > walk->limits->sparse_bytes ? most : walk->limits->sparse_bytes)) return true;
  return read_blocks(
    walk, dataset, type, memory, space, &extents, layout == H5D_CHUNKED ? chunk : NULL);
}

static herr_t read_scale_name(hid_t dataset, unsigned axis, hid_t scale, void *context) {
  (void)dataset;
  (void)axis;
  ssize_t length = H5DSget_scale_name(scale, NULL, 0);
  if (length <= 0 || length > *(const uint32_t *)context) return 0;
  char *name = malloc((size_t)length + 1);
  if (!name) return -1;
  H5DSget_scale_name(scale, name, (size_t)length + 1);
  free(name);
  return 0;
}

/// Follows the references to dimension scales, if there are any. What is wrong with them without
/// being dangerous is the caller's to judge.
static void read_scales(struct walk *walk, hid_t dataset, hid_t space) {
  uint32_t limit = walk->limits->name_bytes;
  if (H5Aexists(dataset, "CLASS") > 0) H5DSis_scale(dataset);
  if (H5Aexists(dataset, "DIMENSION_LIST") <= 0) return;
  int rank = H5Sget_simple_extent_ndims(space);
  for (int axis = 0; axis < rank; axis++) {
    H5DSiterate_scales(dataset, (unsigned)axis, NULL, read_scale_name, &limit);
  }
  H5Eclear2(H5E_DEFAULT);
}

static bool read_dataset(struct walk *walk, hid_t dataset) {
  hid_t creation = H5Dget_create_plist(dataset);
  hid_t type = H5Dget_type(dataset);
  hid_t space = H5Dget_space(dataset);
  if (creation < 0 || type < 0 || space < 0) return failed(walk);
  if (!read_attributes(walk, dataset, creation)) return false;
  if (!read_values(walk, dataset, type, space, creation)) return false;
  read_scales(walk, dataset, space);
  H5Sclose(space);
  H5Tclose(type);
  H5Pclose(creation);
  return true;
}

// MARK: Groups

static bool read_group(struct walk *walk, hid_t group, uint32_t depth);

/// Opens what the name at the end of the path leads to, and reads it.
static bool read_child(struct walk *walk, hid_t group, const char *name, uint32_t depth) {
  H5L_info_t info;
  if (H5Lexists(group, name, H5P_DEFAULT) <= 0) return failed(walk);
  if (H5Lget_info(group, name, &info, H5P_DEFAULT) < 0) return failed(walk);
  if (info.type != H5L_TYPE_HARD) return true;
  if (++walk->objects > walk->limits->objects) {
    return exceeded(walk, walk->limits->objects, "objects");
  }
  hid_t object = H5Oopen(group, name, H5P_DEFAULT);
  if (object < 0) return failed(walk);
  bool done = true;
  switch (H5Iget_type(object)) {
  case H5I_GROUP: done = read_group(walk, object, depth + 1); break;
  case H5I_DATASET: done = read_dataset(walk, object); break;
  default: break;
  }
  if (done && H5Oclose(object) < 0) return failed(walk);
  return done;
}

static bool read_group(struct walk *walk, hid_t group, uint32_t depth) {
  if (depth > walk->limits->depth) return exceeded(walk, walk->limits->depth, "levels of groups");
  hid_t creation = H5Gget_create_plist(group);
  if (creation < 0) return failed(walk);
  if (!read_attributes(walk, group, creation)) return false;
  unsigned flags = 0;
  H5_index_t index =
    H5Pget_link_creation_order(creation, &flags) >= 0
        && (flags & H5P_CRT_ORDER_TRACKED) && (flags & H5P_CRT_ORDER_INDEXED)
      ? H5_INDEX_CRT_ORDER : H5_INDEX_NAME;
  H5Pclose(creation);
  H5G_info_t info;
  if (H5Gget_info(group, &info) < 0) return failed(walk);
  if (info.nlinks > walk->limits->objects) {
    return exceeded(walk, walk->limits->objects, "names in a group");
  }
  size_t parent = walk->path_length;
  char *path = walk->report->object;
  // The root's own path ends with the slash that others need.
  size_t start = parent == 1 ? 1 : parent + 1;
  for (hsize_t position = 0; position < info.nlinks; position++) {
    ssize_t length =
      H5Lget_name_by_idx(group, ".", index, H5_ITER_INC, position, NULL, 0, H5P_DEFAULT);
    if (length <= 0) return failed(walk);
    if (length > walk->limits->name_bytes || start + (size_t)length > walk->limits->path_bytes) {
      return exceeded(walk, walk->limits->path_bytes, "bytes in an object's path");
    }
    path[start - 1] = '/';
    ssize_t again = H5Lget_name_by_idx(
      group, ".", index, H5_ITER_INC, position, path + start, (size_t)length + 1, H5P_DEFAULT);
    if (again != length) return failed(walk);
    walk->path_length = start + (size_t)length;
    if (!read_child(walk, group, path + start, depth)) return false;
    walk->path_length = parent;
    path[parent] = 0;
  }
  return true;
}

/// Damaged heaps of texts make HDF5 write where it must not. The allocator notices when it next
/// touches that place, which must not be in the parent: here it touches blocks of every size.
static void exercise_memory(void) {
  enum { sizes = 512, rounds = 8 };
  void *blocks[sizes * rounds];
  size_t count = 0;
  for (size_t size = 1; size <= sizes; size++) {
    for (int round = 0; round < rounds; round++) blocks[count++] = malloc(16 * size);
  }
  while (count > 0) free(blocks[--count]);
#ifdef __GLIBC__
  malloc_trim(0);
#endif
}

static void read_file(
  const char *path, hid_t access, const struct nl_guard_limits *limits,
  struct nl_guard_report *report
) {
  struct walk walk = {.limits = limits, .report = report};
  copy_text(report->object, sizeof report->object, "file");
  hid_t file = H5Fopen(path, H5F_ACC_RDONLY, access);
  if (file < 0) {
    failed(&walk);
    return;
  }
  void *driver = NULL;
  struct stat status;
  if (H5Fget_vfd_handle(file, H5P_DEFAULT, &driver) < 0 || !driver
      || fstat(*(const int *)driver, &status) != 0 || (uint64_t)status.st_dev != limits->device
      || (uint64_t)status.st_ino != limits->inode
      || (uint64_t)status.st_size != limits->file_bytes) {
    report->outcome = NL_GUARD_REPLACED;
    return;
  }
  copy_text(report->object, sizeof report->object, "/");
  walk.path_length = 1;
  hid_t root = H5Gopen2(file, "/", H5P_DEFAULT);
  if (root < 0) {
    failed(&walk);
    return;
  }
  if (!read_group(&walk, root, 1)) return;
  copy_text(report->object, sizeof report->object, "file");
  if (H5Gclose(root) < 0 || H5Fclose(file) < 0) {
    failed(&walk);
    return;
  }
  H5garbage_collect();
  exercise_memory();
  report->outcome = NL_GUARD_SOUND;
}

// MARK: The child

#if defined(__linux__) && !defined(NL_ADDRESS_SANITIZER)
/// Bytes that this process has mapped; 0 if the system does not say.
static uint64_t mapped_bytes(void) {
  char text[128] = {0};
  int descriptor = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return 0;
  ssize_t count = read(descriptor, text, sizeof text - 1);
  close(descriptor);
  if (count <= 0) return 0;
  return strtoull(text, NULL, 10) * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void limit_memory(uint64_t allowance) {
  uint64_t mapped = mapped_bytes();
  struct rlimit limit;
  if (mapped == 0 || getrlimit(RLIMIT_AS, &limit) != 0) return;
  rlim_t wish = (rlim_t)(mapped + allowance);
  if (limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur > wish) limit.rlim_cur = wish;
  setrlimit(RLIMIT_AS, &limit);
}
#else
static void limit_memory(uint64_t allowance) { (void)allowance; }
#endif

static _Noreturn void run_child(
  const char *path, hid_t access, const struct nl_guard_limits *limits,
  struct nl_guard_report *report
) {
  // The program's handlers must not run here: crashes end the child at once, and a key that
  // interrupts the program is for the parent, which outlives this by its own decision.
  struct sigaction action = {.sa_handler = SIG_DFL};
  for (int number = 1; number < NSIG; number++) sigaction(number, &action, NULL);
  action.sa_handler = SIG_IGN;
  sigaction(SIGINT, &action, NULL);
  sigaction(SIGQUIT, &action, NULL);
  sigaction(SIGTSTP, &action, NULL);
  alarm(limits->seconds);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  // The allocator says on standard error what it has noticed before it ends the process.
  int nowhere = open("/dev/null", O_RDWR | O_CLOEXEC);
  if (nowhere >= 0) {
    dup2(nowhere, STDOUT_FILENO);
    dup2(nowhere, STDERR_FILENO);
  }
  struct rlimit no_core = {0, 0};
  setrlimit(RLIMIT_CORE, &no_core);
#ifdef __linux__
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  prctl(PR_SET_DUMPABLE, 0);
#endif
  limit_memory(limits->memory_bytes);
  read_file(path, access, limits, report);
  _exit(0);
}

void nl_hdf5_guard(
  const char *path, int64_t access, const struct nl_guard_limits *limits,
  struct nl_guard_report *report
) {
  memset(report, 0, sizeof *report);
  struct nl_guard_report *shared =
    mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANON, -1, 0);
  if (shared == MAP_FAILED) {
    report->outcome = NL_GUARD_NO_CHILD;
    report->detail = errno;
    return;
  }
  // No handler of the program may run in the child before it has forgotten them.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pid_t child = fork();
  if (child == 0) run_child(path, (hid_t)access, limits, shared);
  int problem = errno;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (child < 0) {
    report->outcome = NL_GUARD_NO_CHILD;
    report->detail = problem;
    munmap(shared, sizeof *shared);
    return;
  }
  int status = 0;
  pid_t ended;
  do {
    ended = waitpid(child, &status, 0);
  } while (ended < 0 && errno == EINTR);
  // Where the program ignores or collects the ends of its children itself, the status is lost; what
  // the child has written into the report is not.
  *report = *shared;
  munmap(shared, sizeof *shared);
  report->object[sizeof report->object - 1] = 0;
  report->expected[sizeof report->expected - 1] = 0;
  report->reason[sizeof report->reason - 1] = 0;
  if (ended == child && WIFSIGNALED(status)) {
    report->outcome = NL_GUARD_SIGNAL;
    report->detail = WTERMSIG(status);
  }
}
