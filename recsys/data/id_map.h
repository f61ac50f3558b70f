#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tally::recsys {

/// External ids (strings) and their dense indices 0, 1, 2, ... in order of first appearance. All names lie in one piece
/// of memory; adding a known name allocates nothing.
class IdMap {
 public:
  IdMap();

  /// The index of `name`, a new one if it is not known yet. Throws ValueError beyond 2^31 - 1 names.
  std::int32_t add(std::string_view name);
  /// The index of `name`, or nothing.
  std::optional<std::int32_t> find(std::string_view name) const;
  /// The name of an index in [0, size()); valid until the next add().
  std::string_view name(std::int32_t index) const;
  std::int64_t size() const { return static_cast<std::int64_t>(ends_.size()) - 1; }
  /// The same names in the same order.
  friend bool operator==(const IdMap& a, const IdMap& b) { return a.ends_ == b.ends_ && a.bytes_ == b.bytes_; }

 private:
  struct Slot {
    std::uint32_t hash;
    std::int32_t index;  // -1: free
  };

  /// The slot that holds `name`, or the free slot where it belongs.
  std::size_t slot_of(std::string_view name, std::size_t hash) const;
  void grow();

  std::string bytes_;
  std::vector<std::size_t> ends_;  // name i is bytes_[ends_[i], ends_[i + 1])
  std::vector<Slot> slots_;        // open addressing; a power of two, at most half full
};

/// Order of ids for rules that sort by id: whole numbers first, by value; then everything else, by bytes.
bool id_less(std::string_view a, std::string_view b);

}  // namespace tally::recsys
