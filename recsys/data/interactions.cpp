#include "tally/recsys/data/interactions.h"

#include <algorithm>
#include <bit>
#include <numeric>
#include <unordered_set>

#include "tally/core/error.h"
#include "tally/core/io/sha1.h"
#include "tally/core/io/sha256.h"
#include "tally/core/parallel.h"
#include "tally/core/random.h"

namespace tally::recsys {

namespace {

constexpr std::int64_t kUsersPerBlock = 256;

void check_columns(const IdMap& users, const IdMap& items, const EventColumns& events) {
  const std::size_t rows = events.users.size();
  const auto fits = [rows](std::size_t size) { return size == 0 || size == rows; };
  check<ShapeError>(events.items.size() == rows && fits(events.ratings.size()) && fits(events.times.size()),
                    "group_by_user", "needs columns of one length; got ", rows, " users, ", events.items.size(),
                    " items, ", events.ratings.size(), " ratings and ", events.times.size(), " times");
  for (std::size_t i = 0; i < rows; ++i) {
    check<IndexError>(events.users[i] >= 0 && events.users[i] < users.size() && events.items[i] >= 0 &&
                          events.items[i] < items.size(),
                      "group_by_user", "needs users below ", users.size(), " and items below ", items.size(),
                      "; got user ", events.users[i], " and item ", events.items[i], " in row ", i);
  }
}

/// Rows of the file, grouped by user, in file order within a user; fills the offsets.
std::vector<std::int64_t> rows_by_user(const std::vector<std::int32_t>& users, std::vector<std::int64_t>& offsets) {
  for (const std::int32_t user : users) ++offsets[static_cast<std::size_t>(user) + 1];
  std::partial_sum(offsets.begin(), offsets.end(), offsets.begin());
  std::vector<std::int64_t> next(offsets.begin(), offsets.end() - 1);
  std::vector<std::int64_t> rows(users.size());
  for (std::size_t i = 0; i < users.size(); ++i) {
    rows[static_cast<std::size_t>(next[static_cast<std::size_t>(users[i])]++)] = static_cast<std::int64_t>(i);
  }
  return rows;
}

void order_in_time(const IdMap& items, const EventColumns& events, const OrderOptions& options,
                   std::span<std::int64_t> rows) {
  const RngKey key = RngKey{options.tie_seed, 0}.fold_in("ties");
  const auto earlier = [&](std::int64_t a, std::int64_t b) {
    const auto x = static_cast<std::size_t>(a);
    const auto y = static_cast<std::size_t>(b);
    if (events.times[x] != events.times[y] || options.ties == TieRule::file_order) {
      return events.times[x] < events.times[y];
    }
    if (options.ties == TieRule::random) return uniform(key, x, 0) < uniform(key, y, 0);
    return events.items[x] != events.items[y] && id_less(items.name(events.items[x]), items.name(events.items[y]));
  };
  if (!std::is_sorted(rows.begin(), rows.end(), earlier)) std::stable_sort(rows.begin(), rows.end(), earlier);
}

/// Keeps the first or last row of each item, in order; returns how many stay, at the front of `rows`.
std::size_t drop_duplicates(const std::vector<std::int32_t>& items, Duplicates rule, std::span<std::int64_t> rows) {
  std::unordered_set<std::int32_t> seen;
  const auto repeated = [&](std::int64_t row) { return !seen.insert(items[static_cast<std::size_t>(row)]).second; };
  if (rule == Duplicates::first) {
    return static_cast<std::size_t>(std::remove_if(rows.begin(), rows.end(), repeated) - rows.begin());
  }
  // Walks backwards, so that the last is met first, and closes the gap at the front afterwards.
  const auto kept_begin = std::remove_if(rows.rbegin(), rows.rend(), repeated).base();
  return static_cast<std::size_t>(std::move(kept_begin, rows.end(), rows.begin()) - rows.begin());
}

template <class T>
std::vector<T> gather(const std::vector<std::int64_t>& rows, std::vector<T>&& column) {
  std::vector<T> result;
  if (!column.empty()) result.resize(rows.size());
  for (std::size_t i = 0; i < result.size(); ++i) result[i] = column[static_cast<std::size_t>(rows[i])];
  std::vector<T>().swap(column);
  return result;
}

}  // namespace

Interactions group_by_user(IdMap users, IdMap items, EventColumns events, const OrderOptions& options) {
  check_columns(users, items, events);
  Interactions data;
  data.users = std::move(users);
  data.items = std::move(items);
  data.offsets.assign(static_cast<std::size_t>(data.num_users()) + 1, 0);
  std::vector<std::int64_t> rows = rows_by_user(events.users, data.offsets);
  std::vector<std::int32_t>().swap(events.users);

  std::vector<std::int64_t> kept(static_cast<std::size_t>(data.num_users()));
  parallel_for(data.num_users(), kUsersPerBlock, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t user = begin; user < end; ++user) {
      const auto size = static_cast<std::size_t>(data.end_of(user) - data.begin_of(user));
      const auto mine = std::span(rows).subspan(static_cast<std::size_t>(data.begin_of(user)), size);
      if (!events.times.empty()) order_in_time(data.items, events, options, mine);
      const bool all = options.duplicates == Duplicates::keep;
      kept[static_cast<std::size_t>(user)] =
          static_cast<std::int64_t>(all ? size : drop_duplicates(events.items, options.duplicates, mine));
    }
  });
  std::int64_t filled = 0;
  for (std::int64_t user = 0; user < data.num_users(); ++user) {
    const std::int64_t begin = data.begin_of(user);
    const std::int64_t count = kept[static_cast<std::size_t>(user)];
    if (begin != filled) std::copy_n(rows.begin() + begin, count, rows.begin() + filled);
    data.offsets[static_cast<std::size_t>(user)] = filled;
    filled += count;
  }
  data.offsets.back() = filled;
  rows.resize(static_cast<std::size_t>(filled));

  data.events = gather(rows, std::move(events.items));
  data.ratings = gather(rows, std::move(events.ratings));
  data.times = gather(rows, std::move(events.times));
  return data;
}

namespace {

/// User indices, ascending by id.
std::vector<std::int32_t> users_by_id(const IdMap& users) {
  std::vector<std::int32_t> order(static_cast<std::size_t>(users.size()));
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(),
            [&](std::int32_t a, std::int32_t b) { return id_less(users.name(a), users.name(b)); });
  return order;
}

/// Appends an unsigned integer, lowest byte first.
template <class Unsigned>
void append_bytes(std::string& bytes, Unsigned value) {
  for (std::size_t i = 0; i < sizeof(value); ++i) bytes += static_cast<char>(value >> (8 * i) & 0xff);
}

void append_id(std::string& bytes, std::string_view id) {
  append_bytes(bytes, std::uint64_t{id.size()});
  bytes += id;
}

}  // namespace

std::string content_hash(const Interactions& data) {
  Sha256 hash;
  std::string bytes;
  append_bytes(bytes, static_cast<std::uint64_t>(data.num_users()));
  append_bytes(bytes, std::uint64_t{!data.ratings.empty()});
  append_bytes(bytes, std::uint64_t{!data.times.empty()});
  for (const std::int32_t user : users_by_id(data.users)) {
    append_id(bytes, data.users.name(user));
    append_bytes(bytes, static_cast<std::uint64_t>(data.end_of(user) - data.begin_of(user)));
    for (auto row = static_cast<std::size_t>(data.begin_of(user)); row < static_cast<std::size_t>(data.end_of(user));
         ++row) {
      append_id(bytes, data.items.name(data.events[row]));
      // Of the two zeros, which are equal, the positive one.
      if (!data.ratings.empty()) append_bytes(bytes, std::bit_cast<std::uint32_t>(data.ratings[row] + 0.0F));
      if (!data.times.empty()) append_bytes(bytes, std::bit_cast<std::uint64_t>(data.times[row] + 0.0));
    }
    hash.update(bytes);
    bytes.clear();
  }
  hash.update(bytes);
  return hash.hex();
}

std::string git_blob_id(const Interactions& data) {
  std::size_t bytes = 0;
  for (std::int32_t user = 0; user < data.num_users(); ++user) {
    for (const std::int32_t item : data.sequence(user)) {
      bytes += data.users.name(user).size() + data.items.name(item).size() + 2;
    }
  }
  Sha1 hash;
  hash.update("blob " + std::to_string(bytes) + std::string(1, '\0'));
  std::string text;
  for (const std::int32_t user : users_by_id(data.users)) {
    text.clear();
    for (const std::int32_t item : data.sequence(user)) {
      text.append(data.users.name(user)).append(1, ' ').append(data.items.name(item)).append(1, '\n');
    }
    hash.update(text);
  }
  return hash.hex();
}

namespace {

/// The place in `to` of each id of `from`.
std::vector<std::int32_t> places(const IdMap& from, const IdMap& to, std::string_view what) {
  check<IoError>(from.size() == to.size(), "data", "needs the ", to.size(), ' ', what, "s of the run; got ",
                 from.size());
  std::vector<std::int32_t> result;
  result.reserve(static_cast<std::size_t>(from.size()));
  for (std::int32_t i = 0; i < from.size(); ++i) {
    const std::optional<std::int32_t> place = to.find(from.name(i));
    check<IoError>(place.has_value(), "data", "has ", what, " '", from.name(i), "', which the run does not know");
    result.push_back(*place);
  }
  return result;
}

/// rows [old user's begin, end) of a column, in the order of the new users.
template <class T>
void move_rows(const Interactions& data, const std::vector<std::int32_t>& old_user, const std::vector<T>& from,
               std::vector<T>& to) {
  to.clear();
  to.reserve(from.size());
  if (from.empty()) return;
  for (const std::int32_t user : old_user) {
    to.insert(to.end(), from.begin() + data.begin_of(user), from.begin() + data.end_of(user));
  }
}

}  // namespace

Interactions renumbered(const Interactions& data, const IdMap& users, const IdMap& items) {
  const std::vector<std::int32_t> new_user = places(data.users, users, "user"),
                                  new_item = places(data.items, items, "item");
  std::vector<std::int32_t> old_user(new_user.size());
  for (std::size_t u = 0; u < new_user.size(); ++u) {
    old_user[static_cast<std::size_t>(new_user[u])] = static_cast<std::int32_t>(u);
  }
  Interactions result;
  result.users = users;
  result.items = items;
  result.offsets.reserve(data.offsets.size());
  for (const std::int32_t user : old_user) {
    result.offsets.push_back(result.offsets.back() + data.end_of(user) - data.begin_of(user));
  }
  move_rows(data, old_user, data.events, result.events);
  move_rows(data, old_user, data.ratings, result.ratings);
  move_rows(data, old_user, data.times, result.times);
  for (std::int32_t& item : result.events) item = new_item[static_cast<std::size_t>(item)];
  return result;
}

}  // namespace tally::recsys
