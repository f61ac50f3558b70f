// The `tally` command.
#include <fcntl.h>
#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdint>

#include "tools/op_commands.h"
#include "tools/tally_commands.h"

namespace {

/// The number that a text begins with; 0 for none.
constexpr std::uint64_t number_at(const char* text) {
  std::uint64_t number = 0;
  for (; *text >= '0' && *text <= '9' && number < 1'000'000'000'000; ++text) number = 10 * number + (*text - '0');
  return number;
}

/// The value of the variable when this is it, else null.
constexpr const char* value_of(const char* variable, const char* name) {
  while (*name != '\0' && *variable == *name) ++variable, ++name;
  return *name == '\0' && *variable == '=' ? variable + 1 : nullptr;
}

/// Threads that OpenBLAS starts with, by its own rules.
std::uint64_t openblas_threads(char** environment) {
  constexpr std::uint64_t kMost = 64;
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  const auto allowed =
      static_cast<std::uint64_t>(sched_getaffinity(0, sizeof(cpus), &cpus) == 0 ? CPU_COUNT(&cpus) : 1);
  std::uint64_t threads = allowed;
  for (const char* name : {"OMP_NUM_THREADS", "GOTO_NUM_THREADS", "OPENBLAS_NUM_THREADS"}) {
    for (char** each = environment; *each != nullptr; ++each) {
      const char* const value = value_of(*each, name);
      if (value != nullptr && number_at(value) > 0) threads = number_at(value);
    }
  }
  return threads < allowed ? threads : allowed < kMost ? allowed : kMost;
}

/// Starts the program anew with one thread of OpenBLAS, which has no use for more here (docs/notes.md, Note [Threads]).
__attribute__((no_sanitize("address", "thread", "undefined"))) void start_with_one_thread(char** arguments,
                                                                                          char** environment) {
  constexpr std::size_t kMost = 4096;
  static char one[] = "OPENBLAS_NUM_THREADS=1";
  static char* variables[kMost];
  std::size_t count = 0;
  for (char** each = environment; *each != nullptr; ++each) {
    if (value_of(*each, "OPENBLAS_NUM_THREADS") != nullptr) continue;
    if (count + 2 == kMost) return;
    variables[count++] = *each;
  }
  variables[count] = one;
  ::execve("/proc/self/exe", arguments, variables);
}

/// Ends the program with a sentence when the limit of its address space leaves too little. OpenBLAS maps working memory
/// for each of its threads as it is loaded, which is before main(), and where it cannot, it asks again for ever. So
/// this runs before the libraries' initialisers, when nothing but system calls can be relied on, sanitizers included.
__attribute__((no_sanitize("address", "thread", "undefined"))) void check_address_space(int, char** arguments,
                                                                                        char** environment) {
  constexpr std::uint64_t kMebibyte = 1 << 20, kThread = 136 * kMebibyte, kOwn = 48 * kMebibyte;
  rlimit limit{};
  if (::getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return;
  if (openblas_threads(environment) > 1) start_with_one_thread(arguments, environment);
  char pages[32] = {};
  const int file = ::open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
  if (file < 0 || ::read(file, pages, sizeof(pages) - 1) <= 0) return;
  ::close(file);
  const std::uint64_t used = number_at(pages) * static_cast<std::uint64_t>(::getpagesize());
  if (used + kOwn + openblas_threads(environment) * kThread <= limit.rlim_cur) return;
  constexpr char kMessage[] =
      "tally: needs 136 MB of address space for matrix products and some 110 MB beside them, more than the "
      "limit (ulimit -v) allows\n";
  (void)(::write(STDERR_FILENO, kMessage, sizeof(kMessage) - 1) < 0);
  ::_exit(1);
}

using Initialiser = void (*)(int, char**, char**);
[[gnu::section(".preinit_array"), gnu::used]] const Initialiser before_libraries = &check_address_space;

}  // namespace

int main(int argc, char** argv) {
  return tally::tools::guarded("tally", [&] {
    return tally::tools::tally_commands(tally::recsys::standard(), tally::ops::standard_catalog(), argc, argv);
  });
}
