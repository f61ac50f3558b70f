#pragma once

#include <cstddef>
#include <cstdint>

namespace tally {

/// Figures of the tensor allocator since the start of the program, over all threads. Active bytes are of the size
/// classes asked for: requests rounded up to 64 bytes, or from 4 KiB on by at most an eighth.
struct MemoryStats {
  std::int64_t active_bytes = 0;  ///< asked for and not yet given back
  std::int64_t peak_bytes = 0;    ///< largest active_bytes since the last reset_peak_memory()
  std::int64_t cached_bytes = 0;  ///< of blocks given back and kept for reuse
  std::int64_t allocations = 0;   ///< number of requests
  std::int64_t cache_hits = 0;    ///< requests served from the cache
};

MemoryStats memory_stats();
void reset_peak_memory();

/// Upper bound of the cache of freed blocks (default 1 GiB). A freed block drives out the largest ones when it finds no
/// room; lowering the bound releases blocks at once.
void set_memory_cache_limit(std::int64_t bytes);
/// Releases every cached block to the system.
void release_memory_cache();
/// Requests beyond `bytes` of active memory throw std::bad_alloc; 0 means no limit (the default).
void set_memory_limit(std::int64_t bytes);

/// Peak of tensor memory within a region: `MemoryScope scope; ...; scope.peak()`. Scopes are independent, nested or
/// not. A scope counts all threads.
class MemoryScope {
 public:
  MemoryScope();
  ~MemoryScope();
  MemoryScope(const MemoryScope&) = delete;
  MemoryScope& operator=(const MemoryScope&) = delete;

  /// Largest active bytes since the scope began, above those active when it began; at least 0.
  std::int64_t peak() const;
  /// Active bytes now minus active bytes at the beginning; negative when more was freed than allocated.
  std::int64_t change() const;

 private:
  std::int64_t peak_ = 0;  ///< largest active bytes since the scope began; kept by the allocator
  std::int64_t start_;
};

namespace detail {

/// 64-byte aligned memory of at least `bytes` (at least one byte). Throws std::bad_alloc.
void* allocate(std::size_t bytes);
/// Gives back memory of allocate(bytes).
void deallocate(void* pointer, std::size_t bytes) noexcept;

}  // namespace detail
}  // namespace tally
