// parallel_for on plain threads, started for each region. Slow; exists so that a thread sanitizer, which cannot see
// into an uninstrumented oneTBB, sees every hand-over between threads.
#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "tally/core/error.h"
#include "tally/core/parallel_backend.h"

namespace tally {
namespace {

std::atomic<int>& thread_count() {
  static std::atomic<int> count{detail::default_num_threads()};
  return count;
}

}  // namespace

int num_threads() { return thread_count().load(); }

void set_num_threads(int threads) {
  detail::check_num_threads(threads);
  thread_count() = threads;
}

namespace detail {

void run_blocks(std::int64_t blocks, BlockBody body) {
  std::atomic<std::int64_t> next{0};
  std::exception_ptr failure;
  std::mutex failure_mutex;
  const auto work = [&] {
    for (std::int64_t block = next++; block < blocks; block = next++) {
      try {
        body(block, block + 1);
      } catch (...) {
        const std::lock_guard lock(failure_mutex);
        if (!failure) failure = std::current_exception();
        next = blocks;
      }
    }
  };
  std::vector<std::jthread> threads;
  const auto extra = std::min<std::int64_t>(num_threads(), blocks) - 1;
  for (std::int64_t i = 0; i < extra; ++i) threads.emplace_back(work);
  work();
  threads.clear();
  if (failure) std::rethrow_exception(failure);
}

}  // namespace detail
}  // namespace tally
