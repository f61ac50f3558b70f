#include "tally/recsys/sessions/item_set.h"

#include <algorithm>

namespace tally::recsys {

/// The slot that holds the item, or the free one where it belongs. There is a free slot.
std::size_t ItemSet::slot_of(std::int32_t item) const {
  const std::size_t mask = slots_.size() - 1;
  std::size_t slot = static_cast<std::uint64_t>(item) * 0x9e3779b97f4a7c15ULL >> 32 & mask;
  while (slots_[slot] != -1 && slots_[slot] != item) slot = (slot + 1) & mask;
  return slot;
}

bool ItemSet::insert(std::int32_t item) {
  if (slots_.empty()) slots_.assign(8, -1);
  std::size_t slot = slot_of(item);
  if (slots_[slot] == item) return false;
  if (4 * (static_cast<std::size_t>(count_) + 1) > 3 * slots_.size()) {
    grow();
    slot = slot_of(item);
  }
  slots_[slot] = item;
  ++count_;
  return true;
}

bool ItemSet::contains(std::int32_t item) const { return !slots_.empty() && slots_[slot_of(item)] == item; }

void ItemSet::grow() {
  ItemSet larger;
  larger.slots_.assign(2 * slots_.size(), -1);
  for_each([&](std::int32_t item) { larger.slots_[larger.slot_of(item)] = item; });
  slots_.swap(larger.slots_);
}

std::vector<std::int32_t> ItemSet::items() const {
  std::vector<std::int32_t> all;
  all.reserve(static_cast<std::size_t>(count_));
  for_each([&](std::int32_t item) { all.push_back(item); });
  std::sort(all.begin(), all.end());
  return all;
}

}  // namespace tally::recsys
