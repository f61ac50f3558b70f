#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tally/core/io/json.h"
#include "tally/core/words.h"
#include "tally/recsys/data/interactions.h"

namespace tally::recsys {

/// A set of counts, written as RecBole writes it: "[5,inf)", "(3,100]", or several, "[2,4];[10,inf)".
class CountIntervals {
 public:
  /// Every count.
  CountIntervals() = default;
  /// Bounds are whole numbers, -inf or inf. The empty text and "[-inf,inf]" are every count. Throws ValueError for
  /// another form and for an interval that holds no count.
  static CountIntervals parse(std::string_view text);

  bool contains(std::int64_t count) const;
  bool is_everything() const { return intervals_.empty(); }

 private:
  struct Interval {
    std::int64_t least, most;
  };
  std::vector<Interval> intervals_;  // none: every count
};

/// Two data sets come from the same "5-core" setting by these two, and published versions use either.
enum class Core {
  iterative,  ///< again and again until every user and item that is left has an allowed count: the k-core (RecBole)
  one_pass,   ///< once, by the counts of the unfiltered data; what is left may be below them (SASRec's script)
};
constexpr auto words(Core) {
  using W = Word<Core>;
  return std::array{W{"iterative", Core::iterative}, W{"one_pass", Core::one_pass}};
}

struct FilterOptions {
  CountIntervals users = {};  ///< allowed numbers of events of a user
  CountIntervals items = {};  ///< allowed numbers of events of an item
  Core core = Core::iterative;
};

/// What a filter took out.
struct FilterReport {
  std::int64_t rounds = 0;  ///< that took something out
  std::int64_t users = 0;
  std::int64_t items = 0;
  std::int64_t events = 0;

  /// "left out by counts: 3 users, 5 items, 41 events in 2 rounds" and a newline.
  std::string to_text() const;
  Json to_json() const;
};

/// Takes out the events of users and items whose number of events is not allowed; in each round users and items are
/// judged by the same counts, as in RecBole and SASRec. Users and items that no event is left of are gone from the
/// maps; the others keep their ids and their order. Time O(events) a round. Nothing may be left.
Interactions filter_by_counts(Interactions data, const FilterOptions& options, FilterReport* report = nullptr);

}  // namespace tally::recsys
