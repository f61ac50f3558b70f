#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "tally/core/words.h"
#include "tally/recsys/data/id_map.h"

namespace tally::recsys {

/// What decides between events of a user at the same time. The rule changes the data set: with another one, up to a
/// quarter of the last items of MovieLens 1M differ. It is part of every protocol line.
enum class TieRule {
  file_order,  ///< as they stand in the file
  item_id,     ///< by item id, ascending (`id_less`)
  random,      ///< in an order drawn by OrderOptions::tie_seed and the place in the file
};
constexpr auto words(TieRule) {
  using W = Word<TieRule>;
  return std::array{W{"file_order", TieRule::file_order}, W{"item_id", TieRule::item_id}, W{"random", TieRule::random}};
}

/// What happens to further events of the same user with the same item.
enum class Duplicates {
  keep,
  first,  ///< the earliest stays
  last,   ///< the latest stays
};
constexpr auto words(Duplicates) {
  using W = Word<Duplicates>;
  return std::array{W{"keep", Duplicates::keep}, W{"first", Duplicates::first}, W{"last", Duplicates::last}};
}

/// Who interacted with what, in order: the items of all users, packed user after user, each user's in time order.
/// Users and items are dense indices; `users` and `items` map them to the ids of the file.
struct Interactions {
  IdMap users;
  IdMap items;
  std::vector<std::int64_t> offsets{0};  ///< [users + 1]; user u owns rows [offsets[u], offsets[u + 1])
  std::vector<std::int32_t> events;      ///< [rows] item index of each row
  std::vector<float> ratings;            ///< [rows], or empty: the data has none
  std::vector<double> times;             ///< [rows], what the rows were ordered by, or empty: file order

  std::int64_t num_users() const { return users.size(); }
  std::int64_t num_items() const { return items.size(); }
  std::int64_t size() const { return static_cast<std::int64_t>(events.size()); }
  std::int64_t begin_of(std::int64_t user) const { return offsets[static_cast<std::size_t>(user)]; }
  std::int64_t end_of(std::int64_t user) const { return offsets[static_cast<std::size_t>(user) + 1]; }
  /// Rows [begin, end) of `events`.
  std::span<const std::int32_t> rows(std::int64_t begin, std::int64_t end) const {
    return std::span(events).subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin));
  }
  /// Rows [begin, end) of `times`; nothing when there are none.
  std::span<const double> times_of_rows(std::int64_t begin, std::int64_t end) const {
    if (times.empty()) return {};
    return std::span(times).subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin));
  }
  std::span<const std::int32_t> sequence(std::int64_t user) const { return rows(begin_of(user), end_of(user)); }
};

/// Events in the order of a file, by column. `ratings` and `times` are as long as `users`, or empty.
struct EventColumns {
  std::vector<std::int32_t> users;
  std::vector<std::int32_t> items;
  std::vector<float> ratings;
  std::vector<double> times;
};

struct OrderOptions {
  TieRule ties = TieRule::file_order;
  std::uint64_t tie_seed = 0;  ///< of TieRule::random
  Duplicates duplicates = Duplicates::keep;
};

/// Groups events by user and orders each user's by time (stable; by nothing when there are no times). Takes the columns
/// apart as it goes, to keep memory low. Throws ShapeError when columns differ in length and IndexError for an index
/// outside its map.
Interactions group_by_user(IdMap users, IdMap items, EventColumns events, const OrderOptions& options = {});

/// SHA-256 of who did what, in order, and of the ratings and times that were read with it. Data that differ in any of
/// these have different hashes: every id is preceded by its length and every user's events by their number. The order
/// of users in the file makes no difference. What is hashed, integers as 8 bytes and all numbers little-endian: the
/// number of users; 1 or 0 for ratings, and for times; then each user, ascending by id (`id_less`): length and bytes of
/// the id, number of events, and for each event length and bytes of the item's id, the rating in f32, the time in f64.
std::string content_hash(const Interactions& data);

/// The name git gives a file of lines `user item` (`git hash-object`), users ascending by id, each user's events in
/// order: how published files are told apart. Ids that hold spaces can make two data sets of one such text.
std::string git_blob_id(const Interactions& data);

/// The same interactions with users and items numbered as they are here, whatever their order in `data`. Throws IoError
/// naming an id that only one of them has.
Interactions renumbered(const Interactions& data, const IdMap& users, const IdMap& items);

}  // namespace tally::recsys
