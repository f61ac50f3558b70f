#include "tally/recsys/data/id_map.h"

#include <algorithm>
#include <functional>
#include <limits>

#include "tally/core/error.h"

namespace tally::recsys {

IdMap::IdMap() : ends_(1, 0), slots_(64, Slot{0, -1}) {}

std::string_view IdMap::name(std::int32_t index) const {
  check<IndexError>(index >= 0 && index < size(), "IdMap", "needs an index in [0, ", size(), "); got ", index);
  const auto i = static_cast<std::size_t>(index);
  return std::string_view(bytes_).substr(ends_[i], ends_[i + 1] - ends_[i]);
}

std::size_t IdMap::slot_of(std::string_view name, std::size_t hash) const {
  const std::size_t mask = slots_.size() - 1;
  for (std::size_t at = hash & mask;; at = (at + 1) & mask) {
    const Slot& slot = slots_[at];
    if (slot.index < 0) return at;
    if (slot.hash == static_cast<std::uint32_t>(hash) && this->name(slot.index) == name) return at;
  }
}

std::int32_t IdMap::add(std::string_view name) {
  const std::size_t hash = std::hash<std::string_view>{}(name);
  const std::size_t at = slot_of(name, hash);
  if (slots_[at].index >= 0) return slots_[at].index;
  check<ValueError>(size() < std::numeric_limits<std::int32_t>::max(), "IdMap", "holds at most 2^31 - 1 ids");
  const auto index = static_cast<std::int32_t>(size());
  bytes_ += name;
  ends_.push_back(bytes_.size());
  slots_[at] = Slot{static_cast<std::uint32_t>(hash), index};
  if (static_cast<std::size_t>(size()) * 2 > slots_.size()) grow();
  return index;
}

std::optional<std::int32_t> IdMap::find(std::string_view name) const {
  const Slot& slot = slots_[slot_of(name, std::hash<std::string_view>{}(name))];
  return slot.index < 0 ? std::nullopt : std::optional(slot.index);
}

void IdMap::grow() {
  slots_.assign(slots_.size() * 2, Slot{0, -1});
  for (std::int32_t index = 0; index < size(); ++index) {
    const std::size_t hash = std::hash<std::string_view>{}(name(index));
    slots_[slot_of(name(index), hash)] = Slot{static_cast<std::uint32_t>(hash), index};
  }
}

bool id_less(std::string_view a, std::string_view b) {
  const auto is_number = [](std::string_view id) {
    return !id.empty() && std::all_of(id.begin(), id.end(), [](char c) { return c >= '0' && c <= '9'; });
  };
  const bool a_number = is_number(a);
  const bool b_number = is_number(b);
  if (a_number != b_number) return a_number;
  if (!a_number) return a < b;
  const auto digits = [](std::string_view id) { return id.substr(std::min(id.find_first_not_of('0'), id.size() - 1)); };
  const std::string_view x = digits(a);
  const std::string_view y = digits(b);
  if (x.size() != y.size()) return x.size() < y.size();
  if (x != y) return x < y;
  return a.size() < b.size();
}

}  // namespace tally::recsys
