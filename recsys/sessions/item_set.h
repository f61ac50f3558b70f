#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace tally::recsys {

/// A set of item indices (>= 0) in one block of memory: open addressing, 5.3 to 10.7 bytes an item while it grows, 8
/// slots at least. Adding costs the same however many items there are, apart from the doublings.
class ItemSet {
 public:
  /// Returns false when it was there already.
  bool insert(std::int32_t item);
  bool contains(std::int32_t item) const;
  std::int64_t size() const { return count_; }
  /// In ascending order.
  std::vector<std::int32_t> items() const;
  /// Calls visit(item) for every item, in no particular order.
  void for_each(auto&& visit) const {
    for (const std::int32_t item : slots_) {
      if (item != -1) visit(item);
    }
  }
  std::size_t heap_bytes() const { return slots_.capacity() * sizeof(std::int32_t); }

 private:
  std::size_t slot_of(std::int32_t item) const;
  void grow();

  std::vector<std::int32_t> slots_;  // -1: free; a power of two, at most three quarters full
  std::int32_t count_ = 0;
};

}  // namespace tally::recsys
