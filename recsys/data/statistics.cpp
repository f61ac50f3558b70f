#include "tally/recsys/data/statistics.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <unordered_set>

#include "tally/core/error.h"

namespace tally::recsys {

namespace {

void count_user(const Interactions& data, std::int64_t user, Statistics& result) {
  const std::int64_t length = data.end_of(user) - data.begin_of(user);
  result.single_event_users += length == 1;
  result.short_users += length < 3;
  const std::span<const std::int32_t> items = data.sequence(user);
  const std::unordered_set<std::int32_t> distinct(items.begin(), items.end());
  result.repeats += length - static_cast<std::int64_t>(distinct.size());
  if (!result.has_times) return;
  for (std::int64_t row = data.begin_of(user) + 1; row < data.end_of(user); ++row) {
    const bool tied = data.times[static_cast<std::size_t>(row)] == data.times[static_cast<std::size_t>(row) - 1];
    result.tied_pairs += tied;
    result.tied_last_users += tied && row + 1 == data.end_of(user);
  }
}

}  // namespace

Statistics statistics(const Interactions& data) {
  Statistics result;
  result.users = data.num_users();
  result.items = data.num_items();
  result.events = data.size();
  result.has_times = !data.times.empty();
  if (result.users == 0 || result.items == 0) return result;
  const auto users = static_cast<double>(result.users);
  result.density = static_cast<double>(result.events) / users / static_cast<double>(result.items);
  result.mean_length = static_cast<double>(result.events) / users;
  result.tenth_length = length_quantile(data, 0.1);
  result.median_length = length_quantile(data, 0.5);
  result.ninetieth_length = length_quantile(data, 0.9);
  result.shortest = static_cast<std::int64_t>(length_quantile(data, 0));
  result.longest = static_cast<std::int64_t>(length_quantile(data, 1));
  for (std::int64_t user = 0; user < result.users; ++user) count_user(data, user, result);
  return result;
}

double length_quantile(const Interactions& data, double q) {
  check<ValueError>(q >= 0 && q <= 1, "length_quantile", "needs a share in [0, 1]; got ", q);
  std::vector<std::int64_t> lengths;
  lengths.reserve(static_cast<std::size_t>(data.num_users()));
  for (std::int64_t user = 0; user < data.num_users(); ++user) {
    lengths.push_back(data.end_of(user) - data.begin_of(user));
  }
  if (lengths.empty()) return 0;
  std::sort(lengths.begin(), lengths.end());
  const double at = q * static_cast<double>(lengths.size() - 1);
  const auto below = static_cast<std::size_t>(std::floor(at));
  const std::size_t above = std::min(below + 1, lengths.size() - 1);
  const double share = at - static_cast<double>(below);
  return static_cast<double>(lengths[below]) * (1 - share) + static_cast<double>(lengths[above]) * share;
}

std::string Statistics::to_text() const {
  std::string text =
      fmt::format("users {}  items {}  events {}  density {:.3f}%\n", users, items, events, density * 100);
  text += fmt::format("length  mean {:.1f}  shortest {}  10 % {:.1f}  median {:.1f}  90 % {:.1f}  longest {}\n",
                      mean_length, shortest, tenth_length, median_length, ninetieth_length, longest);
  text += fmt::format("users with one event {}  with fewer than three {}  repeats {}\n", single_event_users,
                      short_users, repeats);
  text += has_times ? fmt::format("ties in time: {} neighbouring events, {} users' last two events\n", tied_pairs,
                                  tied_last_users)
                    : std::string("ties in time: unknown, the data is in file order\n");
  return text;
}

Json Statistics::to_json() const {
  return Json::object({{"users", users},
                       {"items", items},
                       {"events", events},
                       {"density", density},
                       {"mean_length", mean_length},
                       {"shortest", shortest},
                       {"tenth_length", tenth_length},
                       {"median_length", median_length},
                       {"ninetieth_length", ninetieth_length},
                       {"longest", longest},
                       {"single_event_users", single_event_users},
                       {"short_users", short_users},
                       {"repeats", repeats},
                       {"tied_pairs", has_times ? Json(tied_pairs) : Json()},
                       {"tied_last_users", has_times ? Json(tied_last_users) : Json()}});
}

std::int64_t count_unreachable(const Split& split, Part part) {
  const std::vector<std::int64_t> counts = split.training_counts();
  std::int64_t unreachable = 0;
  for (const Target& target : split.targets(part)) {
    unreachable += counts[static_cast<std::size_t>(split.item(target))] == 0;
  }
  return unreachable;
}

}  // namespace tally::recsys
