#include "tally/core/memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdlib>
#include <mutex>
#include <new>
#include <unordered_map>
#include <utility>
#include <vector>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define TALLY_BYPASS_CACHE 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define TALLY_BYPASS_CACHE 1
#endif
#endif
#ifndef TALLY_BYPASS_CACHE
#define TALLY_BYPASS_CACHE 0
#endif

namespace tally {
namespace {

constexpr std::size_t kAlignment = 64;
// Below this, malloc is as fast as a cache of ours and keeps fragmentation low.
constexpr std::size_t kSmallest = 4096;
// From here on a block asks for pages of this size, where the kernel gives them to who asks: a pass over a large block
// then misses few translations, and what the hardware fetches ahead does not end with each 4 KiB.
constexpr std::size_t kHugePage = std::size_t{2} << 20;
// Size classes: eight per power of two, so rounding wastes at most 12.5 %.
constexpr int kClasses = 8 * 52;
// A request takes a free block of up to so many classes above its own, half as large again, before malloc is asked:
// batches of ragged data have other sizes each time, and would go on to meet classes that nothing was kept of.
constexpr int kReach = 4;

struct SizeClass {
  int index;
  std::size_t bytes;
};

SizeClass size_class(std::size_t bytes) {
  const int exponent = std::bit_width(bytes - 1) - 1;  // bytes in (2^exponent, 2^(exponent + 1)]
  const std::size_t step = std::size_t{1} << (exponent - 3);
  const std::size_t rounded = (bytes + step - 1) / step * step;
  const std::size_t eighth = (rounded - (std::size_t{1} << exponent)) / step;  // 1 .. 8
  return {(exponent - 11) * 8 + static_cast<int>(eighth) - 1, rounded};
}

/// Bytes of a block of the class with this index.
std::int64_t class_bytes(int index) { return (std::int64_t{index} % 8 + 9) << (index / 8 + 8); }

/// A block of malloc's; null where there is no memory.
void* fresh_block(std::size_t bytes) {
  if (bytes < kHugePage) return std::aligned_alloc(kAlignment, bytes);
  void* block = nullptr;
  if (posix_memalign(&block, kHugePage, bytes) != 0) return nullptr;
#ifdef MADV_HUGEPAGE
  madvise(block, bytes / kHugePage * kHugePage, MADV_HUGEPAGE);  // advice: nothing depends on it
#endif
  return block;
}

/// Free blocks by size class, bounded; blocks of the largest classes go first when the bound is passed.
/// docs/notes.md, Note [Memory].
class Allocator {
 public:
  static Allocator& instance() {
    // Never destroyed: tensors of static storage duration may be freed after any static object of ours.
    static Allocator& allocator = *new Allocator;
    return allocator;
  }

  void* allocate(std::size_t bytes) {
    bytes = std::max<std::size_t>(bytes, 1);
    if (bytes > (std::size_t{1} << 62)) throw std::bad_alloc();
    const bool cached = bytes >= kSmallest;
    const SizeClass target = cached ? size_class(bytes) : SizeClass{-1, round_up(bytes)};
    {
      const std::lock_guard lock(mutex_);
      const auto size = static_cast<std::int64_t>(target.bytes);
      if (limit_ > 0 && stats_.active_bytes + coming_ + size > limit_) throw std::bad_alloc();
      ++stats_.allocations;
      if (void* reused = cached ? take(target.index) : nullptr) {
        ++stats_.cache_hits;
        count(size);
        return reused;
      }
      coming_ += size;
    }
    void* fresh = fresh_block(target.bytes);
    if (fresh == nullptr) {
      release();
      fresh = fresh_block(target.bytes);
    }
    const std::lock_guard lock(mutex_);
    const auto size = static_cast<std::int64_t>(target.bytes);
    coming_ -= size;
    if (fresh == nullptr) throw std::bad_alloc();
    count(size);
    return fresh;
  }

  void deallocate(void* pointer, std::size_t bytes) noexcept {
    bytes = std::max<std::size_t>(bytes, 1);
    const bool cached = bytes >= kSmallest;
    const SizeClass target = cached ? size_class(bytes) : SizeClass{-1, round_up(bytes)};
    {
      const std::lock_guard lock(mutex_);
      stats_.active_bytes -= static_cast<std::int64_t>(target.bytes);
      const int index = cached ? class_of(pointer, target.index) : -1;
      if (cached && !TALLY_BYPASS_CACHE && make_room(class_bytes(index), index)) {
        try {
          free_[static_cast<std::size_t>(index)].push_back(pointer);
          stats_.cached_bytes += class_bytes(index);
          return;
        } catch (const std::bad_alloc&) {
          // No room even for the list entry: give the block back instead.
        }
      }
    }
    std::free(pointer);
  }

  MemoryStats stats() {
    const std::lock_guard lock(mutex_);
    return stats_;
  }

  void reset_peak() {
    const std::lock_guard lock(mutex_);
    stats_.peak_bytes = stats_.active_bytes;
  }

  /// From now on `peak` is raised to the active bytes whenever they grow beyond it. Returns them.
  std::int64_t watch(std::int64_t& peak) {
    const std::lock_guard lock(mutex_);
    watched_peaks_.push_back(&peak);
    return peak = stats_.active_bytes;
  }

  void unwatch(std::int64_t& peak) {
    const std::lock_guard lock(mutex_);
    std::erase(watched_peaks_, &peak);
  }

  std::int64_t read(const std::int64_t& watched_peak) {
    const std::lock_guard lock(mutex_);
    return watched_peak;
  }

  void set_cache_limit(std::int64_t bytes) {
    const std::lock_guard lock(mutex_);
    cache_limit_ = bytes;
    make_room(0, 0);
  }

  void set_limit(std::int64_t bytes) {
    const std::lock_guard lock(mutex_);
    limit_ = bytes;
  }

  void release() {
    const std::lock_guard lock(mutex_);
    for (auto& list : free_) {
      for (void* pointer : list) std::free(pointer);
      list.clear();
    }
    stats_.cached_bytes = 0;
  }

 private:
  static std::size_t round_up(std::size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

  void count(std::int64_t size) {
    stats_.active_bytes += size;
    stats_.peak_bytes = std::max(stats_.peak_bytes, stats_.active_bytes);
    for (std::int64_t* peak : watched_peaks_) *peak = std::max(*peak, stats_.active_bytes);
  }

  /// A free block for requests of class `wanted`, or null.
  void* take(int wanted) {
    for (int index = wanted; index <= std::min(wanted + kReach, kClasses - 1); ++index) {
      auto& list = free_[static_cast<std::size_t>(index)];
      if (list.empty()) continue;
      void* block = list.back();
      try {
        if (index != wanted) lent_.emplace(block, index);
      } catch (const std::bad_alloc&) {
        return nullptr;  // no room even to note whose it is
      }
      list.pop_back();
      stats_.cached_bytes -= class_bytes(index);
      return block;
    }
    return nullptr;
  }

  /// The class of a block that comes back from a request of class `wanted`.
  int class_of(void* block, int wanted) {
    const auto lent = lent_.find(block);
    if (lent == lent_.end()) return wanted;
    const int index = lent->second;
    lent_.erase(lent);
    return index;
  }

  /// Releases cached blocks of class `smallest` and above, largest first, until `size` more bytes fit into the cache;
  /// false when they cannot.
  bool make_room(std::int64_t size, int smallest) {
    for (int index = kClasses - 1; index >= smallest && stats_.cached_bytes + size > cache_limit_; --index) {
      auto& list = free_[static_cast<std::size_t>(index)];
      while (!list.empty() && stats_.cached_bytes + size > cache_limit_) {
        std::free(list.back());
        list.pop_back();
        stats_.cached_bytes -= class_bytes(index);
      }
    }
    return stats_.cached_bytes + size <= cache_limit_;
  }

  std::mutex mutex_;
  std::array<std::vector<void*>, kClasses> free_;
  std::unordered_map<void*, int> lent_;  // blocks in use by requests of smaller classes, and their own class
  std::vector<std::int64_t*> watched_peaks_;
  MemoryStats stats_;
  std::int64_t cache_limit_ = std::int64_t{1} << 30;
  std::int64_t limit_ = 0;
  std::int64_t coming_ = 0;  // bytes asked of malloc at this moment, which the limit counts
};

}  // namespace

MemoryStats memory_stats() { return Allocator::instance().stats(); }
void reset_peak_memory() { Allocator::instance().reset_peak(); }
void set_memory_cache_limit(std::int64_t bytes) { Allocator::instance().set_cache_limit(bytes); }
void release_memory_cache() { Allocator::instance().release(); }
void set_memory_limit(std::int64_t bytes) { Allocator::instance().set_limit(bytes); }

MemoryScope::MemoryScope() : start_(Allocator::instance().watch(peak_)) {}

MemoryScope::~MemoryScope() { Allocator::instance().unwatch(peak_); }

std::int64_t MemoryScope::peak() const { return Allocator::instance().read(peak_) - start_; }

std::int64_t MemoryScope::change() const { return Allocator::instance().stats().active_bytes - start_; }

namespace detail {

void* allocate(std::size_t bytes) { return Allocator::instance().allocate(bytes); }
void deallocate(void* pointer, std::size_t bytes) noexcept { Allocator::instance().deallocate(pointer, bytes); }

}  // namespace detail
}  // namespace tally
