#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "tally/core/random.h"
#include "tally/core/words.h"
#include "tally/recsys/data/interactions.h"

namespace tally::recsys {

/// One event to be predicted: the row of Interactions::events that holds the item, and its user. What comes before it
/// in the user's sequence is the history that may be used.
struct Target {
  std::int32_t user;
  std::int64_t row;

  friend bool operator==(const Target&, const Target&) = default;
};

enum class Part { validation, test };

const char* name_of(Part part);

/// Which events are trained on and which are predicted, as views: no event is copied. The interactions must outlive it.
class Split {
 public:
  /// `training_end[u]` is the row at which user u's training sequence ends. Throws ShapeError, or IndexError for a
  /// target that is not a row of its user or lies within the training sequence.
  Split(std::string name, const Interactions& data, std::vector<std::int64_t> training_end,
        std::vector<Target> validation, std::vector<Target> test);
  Split(std::string, Interactions&&, std::vector<std::int64_t>, std::vector<Target>, std::vector<Target>) = delete;

  /// As protocol lines name it: "leave-one-out", "leave-one-out (no validation)".
  const std::string& name() const { return name_; }
  const Interactions& data() const { return *data_; }
  /// The items of a user that are trained on, in order.
  std::span<const std::int32_t> training(std::int64_t user) const {
    return data_->rows(data_->begin_of(user), training_end_[static_cast<std::size_t>(user)]);
  }
  /// When they were; empty when the data have no times.
  std::span<const double> training_times(std::int64_t user) const {
    return data_->times_of_rows(data_->begin_of(user), training_end_[static_cast<std::size_t>(user)]);
  }
  std::int64_t training_size() const { return training_size_; }
  /// Validation targets may be none.
  const std::vector<Target>& targets(Part part) const { return part == Part::test ? test_ : validation_; }
  std::int32_t item(const Target& target) const { return data_->events[static_cast<std::size_t>(target.row)]; }
  /// Everything the user did before the target: a test history holds the validation item.
  std::span<const std::int32_t> history(const Target& target) const {
    return data_->rows(data_->begin_of(target.user), target.row);
  }
  /// When it was; empty when the data have no times.
  std::span<const double> history_times(const Target& target) const {
    return data_->times_of_rows(data_->begin_of(target.user), target.row);
  }
  /// [items] how often each item occurs in the training part.
  std::vector<std::int64_t> training_counts() const;

 private:
  std::string name_;
  const Interactions* data_;
  std::vector<std::int64_t> training_end_;
  std::vector<Target> validation_;
  std::vector<Target> test_;
  std::int64_t training_size_ = 0;
};

/// What happens to users that are too short to be evaluated.
enum class ShortUsers {
  train,  ///< they are trained on with all their events
  drop,   ///< they are not trained on either
};
constexpr auto words(ShortUsers) {
  using W = Word<ShortUsers>;
  return std::array{W{"train", ShortUsers::train}, W{"drop", ShortUsers::drop}};
}

struct LeaveOneOutOptions {
  bool validation = true;       ///< whether the last event but one is held out too, for validation
  std::int64_t min_length = 3;  ///< users with fewer events are not evaluated
  ShortUsers short_users = ShortUsers::train;
};

/// Of each user with at least `min_length` events the last is the test target, the one before it the validation target
/// (without validation it is trained on, as in LISA's and HSTU's evaluations), and the rest is trained on. Targets are
/// in order of users. The name of the split says what differs from the defaults. Throws ValueError for a minimum length
/// that leaves no event beside the targets.
Split leave_one_out(const Interactions& data, const LeaveOneOutOptions& options = {});
Split leave_one_out(Interactions&&, const LeaveOneOutOptions& = {}) = delete;

/// `at_most` of the targets, drawn uniformly without replacement by `key`, in the order they had; all of them when
/// there are no more. Large sets are often validated on, or tested on, 10,000 users. Throws ValueError for `at_most`
/// below 1.
std::vector<Target> sample_targets(std::span<const Target> targets, std::int64_t at_most, RngKey key);

}  // namespace tally::recsys
