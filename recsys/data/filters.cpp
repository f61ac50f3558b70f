#include "tally/recsys/data/filters.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <limits>

#include "tally/core/error.h"

namespace tally::recsys {

namespace {

constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();

[[noreturn]] void refuse_intervals(std::string_view text, std::string_view what) {
  fail<ValueError>("CountIntervals", what, "; got \"", text, "\"");
}

/// A bound of an interval: a whole number, or an infinity.
std::int64_t parse_bound(std::string_view bound, std::string_view text) {
  while (bound.starts_with(' ')) bound.remove_prefix(1);
  while (bound.ends_with(' ')) bound.remove_suffix(1);
  if (bound == "inf") return kMost;
  if (bound == "-inf") return -kMost;
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(bound.data(), bound.data() + bound.size(), value);
  if (error != std::errc() || end != bound.data() + bound.size() || value == kMost || value < -kMost) {
    refuse_intervals(text, "needs intervals such as \"[5,inf)\" or \"(3,100]\"");
  }
  return value;
}

/// Events of each user and item; one round of filtering marks those that go and closes the gaps.
class Filtering {
 public:
  Filtering(Interactions& data, const FilterOptions& options)
      : data_(data), options_(options), item_counts_(static_cast<std::size_t>(data.num_items()), 0) {
    for (const std::int32_t item : data.events) ++item_counts_[static_cast<std::size_t>(item)];
  }

  /// Whether anything was taken out.
  bool round() {
    // A user or item without events has nothing left to take out.
    banned_.resize(item_counts_.size());
    std::transform(item_counts_.begin(), item_counts_.end(), banned_.begin(),
                   [&](std::int64_t count) { return count > 0 && !options_.items.contains(count); });
    const std::int64_t before = data_.size();
    std::int64_t kept = 0;
    std::int64_t begin = 0;
    for (std::int64_t user = 0; user < data_.num_users(); ++user) {
      const std::int64_t end = data_.end_of(user);
      const bool user_banned = end > begin && !options_.users.contains(end - begin);
      for (std::int64_t row = begin; row < end; ++row) {
        const auto item = static_cast<std::size_t>(data_.events[static_cast<std::size_t>(row)]);
        if (user_banned || banned_[item]) {
          --item_counts_[item];
        } else {
          move_row(row, kept++);
        }
      }
      begin = end;
      data_.offsets[static_cast<std::size_t>(user) + 1] = kept;
    }
    const auto size = static_cast<std::size_t>(kept);
    data_.events.resize(size);
    if (!data_.ratings.empty()) data_.ratings.resize(size);
    if (!data_.times.empty()) data_.times.resize(size);
    return kept < before;
  }

  /// Drops users and items without events from the maps.
  void renumber() {
    IdMap items;
    std::vector<std::int32_t> new_index(item_counts_.size());
    for (std::size_t item = 0; item < item_counts_.size(); ++item) {
      if (item_counts_[item] > 0) new_index[item] = items.add(data_.items.name(static_cast<std::int32_t>(item)));
    }
    for (std::int32_t& item : data_.events) item = new_index[static_cast<std::size_t>(item)];
    IdMap users;
    std::vector<std::int64_t> offsets{0};
    for (std::int64_t user = 0; user < data_.num_users(); ++user) {
      if (data_.end_of(user) == data_.begin_of(user)) continue;
      users.add(data_.users.name(static_cast<std::int32_t>(user)));
      offsets.push_back(data_.end_of(user));
    }
    data_.items = std::move(items);
    data_.users = std::move(users);
    data_.offsets = std::move(offsets);
  }

 private:
  void move_row(std::int64_t from, std::int64_t to) {
    if (from == to) return;
    const auto a = static_cast<std::size_t>(from);
    const auto b = static_cast<std::size_t>(to);
    data_.events[b] = data_.events[a];
    if (!data_.ratings.empty()) data_.ratings[b] = data_.ratings[a];
    if (!data_.times.empty()) data_.times[b] = data_.times[a];
  }

  Interactions& data_;
  const FilterOptions& options_;
  std::vector<std::int64_t> item_counts_;
  std::vector<std::uint8_t> banned_;
};

}  // namespace

CountIntervals CountIntervals::parse(std::string_view text) {
  CountIntervals result;
  bool everything = text.empty();
  for (std::size_t begin = 0; begin <= text.size() && !text.empty();) {
    const std::size_t end = std::min(text.find(';', begin), text.size());
    const std::string_view interval = text.substr(begin, end - begin);
    begin = end + 1;
    const std::size_t comma = interval.find(',');
    if (comma == std::string_view::npos || (interval.front() != '[' && interval.front() != '(') ||
        (interval.back() != ']' && interval.back() != ')')) {
      refuse_intervals(text, "needs intervals such as \"[5,inf)\" or \"(3,100]\"");
    }
    std::int64_t least = parse_bound(interval.substr(1, comma - 1), text);
    std::int64_t most = parse_bound(interval.substr(comma + 1, interval.size() - comma - 2), text);
    if (interval.front() == '(' && least != -kMost) ++least;
    if (interval.back() == ')' && most != kMost) --most;
    if (least > most || least == kMost || most == -kMost) refuse_intervals(text, "has an interval without a count");
    everything = everything || (least <= 0 && most == kMost);
    result.intervals_.push_back({least, most});
  }
  if (everything) result.intervals_.clear();
  return result;
}

bool CountIntervals::contains(std::int64_t count) const {
  return intervals_.empty() || std::any_of(intervals_.begin(), intervals_.end(), [count](const Interval& interval) {
           return interval.least <= count && count <= interval.most;
         });
}

std::string FilterReport::to_text() const {
  return fmt::format("left out by counts: {} users, {} items, {} events in {} round{}\n", users, items, events, rounds,
                     rounds == 1 ? "" : "s");
}

Json FilterReport::to_json() const {
  return Json::object({{"rounds", rounds}, {"users", users}, {"items", items}, {"events", events}});
}

Interactions filter_by_counts(Interactions data, const FilterOptions& options, FilterReport* report) {
  FilterReport counted{.users = data.num_users(), .items = data.num_items(), .events = data.size()};
  if (!options.users.is_everything() || !options.items.is_everything()) {
    Filtering filtering(data, options);
    while (filtering.round()) {
      ++counted.rounds;
      if (options.core == Core::one_pass) break;
    }
    if (counted.rounds > 0) filtering.renumber();
  }
  counted.users -= data.num_users();
  counted.items -= data.num_items();
  counted.events -= data.size();
  if (report != nullptr) *report = counted;
  return data;
}

}  // namespace tally::recsys
