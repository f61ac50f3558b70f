// Every loss of training against its definition in double, and training with it: threads, shards, resuming.
#include "tally/recsys/training/loss.h"
#include "tally/recsys/models/sequence_model_of.h"

#include <catch2/catch.hpp>
#include <cmath>

#include "tally/core/parallel.h"
#include "tally/nn/training/trainer.h"
#include "tally/ops/losses/binary_cross_entropy.h"
#include "tally/ops/losses/item_cross_entropy.h"
#include "tally/recsys/models/recgrela.h"
#include "tally/recsys/models/sasrec.h"
#include "tally/recsys/training/recommender_task.h"
#include "tests/support/attention_choices.h"
#include "tests/support/temporary_directory.h"

namespace loss_test {

using namespace tally;
using namespace tally::recsys;
using Catch::Matchers::Contains;
using Kind = LossOptions::Kind;
using Average = LossOptions::Average;
using Distribution = NegativeSampling::Distribution;
using Scope = NegativeSampling::Scope;
using Exclude = NegativeSampling::Exclude;

namespace {

constexpr std::int64_t kItems = 30, kWidth = 5;

std::vector<std::vector<std::int32_t>> walks(int users) {
  std::vector<std::vector<std::int32_t>> all;
  for (int u = 0; u < users; ++u) {
    const RngKey key = RngKey{2, 0}.fold_in(static_cast<std::uint64_t>(u));
    std::vector<std::int32_t> walk;
    for (std::uint64_t i = 0; i < 1 + static_cast<std::uint64_t>(u) % 14; ++i) {
      walk.push_back(static_cast<std::int32_t>(uniform_below(key, 0, i, kItems)));
    }
    all.push_back(walk);
  }
  return all;
}

std::vector<std::span<const std::int32_t>> spans(const std::vector<std::vector<std::int32_t>>& lists) {
  return {lists.begin(), lists.end()};
}

/// One of each: what can be configured.
std::vector<LossOptions> all_losses() {
  const auto binary = Kind::binary_cross_entropy, softmax = Kind::sampled_softmax;
  std::vector<LossOptions> all{{}};
  all.push_back({.kind = binary, .negatives = {.exclude = Exclude::history}});
  all.push_back({.kind = binary, .negatives = {.count = 3, .exclude = Exclude::target}, .average = Average::samples});
  all.push_back({.kind = binary, .negatives = {.count = 4, .scope = Scope::sequence}, .average = Average::negatives});
  all.push_back({.kind = binary, .negatives = {.count = 2, .scope = Scope::batch}, .gbce_calibration = 0.75});
  all.push_back({.kind = softmax,
                 .negatives = {.count = 6, .distribution = Distribution::popularity, .alpha = 0.7},
                 .log_q = true});
  all.push_back(
      {.kind = softmax,
       .negatives = {.count = 12, .scope = Scope::sequence, .exclude = Exclude::history, .replacement = false}});
  all.push_back({.kind = softmax,
                 .negatives = {.count = 9, .distribution = Distribution::popularity, .scope = Scope::batch},
                 .log_q = true});
  return all;
}

/// The loss by definition, from scores in double.
double naive_loss(const LossOptions& options, const std::vector<double>& x, const std::vector<double>& table,
                  const TrainingShard& shard, const Tensor& negatives, const std::vector<double>& log_q) {
  const auto score = [&](std::int64_t row, std::int64_t item) {
    double sum = 0;
    for (std::int64_t d = 0; d < kWidth; ++d) {
      sum += x[static_cast<std::size_t>(row * kWidth + d)] * table[static_cast<std::size_t>(item * kWidth + d)];
    }
    return sum;
  };
  const auto softplus = [](double z) { return std::log1p(std::exp(z)); };
  const double count = static_cast<double>(options.negatives.count);
  const double alpha = count / static_cast<double>(kItems - 1);
  const double t = options.gbce_calibration;
  const double beta = t == 0 ? 1 : alpha * (t * (1 - 1 / alpha) + 1 / alpha);
  double total = 0;
  for (std::int64_t s = 0; s < shard.inputs.count(); ++s) {
    for (std::int64_t row = shard.inputs.offsets.at(s); row < shard.inputs.offsets.at(s + 1); ++row) {
      const std::int32_t target = shard.targets.data<std::int32_t>()[row];
      if (target < 0) continue;
      std::vector<std::int32_t> others;
      if (options.kind == Kind::cross_entropy) {
        for (std::int32_t i = 0; i < kItems; ++i) others.push_back(i);
      } else {
        const Scope scope = options.negatives.scope;
        const std::int64_t from = scope == Scope::position ? row : scope == Scope::sequence ? s : 0;
        for (std::int64_t k = 0; k < options.negatives.count; ++k) {
          const std::int32_t id = negatives.data<std::int32_t>()[from * options.negatives.count + k];
          if (id >= 0) others.push_back(id);
        }
      }
      if (options.kind == Kind::binary_cross_entropy) {
        double sum = 0;
        for (const std::int32_t item : others) sum += softplus(score(row, item));
        const double positive = beta * softplus(-score(row, target));
        total += options.average == Average::none      ? positive + sum
                 : options.average == Average::samples ? (positive + sum) / (1 + count)
                                                       : positive + sum / count;
        continue;
      }
      const auto corrected = [&](std::int32_t item) {
        return score(row, item) - (options.log_q ? log_q[static_cast<std::size_t>(item)] : 0);
      };
      double sum = std::exp(corrected(target));
      for (const std::int32_t item : others) sum += item == target ? 0 : std::exp(corrected(item));
      total += std::log(sum) - corrected(target);
    }
  }
  return total;
}

Tensor normal(const Shape& shape, std::uint64_t stream) {
  Tensor tensor(shape, DType::f64);
  fill_normal(RngKey{4, stream}, tensor, 0, 0.8);
  return tensor;
}

std::vector<double> log_popularity(const std::vector<std::vector<std::int32_t>>& data, double alpha) {
  std::vector<double> counts(kItems);
  for (const auto& list : data) {
    for (const std::int32_t item : list) counts[static_cast<std::size_t>(item)] += 1;
  }
  double sum = 0;
  for (double& count : counts) sum += count = count > 0 ? std::pow(count, alpha) : 0;
  for (double& count : counts) count = std::log(count / sum);
  return counts;
}

}  // namespace

TEST_CASE("every loss equals its definition", "[loss]") {
  const auto data = walks(40);
  const Tensor table = normal({kItems, kWidth}, 1);
  for (const TrainingSamples samples : {TrainingSamples::shifted, TrainingSamples::prefix}) {
    const TrainingBatches batches(
        spans(data), {.batch_size = 1000, .window = 20, .shard_tokens = 100, .samples = samples}, RngKey{3, 0});
    const TrainingBatch batch = batches.batch(0, 0);
    REQUIRE(batch.shards.size() > 1);
    for (const LossOptions& options : all_losses()) {
      INFO(options.description());
      const TrainingLoss loss(options, {spans(data), kItems});
      const auto log_q = log_popularity(data, options.negatives.alpha);
      double sum = 0, naive = 0;
      for (const TrainingShard& shard : batch.shards) {
        const Tensor x = normal({shard.targets.numel(), kWidth}, 2 + static_cast<std::uint64_t>(shard.first_row));
        const Tensor negatives = loss.draw_negatives(shard, RngKey{8, 8});
        sum += loss({x, table, shard, negatives, BatchItems(), 0.01}).item();
        naive += 0.01 * naive_loss(options, x.to_doubles(), table.to_doubles(), shard, negatives, log_q);
      }
      CHECK(sum == Approx(naive).epsilon(1e-10));
    }
  }
}

TEST_CASE("sampled softmax over all items is cross-entropy", "[loss]") {
  const auto data = walks(30);
  const TrainingBatches batches(spans(data), {.batch_size = 100, .window = 20}, RngKey{3, 0});
  const TrainingBatch batch = batches.batch(0, 0);
  const TrainingShard& shard = batch.shards[0];
  const Tensor x = normal({shard.targets.numel(), kWidth}, 2), table = normal({kItems, kWidth}, 1);
  const double full = TrainingLoss()({x, table, shard, {}, BatchItems(), 1}).item();
  for (const Scope scope : {Scope::sequence, Scope::batch}) {
    for (const bool log_q : {false, true}) {
      const TrainingLoss loss({.kind = Kind::sampled_softmax,
                               .negatives = {.count = kItems, .scope = scope, .replacement = false},
                               .log_q = log_q},
                              {spans(data), kItems});
      CHECK(loss({x, table, shard, loss.draw_negatives(shard, RngKey{1, 1}), BatchItems(), 1}).item() ==
            Approx(full).epsilon(1e-12));
    }
  }
}

TEST_CASE("losses whose parts do not fit are refused", "[loss]") {
  const auto data = walks(10);
  const auto make = [&](const LossOptions& options) { return TrainingLoss(options, {spans(data), kItems}); };
  CHECK_THROWS_WITH(make({.kind = Kind::binary_cross_entropy, .stage = LossStage::batch}), Contains("batch stage"));
  CHECK_THROWS_WITH(
      make({.kind = Kind::binary_cross_entropy, .negatives = {.scope = Scope::batch, .replacement = false}}),
      Contains("with replacement"));
  CHECK_THROWS_WITH(make({.kind = Kind::binary_cross_entropy,
                          .negatives = {.distribution = Distribution::popularity},
                          .gbce_calibration = 0.5}),
                    Contains("uniform negatives"));
  CHECK_THROWS_WITH(make({.kind = Kind::binary_cross_entropy, .negatives = {.count = 30}, .gbce_calibration = 0.5}),
                    Contains("fewer negatives than the 30 items"));
}

namespace {

std::unique_ptr<SequenceModel> small_model() {
  return std::make_unique<SequenceModelOf<SasRec>>(
      "sasrec",
      SasRec::make({.items = kItems,
                    .width = 8,
                    .blocks = 1,
                    .attention = attention_choice(nn::attention_kinds(), "softmax", {{"attn_dropout_prob", 0.2}}),
                    .window = 8,
                    .hidden_dropout = 0.2},
                   RngKey{1, 1}));
}

bool same_weights(const SequenceModel& a, const SequenceModel& b) {
  const auto wa = a.weights(), wb = b.weights();
  for (std::size_t i = 0; i < wa.size(); ++i) {
    if (!identical(wa[i], wb[i])) return false;
  }
  return wa.size() == wb.size();
}

/// A loss together with a way to cut samples: every loss and every way occurs.
struct Setting {
  LossOptions loss;
  TrainingBatches::Options cuts;
};

std::vector<Setting> settings() {
  const std::vector<TrainingBatches::Options> cuts{
      {.batch_size = 16, .window = 8, .samples = TrainingSamples::shifted},
      {.batch_size = 32, .window = 8, .samples = TrainingSamples::prefix, .prefixes_per_user = 3},
      {.batch_size = 16, .window = 8, .samples = TrainingSamples::window, .stride = 3},
      {.batch_size = 16, .window = 8, .samples = TrainingSamples::pieces}};
  std::vector<Setting> all;
  const auto losses = all_losses();
  for (std::size_t i = 0; i < losses.size(); ++i) all.push_back({losses[i], cuts[i % cuts.size()]});
  all.push_back({losses[1], cuts[0]});
  return all;
}

class Run {
 public:
  Run(const Setting& setting, const std::vector<std::vector<std::int32_t>>& data, std::int64_t shard_tokens)
      : model(small_model()),
        batches(spans(data), with_budget(setting.cuts, shard_tokens), RngKey{7, 8}),
        loss(setting.loss, {spans(data), kItems}) {
    options.epochs = 2;
    options.learning_rate = optim::Schedule{.peak = 0.01};
    options.key = RngKey{7, 7};
  }

  nn::TrainingOutcome train(nn::TrainerHooks hooks = {}) {
    RecommenderTask task(*model, batches, own_loss != nullptr ? own_loss : std::make_shared<TrainingLoss>(loss));
    nn::Trainer trainer(task, adam, options, std::move(hooks));
    if (const auto saved = trainer.restore()) progress = *saved;
    return trainer.run(progress);
  }

  std::unique_ptr<SequenceModel> model;
  optim::Adam adam;
  TrainingBatches batches;
  TrainingLoss loss;
  std::shared_ptr<const Loss> own_loss;  ///< in its place
  nn::TrainerOptions options;
  nn::TrainerProgress progress;

 private:
  static TrainingBatches::Options with_budget(TrainingBatches::Options cuts, std::int64_t shard_tokens) {
    cuts.shard_tokens = shard_tokens;
    return cuts;
  }
};

}  // namespace

TEST_CASE("every loss and sample trains to the same bits on 1, 2 and 8 threads", "[loss][threads]") {
  const auto data = walks(48);
  const int before = num_threads();
  for (const Setting& setting : settings()) {
    for (const std::int64_t budget : {6, 40}) {  // the first has wide shards
      std::vector<std::unique_ptr<SequenceModel>> models;
      for (const int threads : {1, 2, 8}) {
        set_num_threads(threads);
        Run run(setting, data, budget);
        run.train();
        models.push_back(std::move(run.model));
      }
      set_num_threads(before);
      INFO(setting.loss.description() << ", " << name_of(setting.cuts.samples) << ", budget " << budget);
      CHECK(same_weights(*models[0], *models[1]));
      CHECK(same_weights(*models[0], *models[2]));
      CHECK_FALSE(same_weights(*models[0], *small_model()));
    }
  }
}

TEST_CASE("the shard budget changes the loss of a step by rounding alone", "[loss]") {
  const auto data = walks(48);
  for (const Setting& setting : settings()) {
    std::vector<double> losses, norms;
    for (const std::int64_t budget : {6, 40, 10000}) {
      Run run(setting, data, budget);
      const StageResult step = training_step(*run.model, run.batches.batch(0, 0), RngKey{5, 5}, run.loss);
      double norm = 0;
      for (const auto& [leaf, gradient] : step.gradients) norm += sum_squares(gradient);
      losses.push_back(step.loss);
      norms.push_back(norm);
    }
    INFO(setting.loss.description() << ", " << name_of(setting.cuts.samples));
    CHECK(losses[1] == Approx(losses[0]).epsilon(1e-6));
    CHECK(losses[2] == Approx(losses[0]).epsilon(1e-6));
    CHECK(norms[1] == Approx(norms[0]).epsilon(1e-4));
    CHECK(norms[2] == Approx(norms[0]).epsilon(1e-4));
  }
}

TEST_CASE("sequences that drop path leaves out do not depend on the shard budget", "[loss]") {
  RecGrelaOptions options = recgrela_options();
  options.items = kItems, options.width = 8, options.blocks = 2, options.heads = 2, options.inner = 8;
  options.window = 8, options.hidden_dropout = 0, options.deviation = 0.3;
  const auto data = walks(48);
  const auto losses_at = [&](double rate) {
    options.drop_path = rate;
    const SequenceModelOf<RecGrela> model("recgrela", RecGrela::make(options, RngKey{1}));
    std::vector<double> losses;
    for (const std::int64_t budget : {6, 40, 10000}) {
      const Run run(settings()[0], data, budget);
      losses.push_back(training_step(model, run.batches.batch(0, 0), RngKey{5, 5}, run.loss).loss);
    }
    return losses;
  };
  const std::vector<double> dropped = losses_at(0.5);
  CHECK(dropped[1] == Approx(dropped[0]).epsilon(1e-6));
  CHECK(dropped[2] == Approx(dropped[0]).epsilon(1e-6));
  CHECK(losses_at(0)[0] != Approx(dropped[0]).epsilon(1e-4));
}

TEST_CASE("every loss and sample resumes to the weights of an uninterrupted training", "[loss][resume]") {
  const test::TemporaryDirectory directory;
  const auto data = walks(48);
  int runs = 0;
  for (const Setting& setting : settings()) {
    INFO(setting.loss.description() << ", " << name_of(setting.cuts.samples));
    Run whole(setting, data, 40);
    whole.train();
    const std::int64_t steps = whole.progress.step;
    REQUIRE(steps == 2 * whole.batches.batches_per_epoch());
    for (const std::int64_t stop_at : {std::int64_t{1}, steps / 2, steps - 1}) {
      const auto checkpoint = directory.path() / std::to_string(runs++);
      Run first(setting, data, 40), second(setting, data, 40);
      first.options.files.last = second.options.files.last = checkpoint;
      nn::TrainerHooks hooks;
      hooks.stop_requested = [&] { return first.progress.step >= stop_at; };
      CHECK(first.train(hooks) == nn::TrainingOutcome::interrupted);
      CHECK(second.train() == nn::TrainingOutcome::finished);
      CHECK(same_weights(*second.model, *whole.model));
    }
  }
}

TEST_CASE("without a validation all epochs are run and the last is the best", "[training]") {
  const auto data = walks(48);
  Run run(settings()[0], data, 40);
  run.options.epochs = 4;
  run.options.patience = 1;
  std::vector<std::int64_t> best;
  nn::TrainerHooks hooks;
  hooks.on_best = [&](const nn::TrainerProgress& now) { best.push_back(now.best_epoch); };
  CHECK(run.train(hooks) == nn::TrainingOutcome::finished);
  CHECK(best == std::vector<std::int64_t>{4});
  CHECK(run.progress.best_epoch == 4);
  CHECK(run.progress.epoch == 4);
}

namespace {

/// A program's own loss, once for the whole batch: cross-entropy in which the last item of each history counts double.
class LastCountsDouble final : public Loss {
 public:
  std::string description() const override { return "cross-entropy, the last item twice"; }
  bool whole_batch(std::int64_t, std::int64_t) const override { return true; }
  Var operator()(const LossRows& rows) const override {
    const Sequences& inputs = rows.shard.inputs;
    sequences += inputs.count();
    CHECK(inputs.users.numel() == inputs.count());
    Tensor weights = Tensor::full({rows.hidden.dim(0)}, 1);
    for (std::int64_t s = 0; s < inputs.count(); ++s) {
      weights.mutable_data<float>()[inputs.offsets.at(s + 1) - 1] = 2;
    }
    return ops::item_cross_entropy(rows.hidden, rows.table, rows.shard.targets,
                                   {.weights = weights, .reduction_scale = rows.scale});
  }

  mutable std::int64_t sequences = 0;
};

/// A program's own loss with items of its own choice: the binary cross-entropy of a target and the item after it.
class AgainstTheNext final : public Loss {
 public:
  std::string description() const override { return "against the next"; }
  bool needs_all_items() const override { return false; }
  Tensor draw_negatives(const TrainingShard& shard, RngKey) const override {
    Tensor next({shard.targets.numel(), 1}, DType::i32);
    for (std::int64_t i = 0; i < next.numel(); ++i) {
      const std::int32_t target = shard.targets.data<std::int32_t>()[i];
      next.mutable_data<std::int32_t>()[i] = target < 0 ? 0 : (target + 1) % static_cast<std::int32_t>(kItems);
    }
    return next;
  }
  Var operator()(const LossRows& rows) const override {
    return ops::binary_cross_entropy(rows.hidden, rows.table, rows.table_rows(rows.shard.targets),
                                     rows.table_rows(rows.negatives), {.reduction_scale = rows.scale});
  }
};

}  // namespace

TEST_CASE("a loss of one's own trains a recommender", "[loss][outside]") {
  const auto data = walks(48);
  // The loss of the tree, as a function of one's own: the same bits.
  Run tree(settings()[0], data, 40), outside(settings()[0], data, 40);
  outside.own_loss = loss_function("mine", [](const LossRows& rows) {
    return ops::item_cross_entropy(rows.hidden, rows.table, rows.shard.targets, {.reduction_scale = rows.scale});
  });
  CHECK(outside.own_loss->description() == "mine");
  tree.train();
  outside.train();
  CHECK(same_weights(*tree.model, *outside.model));
  CHECK_THROWS_AS(loss_function("nothing", {}), ConfigError);
  // Once for the whole batch, which has all sequences whatever the shards.
  const auto last = std::make_shared<LastCountsDouble>();
  for (const std::int64_t budget : {6, 10000}) {
    Run run(settings()[0], data, budget);
    const TrainingBatch batch = run.batches.batch(0, 0);
    last->sequences = 0;
    const nn::TaskStep step = training_step(*run.model, batch, RngKey{5, 5}, *last);
    CHECK(last->sequences == 16);
    CHECK(step.loss > training_step(*run.model, batch, RngKey{5, 5}).loss);
    CHECK(step.targets == batch.targets);
  }
  // With draws of its own, on 1 and 8 threads.
  const int before = num_threads();
  std::vector<std::unique_ptr<SequenceModel>> models;
  for (const int threads : {1, 8}) {
    set_num_threads(threads);
    Run run(settings()[0], data, 40);
    run.own_loss = std::make_shared<AgainstTheNext>();
    run.train();
    models.push_back(std::move(run.model));
  }
  set_num_threads(before);
  CHECK(same_weights(*models[0], *models[1]));
  CHECK_FALSE(same_weights(*models[0], *tree.model));
}

}  // namespace loss_test
