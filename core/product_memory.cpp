// The working memory that OpenBLAS maps for a thread of products. docs/notes.md, Note [Threads].
#include "tally/core/product_memory.h"

#include <sys/mman.h>
#include <sys/resource.h>

#include <cstddef>
#include <mutex>
#include <vector>

#include "tally/core/error.h"

// Lends a thread its working memory, and takes it back, mapped as it is. Not in OpenBLAS's headers, nor in every BLAS.
extern "C" {
[[gnu::weak]] void* blas_memory_alloc(int);
[[gnu::weak]] void blas_memory_free(void*);
}

namespace tally::detail {
namespace {

/// What OpenBLAS maps for a thread, and the thread's stack.
constexpr std::size_t kProductMemory = (std::size_t{128} + 8) << 20;

std::mutex taken_mutex;
int taken = 0;  // by OpenBLAS, and never given back to the system

bool address_space_is_limited() {
  for (const auto kind : {RLIMIT_AS, RLIMIT_DATA}) {
    rlimit limit{};
    if (::getrlimit(kind, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) return true;
  }
  return false;
}

/// Writable, for RLIMIT_DATA counts nothing else.
bool can_map(int threads) {
  if (threads <= 0) return true;
  const std::size_t bytes = static_cast<std::size_t>(threads) * kProductMemory;
  void* const place =
      ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return place != MAP_FAILED && ::munmap(place, bytes) == 0;
}

/// Memory that is lent to nobody, held all at once so that each piece is another.
struct Lent {
  std::vector<void*> pieces;
  Lent() { pieces.reserve(kMostThreads); }
  ~Lent() {
    for (void* piece : pieces) blas_memory_free(piece);
  }
  void take() { pieces.push_back(blas_memory_alloc(0)); }
};

}  // namespace

bool has_product_memory(int threads) {
  const std::lock_guard lock(taken_mutex);
  return !address_space_is_limited() || can_map(threads - taken);
}

void take_product_memory(int threads) {
  const std::lock_guard lock(taken_mutex);
  if (threads <= taken || !address_space_is_limited()) return;
  check<BackendError>(can_map(threads - taken), "memory", "needs ", kProductMemory >> 20,
                      " MB of address space for each thread of matrix products, of which ", threads - taken,
                      " cannot be had; a higher limit (ulimit -v) or fewer threads would do");
  if (blas_memory_alloc == nullptr || blas_memory_free == nullptr) return;
  Lent lent;
  while (static_cast<int>(lent.pieces.size()) < threads) lent.take();
  taken = threads;
}

}  // namespace tally::detail
