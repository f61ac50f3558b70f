#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace tally::recsys {

/// A set of items of a catalogue, in one block of memory: few items are slots of open addressing (5.3 to 10.7 bytes an
/// item, 8 slots at least), and once those would take more memory than a bit for every item of the catalogue, bits. So
/// a set never outgrows its catalogue, and what it costs to add an item or to leave the set's items out of an answer
/// does not grow with a history of any length.
class ItemSet {
 public:
  /// Returns false when it was there already. `catalogue`: the number of items there are, the same in every call; the
  /// item lies in [0, catalogue).
  bool insert(std::int32_t item, std::int64_t catalogue);
  bool contains(std::int32_t item) const;
  std::int64_t size() const { return count_; }
  /// In ascending order.
  std::vector<std::int32_t> items() const;
  /// Sets the byte of every item of the set to 0.
  void clear_bytes(std::span<std::uint8_t> bytes_of_items) const;
  std::size_t heap_bytes() const { return words_.capacity() * sizeof(std::int32_t); }

 private:
  std::size_t slot_of(std::int32_t item) const;
  void grow(std::int64_t catalogue);

  // Slots: -1 is free; a power of two of them, at most three quarters full. Bits: item i is bit i % 32 of word i / 32.
  std::vector<std::int32_t> words_;
  std::int32_t count_ = 0;
  bool bits_ = false;
};

}  // namespace tally::recsys
