#include "examples/question_answering/question_task.h"

#include <algorithm>
#include <numeric>

#include "tally/core/parallel.h"
#include "tally/ops/losses/item_cross_entropy.h"

namespace question_answering {

using tally::Json;
using tally::RngKey;
namespace nn = tally::nn;

std::vector<double> Accuracy::by_task() const {
  std::vector<double> shares;
  for (std::size_t i = 0; i < right.size(); ++i) {
    shares.push_back(asked[i] == 0 ? 0 : static_cast<double>(right[i]) / static_cast<double>(asked[i]));
  }
  return shares;
}

double Accuracy::mean() const {
  const std::vector<double> shares = by_task();
  return std::accumulate(shares.begin(), shares.end(), 0.0) /
         static_cast<double>(std::max<std::size_t>(1, shares.size()));
}

Accuracy measure_accuracy(const QuestionModel& model, const std::vector<QuestionShard>& shards, std::size_t tasks) {
  std::vector<std::vector<std::int32_t>> predicted(shards.size());
  tally::parallel_for(static_cast<std::int64_t>(shards.size()), 1, [&](std::int64_t s, std::int64_t) {
    predicted[static_cast<std::size_t>(s)] = model.predict(shards[static_cast<std::size_t>(s)]);
  });
  Accuracy accuracy{std::vector<std::int64_t>(tasks), std::vector<std::int64_t>(tasks)};
  for (std::size_t s = 0; s < shards.size(); ++s) {
    for (std::size_t i = 0; i < predicted[s].size(); ++i) {
      const auto task = static_cast<std::size_t>(shards[s].tasks[i]);
      ++accuracy.asked[task];
      if (predicted[s][i] == shards[s].answers.data<std::int32_t>()[i]) ++accuracy.right[task];
    }
  }
  return accuracy;
}

QuestionTask::QuestionTask(QuestionModel& model, const QuestionSet& set, const QuestionTaskOptions& options, RngKey key,
                           Json identity)
    : model_(model),
      set_(set),
      options_(options),
      key_(key),
      identity_(std::move(identity)),
      validation_(make_shards(set.validation, options.shard_words)),
      questions_(count_questions(set.training)) {
  std::size_t most = 0;
  for (const Document& document : set.training) most = std::max(most, document.questions.size());
  tally::check<tally::ConfigError>(options.batch_questions >= static_cast<std::int64_t>(most), "train.batch_questions",
                                   "needs at least ", most, " for a document with as many questions; got ",
                                   options.batch_questions);
  // The last batch takes what is left: no batch is empty, however documents fall.
  steps_ = std::max<std::int64_t>(1, questions_ / options.batch_questions);
}

void QuestionTask::arrange(std::int64_t epoch) {
  if (arranged_ == epoch) return;
  order_ = tally::random_permutation(key_.fold_in("order").fold_in(static_cast<std::uint64_t>(epoch)),
                                     static_cast<std::int64_t>(set_.training.size()));
  begins_.assign(1, 0);
  std::int64_t before = 0;
  for (std::size_t i = 0; i < order_.size(); ++i) {
    const auto batch = std::min(before / options_.batch_questions, steps_ - 1);
    if (batch == static_cast<std::int64_t>(begins_.size())) begins_.push_back(static_cast<std::int64_t>(i));
    before += static_cast<std::int64_t>(set_.training[static_cast<std::size_t>(order_[i])].questions.size());
  }
  begins_.push_back(static_cast<std::int64_t>(order_.size()));
  arranged_ = epoch;
}

nn::TaskStep QuestionTask::step(const nn::StepPlace& place) {
  arrange(place.epoch);
  const auto begin = begins_.at(static_cast<std::size_t>(place.index)),
             end = begins_.at(static_cast<std::size_t>(place.index) + 1);
  const std::vector<QuestionShard> shards = make_shards(
      set_.training, std::span(order_).subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin)),
      options_.shard_words);
  std::int64_t questions = 0, rows = 0;
  for (const QuestionShard& shard : shards) {
    questions += shard.count();
    rows += shard.documents.total() + shard.questions.total();
  }
  tally::Stages stages;
  stages.shards = static_cast<std::int64_t>(shards.size());
  stages.encode = [&](std::int64_t s, std::span<const tally::Var>) -> tally::ShardOutput {
    const QuestionShard& shard = shards[static_cast<std::size_t>(s)];
    const tally::Var mixed = model_(shard, {.training = true, .key = place.key});
    return {tally::ops::item_cross_entropy(
                mixed, model_.answers.weight, shard.answers,
                {.bias = model_.answers.bias, .reduction_scale = 1 / static_cast<double>(questions)}),
            {}};
  };
  return {tally::run_stages(stages, place.configure), questions, rows, {}};
}

nn::Validation QuestionTask::validate(std::int64_t) {
  const Accuracy accuracy = measure_accuracy(model_, validation_, set_.tasks.size());
  return {accuracy.mean(), Json::object({{"accuracy", accuracy.mean()}, {"by_task", Json(accuracy.by_task())}})};
}

}  // namespace question_answering
