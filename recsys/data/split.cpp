#include "tally/recsys/data/split.h"

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

Split leave_one_out(const Interactions& data) {
  std::vector<std::int64_t> training_end(data.offsets.begin() + 1, data.offsets.end());
  std::vector<Target> validation;
  std::vector<Target> test;
  for (std::int32_t user = 0; user < data.num_users(); ++user) {
    const std::int64_t end = data.end_of(user);
    if (end - data.begin_of(user) < 3) continue;
    training_end[static_cast<std::size_t>(user)] = end - 2;
    validation.push_back({user, end - 2});
    test.push_back({user, end - 1});
  }
  return Split("leave-one-out", data, std::move(training_end), std::move(validation), std::move(test));
}

}  // namespace tally::recsys
