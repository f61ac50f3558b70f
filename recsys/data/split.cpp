#include "tally/recsys/data/split.h"

#include <algorithm>
#include <utility>

#include "tally/core/error.h"

namespace tally::recsys {

const char* name_of(Part part) { return part == Part::test ? "test" : "validation"; }

Split::Split(std::string name, const Interactions& data, std::vector<std::int64_t> training_end,
             std::vector<Target> validation, std::vector<Target> test)
    : name_(std::move(name)),
      data_(&data),
      training_end_(std::move(training_end)),
      validation_(std::move(validation)),
      test_(std::move(test)) {
  check<ShapeError>(static_cast<std::int64_t>(training_end_.size()) == data.num_users(), "Split",
                    "needs one end of training for each of ", data.num_users(), " users; got ", training_end_.size());
  for (std::int64_t user = 0; user < data.num_users(); ++user) {
    const std::int64_t end = training_end_[static_cast<std::size_t>(user)];
    check<IndexError>(end >= data.begin_of(user) && end <= data.end_of(user), "Split",
                      "needs the end of training of user ", user, " within rows ", data.begin_of(user), " to ",
                      data.end_of(user), "; got ", end);
    training_size_ += end - data.begin_of(user);
  }
  for (const Part part : {Part::validation, Part::test}) {
    for (const Target& target : targets(part)) {
      check<IndexError>(target.user >= 0 && target.user < data.num_users(), "Split", "needs users below ",
                        data.num_users(), "; got ", target.user);
      check<IndexError>(
          target.row >= training_end_[static_cast<std::size_t>(target.user)] && target.row < data.end_of(target.user),
          "Split", "needs ", name_of(part), " targets after the training sequence of user ", target.user,
          " and within their events; got row ", target.row);
    }
  }
}

std::vector<std::int64_t> Split::training_counts() const {
  std::vector<std::int64_t> counts(static_cast<std::size_t>(data_->num_items()));
  for (std::int64_t user = 0; user < data_->num_users(); ++user) {
    for (const std::int32_t item : training(user)) ++counts[static_cast<std::size_t>(item)];
  }
  return counts;
}

namespace {

std::string name_of(const LeaveOneOutOptions& options) {
  std::string differences;
  const auto add = [&](const std::string& text) { differences += (differences.empty() ? "" : "; ") + text; };
  if (!options.validation) add("no validation");
  if (options.min_length != LeaveOneOutOptions().min_length) {
    add("users of " + std::to_string(options.min_length) + " events or more");
  }
  if (options.short_users == ShortUsers::drop) add("shorter users dropped");
  return differences.empty() ? "leave-one-out" : "leave-one-out (" + differences + ")";
}

}  // namespace

Split leave_one_out(const Interactions& data, const LeaveOneOutOptions& options) {
  const std::int64_t held_out = options.validation ? 2 : 1;
  check<ValueError>(options.min_length > held_out, "leave_one_out", "needs a minimum length of at least ", held_out + 1,
                    ", for ", held_out, " held-out and one more; got ", options.min_length);
  std::vector<std::int64_t> training_end(data.offsets.begin() + 1, data.offsets.end());
  std::vector<Target> validation;
  std::vector<Target> test;
  for (std::int32_t user = 0; user < data.num_users(); ++user) {
    const std::int64_t end = data.end_of(user);
    std::int64_t& mine = training_end[static_cast<std::size_t>(user)];
    if (end - data.begin_of(user) < options.min_length) {
      if (options.short_users == ShortUsers::drop) mine = data.begin_of(user);
      continue;
    }
    mine = end - held_out;
    if (options.validation) validation.push_back({user, end - 2});
    test.push_back({user, end - 1});
  }
  return Split(name_of(options), data, std::move(training_end), std::move(validation), std::move(test));
}

std::vector<Target> sample_targets(std::span<const Target> targets, std::int64_t at_most, RngKey key) {
  check<ValueError>(at_most >= 1, "sample_targets", "needs at least 1 target; got ", at_most);
  const auto size = static_cast<std::int64_t>(targets.size());
  if (size <= at_most) return {targets.begin(), targets.end()};
  std::vector<std::int64_t> chosen = random_permutation(key, size);
  chosen.resize(static_cast<std::size_t>(at_most));
  std::sort(chosen.begin(), chosen.end());
  std::vector<Target> sample;
  sample.reserve(chosen.size());
  for (const std::int64_t i : chosen) sample.push_back(targets[static_cast<std::size_t>(i)]);
  return sample;
}

}  // namespace tally::recsys
