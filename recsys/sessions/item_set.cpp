#include "tally/recsys/sessions/item_set.h"

#include <algorithm>
#include <bit>
#include <iterator>

namespace tally::recsys {
namespace {

constexpr std::int32_t kFree = -1;
constexpr std::size_t kBits = 32;

std::size_t word_of(std::int32_t item) { return static_cast<std::size_t>(item) / kBits; }
std::uint32_t bit_of(std::int32_t item) { return std::uint32_t{1} << static_cast<std::size_t>(item) % kBits; }

/// Calls visit(item) for every bit that is set, in ascending order.
void for_each_bit(std::span<const std::int32_t> words, auto&& visit) {
  for (std::size_t w = 0; w < words.size(); ++w) {
    for (auto rest = static_cast<std::uint32_t>(words[w]); rest != 0; rest &= rest - 1) {
      visit(static_cast<std::int32_t>(w * kBits) + std::countr_zero(rest));
    }
  }
}

}  // namespace

/// The slot that holds the item, or the free one where it belongs. There is a free slot.
std::size_t ItemSet::slot_of(std::int32_t item) const {
  const std::size_t mask = words_.size() - 1;
  std::size_t slot = static_cast<std::uint64_t>(item) * 0x9e3779b97f4a7c15ULL >> 32 & mask;
  while (words_[slot] != kFree && words_[slot] != item) slot = (slot + 1) & mask;
  return slot;
}

bool ItemSet::insert(std::int32_t item, std::int64_t catalogue) {
  if (contains(item)) return false;
  if (!bits_ && 4 * (static_cast<std::size_t>(count_) + 1) > 3 * words_.size()) grow(catalogue);
  if (bits_) {
    words_[word_of(item)] |= static_cast<std::int32_t>(bit_of(item));
  } else {
    words_[slot_of(item)] = item;
  }
  ++count_;
  return true;
}

bool ItemSet::contains(std::int32_t item) const {
  if (bits_) return (static_cast<std::uint32_t>(words_[word_of(item)]) & bit_of(item)) != 0;
  return !words_.empty() && words_[slot_of(item)] == item;
}

void ItemSet::grow(std::int64_t catalogue) {
  const std::size_t slots = std::max<std::size_t>(8, 2 * words_.size());
  const std::size_t all = (static_cast<std::size_t>(catalogue) + kBits - 1) / kBits;
  ItemSet larger;
  larger.bits_ = slots > std::max<std::size_t>(8, all);
  larger.words_.assign(larger.bits_ ? all : slots, larger.bits_ ? 0 : kFree);
  for (const std::int32_t item : words_) {
    if (item == kFree) continue;
    if (larger.bits_) {
      larger.words_[word_of(item)] |= static_cast<std::int32_t>(bit_of(item));
    } else {
      larger.words_[larger.slot_of(item)] = item;
    }
  }
  words_.swap(larger.words_);
  bits_ = larger.bits_;
}

std::vector<std::int32_t> ItemSet::items() const {
  std::vector<std::int32_t> all;
  all.reserve(static_cast<std::size_t>(count_));
  if (bits_) {
    for_each_bit(words_, [&](std::int32_t item) { all.push_back(item); });
    return all;
  }
  std::copy_if(words_.begin(), words_.end(), std::back_inserter(all), [](std::int32_t item) { return item != kFree; });
  std::sort(all.begin(), all.end());
  return all;
}

void ItemSet::clear_bytes(std::span<std::uint8_t> bytes_of_items) const {
  const auto clear = [&](std::int32_t item) { bytes_of_items[static_cast<std::size_t>(item)] = 0; };
  if (bits_) {
    for_each_bit(words_, clear);
    return;
  }
  for (const std::int32_t item : words_) {
    if (item != kFree) clear(item);
  }
}

}  // namespace tally::recsys
