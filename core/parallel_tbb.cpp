// parallel_for on one oneTBB arena.
#include <oneapi/tbb/global_control.h>
#include <oneapi/tbb/parallel_for.h>
#include <oneapi/tbb/task_arena.h>

#include <memory>
#include <mutex>

#include "tally/core/error.h"
#include "tally/core/parallel_backend.h"

namespace tally {
namespace {

/// The arena and the control that lets it have more threads than cores. Never destroyed: TBB must not be torn down from
/// static destructors.
struct Arena {
  explicit Arena(int count)
      : threads(count),
        control(oneapi::tbb::global_control::max_allowed_parallelism, static_cast<std::size_t>(count)),
        arena(count) {}
  int threads;
  oneapi::tbb::global_control control;
  oneapi::tbb::task_arena arena;
};

std::mutex arena_mutex;

Arena*& current_arena() {
  static Arena* arena = nullptr;
  return arena;
}

Arena& arena() {
  const std::lock_guard lock(arena_mutex);
  if (current_arena() == nullptr) current_arena() = new Arena(detail::default_num_threads());
  return *current_arena();
}

}  // namespace

int num_threads() { return arena().threads; }

void set_num_threads(int threads) {
  detail::check_num_threads(threads);
  const std::lock_guard lock(arena_mutex);
  if (current_arena() != nullptr && current_arena()->threads == threads) return;
  delete current_arena();
  current_arena() = new Arena(threads);
}

namespace detail {

void run_blocks(std::int64_t blocks, BlockBody body) {
  arena().arena.execute([&] {
    oneapi::tbb::parallel_for(
        oneapi::tbb::blocked_range<std::int64_t>(0, blocks, 1),
        [&](const oneapi::tbb::blocked_range<std::int64_t>& range) { body(range.begin(), range.end()); },
        oneapi::tbb::simple_partitioner());
  });
}

}  // namespace detail
}  // namespace tally
