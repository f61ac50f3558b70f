// Preloaded into a program, makes its n-th call of a kind fail, or kills it there: TALLY_FAULT=KIND:N or KIND:N:kill,
// kinds write, fsync, rename, open, alloc. From the N-th write on all fail, as on a full disk; of the other kinds the
// one. Calls are counted from main() on; TALLY_FAULT_COUNTS names a file that the counts are written to at the end, one
// `KIND COUNT` a line. Writes to standard output and the error stream do not count, nor does what OpenBLAS allocates:
// its AVX-512 kernels for small products use what malloc gives them without a look.
#include <fcntl.h>
#include <link.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

#include <dlfcn.h>

extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);
}

namespace {

enum Kind { kWrite, kFsync, kRename, kOpen, kAlloc, kKinds };
constexpr const char* kNames[kKinds] = {"write", "fsync", "rename", "open", "alloc"};

std::atomic<bool> armed{false};
std::atomic<long> counts[kKinds];
int chosen = -1;
long at = 0;
bool kills = false;

/// Counts a call; whether it is to fail.
bool fails(Kind kind) {
  if (!armed.load(std::memory_order_relaxed)) return false;
  const long number = counts[kind].fetch_add(1) + 1;
  if (kind != chosen || (kind == kWrite ? number < at : number != at)) return false;
  if (kills) ::kill(::getpid(), SIGKILL);
  return true;
}

std::uintptr_t openblas_begin = 0, openblas_end = 0;

int find_openblas(dl_phdr_info* library, std::size_t, void*) {
  if (std::strstr(library->dlpi_name, "libopenblas") == nullptr) return 0;
  for (int i = 0; i < library->dlpi_phnum; ++i) {
    const auto& segment = library->dlpi_phdr[i];
    if (segment.p_type != PT_LOAD || (segment.p_flags & PF_X) == 0) continue;
    openblas_begin = library->dlpi_addr + segment.p_vaddr;
    openblas_end = openblas_begin + segment.p_memsz;
  }
  return 1;
}

bool is_openblas(const void* caller) {
  const auto address = reinterpret_cast<std::uintptr_t>(caller);
  return address >= openblas_begin && address < openblas_end;
}

int failed(int error) {
  errno = error;
  return -1;
}

int open_file(int directory, const char* path, int flags, mode_t mode) {
  if (fails(kOpen)) return failed(EMFILE);
  return static_cast<int>(::syscall(SYS_openat, directory, path, flags, mode));
}

void read_environment() {
  const char* text = std::getenv("TALLY_FAULT");
  if (text == nullptr) return;
  for (int kind = 0; kind < kKinds; ++kind) {
    const std::size_t length = std::strlen(kNames[kind]);
    if (std::strncmp(text, kNames[kind], length) != 0 || text[length] != ':') continue;
    chosen = kind;
    char* rest = nullptr;
    at = std::strtol(text + length + 1, &rest, 10);
    kills = std::strcmp(rest, ":kill") == 0;
  }
}

void write_counts() {
  armed = false;
  const char* path = std::getenv("TALLY_FAULT_COUNTS");
  if (path == nullptr) return;
  const int file = open_file(AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
  for (int kind = 0; kind < kKinds; ++kind) {
    char line[64];
    std::size_t size = 0;
    for (const char* c = kNames[kind]; *c != '\0'; ++c) line[size++] = *c;
    line[size++] = ' ';
    char digits[24];
    int count = 0;
    for (long left = counts[kind]; left > 0 || count == 0; left /= 10)
      digits[count++] = static_cast<char>('0' + left % 10);
    while (count > 0) line[size++] = digits[--count];
    line[size++] = '\n';
    (void)(::syscall(SYS_write, file, line, size) < 0);
  }
  ::close(file);
}

using Main = int (*)(int, char**, char**);
Main real_main = nullptr;

int armed_main(int argc, char** argv, char** environment) {
  read_environment();
  std::atexit(write_counts);
  ::dl_iterate_phdr(find_openblas, nullptr);
  armed = true;
  return real_main(argc, argv, environment);
}

}  // namespace

extern "C" {

int __libc_start_main(Main main, int argc, char** argv, void (*init)(), void (*fini)(), void (*loader_fini)(),
                      void* stack_end) {
  real_main = main;
  using Start = int (*)(Main, int, char**, void (*)(), void (*)(), void (*)(), void*);
  const auto start = reinterpret_cast<Start>(::dlsym(RTLD_NEXT, "__libc_start_main"));
  return start(armed_main, argc, argv, init, fini, loader_fini, stack_end);
}

ssize_t write(int file, const void* bytes, std::size_t count) {
  if (file > 2 && fails(kWrite)) return failed(ENOSPC);
  return ::syscall(SYS_write, file, bytes, count);
}
int fsync(int file) { return fails(kFsync) ? failed(EIO) : static_cast<int>(::syscall(SYS_fsync, file)); }
int fdatasync(int file) { return fails(kFsync) ? failed(EIO) : static_cast<int>(::syscall(SYS_fdatasync, file)); }
int rename(const char* from, const char* to) noexcept {
  return fails(kRename) ? failed(EIO) : static_cast<int>(::syscall(SYS_rename, from, to));
}
int renameat2(int from_directory, const char* from, int to_directory, const char* to, unsigned flags) noexcept {
  if (fails(kRename)) return failed(EIO);
  return static_cast<int>(::syscall(SYS_renameat2, from_directory, from, to_directory, to, flags));
}
int open(const char* path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  const mode_t mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(rest, mode_t) : 0;
  va_end(rest);
  return open_file(AT_FDCWD, path, flags, mode);
}
int open64(const char* path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  const mode_t mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(rest, mode_t) : 0;
  va_end(rest);
  return open_file(AT_FDCWD, path, flags, mode);
}

void* malloc(std::size_t size) {
  if (!is_openblas(__builtin_return_address(0)) && fails(kAlloc)) return failed(ENOMEM), nullptr;
  return __libc_malloc(size);
}
void* calloc(std::size_t count, std::size_t size) {
  if (fails(kAlloc)) return failed(ENOMEM), nullptr;
  return __libc_calloc(count, size);
}
void* realloc(void* place, std::size_t size) {
  if (fails(kAlloc)) return failed(ENOMEM), nullptr;
  return __libc_realloc(place, size);
}
void* memalign(std::size_t alignment, std::size_t size) {
  if (fails(kAlloc)) return failed(ENOMEM), nullptr;
  return __libc_memalign(alignment, size);
}
void* aligned_alloc(std::size_t alignment, std::size_t size) { return memalign(alignment, size); }
int posix_memalign(void** place, std::size_t alignment, std::size_t size) {
  *place = memalign(alignment, size);
  return *place == nullptr ? ENOMEM : 0;
}
}
