#include "tally/core/memory.h"

#include <atomic>
#include <catch2/catch.hpp>
#include <cstring>
#include <new>
#include <optional>
#include <thread>
#include <vector>

#include "tally/core/tensor.h"

namespace memory_test {

using namespace tally;

namespace {

constexpr std::int64_t kMiB = 1 << 20;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kCacheInUse = false;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
constexpr bool kCacheInUse = false;
#else
constexpr bool kCacheInUse = true;
#endif
#else
constexpr bool kCacheInUse = true;
#endif

/// Restores the limits a test has changed.
struct Limits {
  ~Limits() {
    set_memory_limit(0);
    set_memory_cache_limit(std::int64_t{1} << 30);
  }
};

}  // namespace

TEST_CASE("a scope sees the peak and the change of its region", "[memory]") {
  const Tensor outside({kMiB}, DType::u8);
  const MemoryScope scope;
  CHECK(scope.peak() == 0);
  CHECK(scope.change() == 0);
  {
    const Tensor a({4 * kMiB}, DType::u8);
    { const Tensor b({2 * kMiB}, DType::u8); }
    const Tensor c({kMiB}, DType::u8);
    CHECK(scope.change() == 5 * kMiB);
  }
  CHECK(scope.peak() == 6 * kMiB);
  CHECK(scope.change() == 0);
}

TEST_CASE("nested and overlapping scopes are independent", "[memory]") {
  const MemoryScope outer;
  { const Tensor a({8 * kMiB}, DType::u8); }
  std::optional<MemoryScope> inner(std::in_place);
  { const Tensor b({2 * kMiB}, DType::u8); }
  CHECK(inner->peak() == 2 * kMiB);
  CHECK(outer.peak() == 8 * kMiB);
  std::optional<MemoryScope> later(std::in_place);
  inner.reset();
  { const Tensor c({kMiB}, DType::u8); }
  CHECK(later->peak() == kMiB);
  later.reset();
  CHECK(outer.peak() == 8 * kMiB);
}

TEST_CASE("a scope counts other threads", "[memory]") {
  const MemoryScope scope;
  std::thread([] { const Tensor a({3 * kMiB}, DType::u8); }).join();
  CHECK(scope.peak() == 3 * kMiB);
}

TEST_CASE("the peak of the program can be reset", "[memory]") {
  { const Tensor a({8 * kMiB}, DType::u8); }
  CHECK(memory_stats().peak_bytes >= 8 * kMiB);
  reset_peak_memory();
  CHECK(memory_stats().peak_bytes == memory_stats().active_bytes);
}

TEST_CASE("requests beyond the limit fail and leave nothing behind", "[memory]") {
  const Limits restore;
  const std::int64_t active = memory_stats().active_bytes;
  set_memory_limit(active + 4 * kMiB);
  const Tensor fits({3 * kMiB}, DType::u8);
  CHECK_THROWS_AS(Tensor({2 * kMiB}, DType::u8), std::bad_alloc);
  CHECK(memory_stats().active_bytes == active + 3 * kMiB);
  set_memory_limit(0);
  CHECK_NOTHROW(Tensor({2 * kMiB}, DType::u8));
  CHECK_THROWS_AS(Tensor({std::int64_t{1} << 61}, DType::u8), std::bad_alloc);
  CHECK(memory_stats().active_bytes == active + 3 * kMiB);
}

TEST_CASE("threads that ask at once keep the limit together", "[memory]") {
  const Limits restore;
  release_memory_cache();
  set_memory_limit(memory_stats().active_bytes + 100 * kMiB);
  for (int round = 0; round < 50; ++round) {
    std::atomic<int> granted = 0, asked = 0;
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&] {
        Tensor kept;
        try {
          kept = Tensor({90 * kMiB}, DType::u8);
          ++granted;
        } catch (const std::bad_alloc&) {
        }
        ++asked;
        while (asked < 4) std::this_thread::yield();  // nobody gives back before all have asked
      });
    }
    for (std::thread& thread : threads) thread.join();
    REQUIRE(granted == 1);
    release_memory_cache();
  }
}

TEST_CASE("freed blocks are used again up to the limit of the cache", "[memory]") {
  if (!kCacheInUse) return;
  const Limits restore;
  release_memory_cache();
  CHECK(memory_stats().cached_bytes == 0);
  const void* first = nullptr;
  {
    const Tensor a({kMiB}, DType::u8);
    first = a.raw_data();
  }
  CHECK(memory_stats().cached_bytes == kMiB);
  const std::int64_t hits = memory_stats().cache_hits;
  {
    // Another size of the same class.
    const Tensor b({kMiB - 5}, DType::u8);
    CHECK(b.raw_data() == first);
  }
  CHECK(memory_stats().cache_hits == hits + 1);

  set_memory_cache_limit(3 * kMiB);
  { const Tensor c({4 * kMiB}, DType::u8); }
  CHECK(memory_stats().cached_bytes == kMiB);
  // A block for which there is no room drives out larger ones.
  { const Tensor d({2 * kMiB}, DType::u8); }
  CHECK(memory_stats().cached_bytes == 3 * kMiB);
  { const Tensor e({kMiB / 2}, DType::u8); }
  CHECK(memory_stats().cached_bytes == kMiB + kMiB / 2);

  set_memory_cache_limit(kMiB);
  CHECK(memory_stats().cached_bytes <= kMiB);
  release_memory_cache();
  CHECK(memory_stats().cached_bytes == 0);
}

TEST_CASE("ragged sizes are served from larger blocks, which keep their own size", "[memory]") {
  if (!kCacheInUse) return;
  release_memory_cache();
  const auto fresh = [] { return memory_stats().allocations - memory_stats().cache_hits; };
  {
    const Tensor a({3 * kMiB}, DType::u8), b({3 * kMiB}, DType::u8), c({3 * kMiB}, DType::u8);
    CHECK(memory_stats().cached_bytes == 0);
  }
  CHECK(memory_stats().cached_bytes == 9 * kMiB);
  const std::int64_t before = fresh();
  for (std::int64_t size = 2 * kMiB; size <= 3 * kMiB; size += 37171) {
    const MemoryScope scope;
    {
      const Tensor a({size}, DType::u8), b({5 * kMiB - size}, DType::u8);
      const Tensor c({size - kMiB / 8 + 1}, DType::u8);
      CHECK(memory_stats().cached_bytes == 0);
      CHECK(scope.change() <= (5 * kMiB + size) * 9 / 8);  // of what was asked for, not of the blocks
      CHECK(scope.change() >= 5 * kMiB + size - kMiB / 8 + 1);
    }
    CHECK(memory_stats().cached_bytes == 9 * kMiB);
  }
  CHECK(fresh() == before);
  { const Tensor smaller({2 * kMiB - kMiB / 8}, DType::u8); }  // less than two thirds of what is free
  CHECK(fresh() == before + 1);
  release_memory_cache();
}

TEST_CASE("every size comes aligned, writable and at most an eighth larger", "[memory]") {
  for (std::size_t exponent = 0; exponent <= 22; ++exponent) {
    for (const std::size_t around : {-1, 0, 1}) {
      const std::size_t bytes = (std::size_t{1} << exponent) + around;
      const std::int64_t active = memory_stats().active_bytes;
      void* pointer = detail::allocate(bytes);
      CHECK(reinterpret_cast<std::uintptr_t>(pointer) % 64 == 0);
      std::memset(pointer, 0xAB, bytes);
      const auto used = static_cast<std::size_t>(memory_stats().active_bytes - active);
      CHECK(used >= bytes);
      CHECK(used <= std::max(bytes + bytes / 8 + 1, (bytes + 64) / 64 * 64));
      detail::deallocate(pointer, bytes);
      CHECK(memory_stats().active_bytes == active);
    }
  }
}

TEST_CASE("threads may allocate and free at once", "[memory]") {
  const std::int64_t active = memory_stats().active_bytes;
  std::vector<std::jthread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([t] {
      for (int i = 0; i < 300; ++i) {
        Tensor a({1000 + 500 * ((t + i) % 9)});
        a.fill(1);
      }
    });
  }
  threads.clear();
  CHECK(memory_stats().active_bytes == active);
}

}  // namespace memory_test
