#include "tally/nn/training/trainer.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <optional>

#include "tally/core/parallel.h"
#include "tally/nn/training/checkpoint.h"
#include "tally/recsys/models/neural_ranker.h"
#include "tally/recsys/models/sasrec.h"
#include "tally/recsys/models/sequence_model_of.h"
#include "tally/recsys/training/recommender_task.h"
#include "tests/support/attention_choices.h"
#include "tests/support/temporary_directory.h"

namespace training_test {

using namespace tally;
using namespace tally::recsys;
using Catch::Matchers::Contains;

namespace {

constexpr std::int64_t kItems = 60;

/// Users who walk through the items in steps of 1, 2 or 3, with a few random jumps.
std::vector<std::vector<std::int32_t>> walks(int users, std::uint64_t seed) {
  std::vector<std::vector<std::int32_t>> all;
  for (int u = 0; u < users; ++u) {
    const RngKey key = RngKey{seed, 0}.fold_in(static_cast<std::uint64_t>(u));
    const auto length = static_cast<std::uint64_t>(uniform_below(key, 0, 0, 30));
    auto item = static_cast<std::int64_t>(uniform_below(key, 0, 1, kItems));
    std::vector<std::int32_t> walk;
    for (std::uint64_t i = 0; i < length; ++i) {
      walk.push_back(static_cast<std::int32_t>(item));
      const bool jump = uniform_below(key, 1, i, 10) == 0;
      item = jump ? static_cast<std::int64_t>(uniform_below(key, 2, i, kItems)) : (item + 1 + u % 3) % kItems;
    }
    all.push_back(std::move(walk));
  }
  return all;
}

std::vector<std::span<const std::int32_t>> spans(const std::vector<std::vector<std::int32_t>>& walks) {
  return {walks.begin(), walks.end()};
}

SasRecOptions small_sasrec(nn::NormPlacement norm = nn::NormPlacement::sasrec) {
  return {.items = kItems,
          .width = 16,
          .blocks = 2,
          .heads = 2,
          .attention = attention_choice(nn::attention_kinds(), "softmax", {{"attn_dropout_prob", 0.2}}),
          .window = 20,
          .hidden_dropout = 0.2,
          .norm = norm};
}

std::unique_ptr<SequenceModel> small_model(nn::NormPlacement norm = nn::NormPlacement::sasrec) {
  return std::make_unique<SequenceModelOf<SasRec>>("sasrec", SasRec::make(small_sasrec(norm), RngKey{1, 1}));
}

std::vector<Tensor> weights(SequenceModel& model) {
  std::vector<Tensor> copies;
  for (const auto& [path, tensor] : model.state()) copies.push_back(tensor->clone());
  return copies;
}

bool same_weights(SequenceModel& a, SequenceModel& b) {
  const auto wa = weights(a), wb = weights(b);
  for (std::size_t i = 0; i < wa.size(); ++i) {
    if (!identical(wa[i], wb[i])) return false;
  }
  return wa.size() == wb.size();
}

nn::TrainerOptions small_options() {
  nn::TrainerOptions options;
  options.epochs = 3;
  options.patience = 0;
  options.clip_norm = 5;
  options.learning_rate = optim::Schedule{.peak = 0.01};
  options.key = RngKey{7, 7};
  return options;
}

/// Trains a fresh small model.
std::unique_ptr<SequenceModel> train(const std::vector<std::vector<std::int32_t>>& data,
                                     const TrainingBatches::Options& cuts, LossStage stage = LossStage::automatic) {
  auto model = small_model();
  optim::Adam adam;
  const TrainingBatches batches(spans(data), cuts, RngKey{7, 8});
  RecommenderTask task(*model, batches,
                       std::make_shared<TrainingLoss>(LossOptions{.stage = stage}, LossData{spans({}), kItems}));
  nn::TrainerProgress progress;
  nn::Trainer(task, adam, small_options()).run(progress);
  return model;
}

}  // namespace

TEST_CASE("an epoch's batches hold every user's window once", "[batches]") {
  const auto data = walks(50, 1);
  const TrainingBatches batches(spans(data), {.batch_size = 8, .window = 10, .shard_tokens = 25}, RngKey{3, 0});
  std::int64_t expected = 0, users = 0;
  for (const auto& walk : data) {
    if (walk.size() < 2) continue;
    ++users;
    expected += std::min<std::int64_t>(static_cast<std::int64_t>(walk.size()) - 1, 10);
  }
  CHECK(batches.users() == users);
  CHECK(batches.targets_per_epoch() == expected);
  std::int64_t targets = 0, sequences = 0;
  for (std::int64_t b = 0; b < batches.batches_per_epoch(); ++b) {
    const TrainingBatch batch = batches.batch(0, b);
    std::int64_t row = 0;
    for (const TrainingShard& shard : batch.shards) {
      CHECK(shard.first_row == row);
      CHECK(shard.inputs.items.numel() == shard.targets.numel());
      CHECK((shard.inputs.items.numel() <= 25 || shard.wide));
      row += shard.targets.numel();
      sequences += shard.inputs.count();
      for (std::int64_t s = 0; s < shard.inputs.count(); ++s) {
        const auto in = shard.inputs.sequence(s);
        const auto* next = shard.targets.data<std::int32_t>() + shard.inputs.offsets.at(s);
        for (std::size_t i = 0; i + 1 < in.size(); ++i) CHECK(in[i + 1] == next[i]);
      }
    }
    CHECK(batch.targets == row);
    targets += row;
  }
  CHECK(targets == expected);
  CHECK(sequences == users);
  CHECK(identical(batches.batch(1, 0).shards[0].targets, batches.batch(1, 0).shards[0].targets));
  CHECK_FALSE(identical(batches.batch(0, 0).shards[0].targets, batches.batch(1, 0).shards[0].targets));
}

TEST_CASE("a sequence above the budget is a wide shard of its own", "[batches]") {
  const std::vector<std::vector<std::int32_t>> data{{1, 2, 3}, std::vector<std::int32_t>(30, 4), {5, 6}};
  const TrainingBatches batches(spans(data), {.batch_size = 3, .window = 100, .shard_tokens = 10}, RngKey{3, 0});
  int wide = 0;
  for (const TrainingShard& shard : batches.batch(0, 0).shards) {
    if (!shard.wide) continue;
    ++wide;
    CHECK(shard.inputs.count() == 1);
    CHECK(shard.targets.numel() == 29);
  }
  CHECK(wide == 1);
}

TEST_CASE("training writes the same weights on 1, 2 and 8 threads", "[training][threads]") {
  const auto data = walks(64, 2);
  const int before = num_threads();
  for (const LossStage stage : {LossStage::shard, LossStage::batch}) {
    std::vector<std::unique_ptr<SequenceModel>> models;
    for (const int threads : {1, 2, 8}) {
      set_num_threads(threads);
      models.push_back(train(data, {.batch_size = 16, .window = 20, .shard_tokens = 40}, stage));
    }
    CHECK(same_weights(*models[0], *models[1]));
    CHECK(same_weights(*models[0], *models[2]));
  }
  set_num_threads(before);
}

TEST_CASE("wide shards train to the same weights on any number of threads", "[training][threads]") {
  const auto data = walks(32, 3);
  const int before = num_threads();
  std::vector<std::unique_ptr<SequenceModel>> models;
  for (const int threads : {1, 8}) {
    set_num_threads(threads);
    models.push_back(train(data, {.batch_size = 8, .window = 20, .shard_tokens = 6}));
  }
  set_num_threads(before);
  CHECK(same_weights(*models[0], *models[1]));
}

TEST_CASE("dropout masks do not depend on the shard budget", "[training]") {
  const auto data = walks(40, 4);
  const SasRec model = SasRec::make(small_sasrec(), RngKey{1, 1});
  const RngKey key{9, 9};
  // Rows of the dropout layer itself are the same bits, those of the whole encoder the same to rounding: another mask
  // anywhere would move them by far more.
  std::vector<std::vector<double>> dropped, encoded;
  for (const std::int64_t budget : {35, 100000}) {
    const TrainingBatches batches(spans(data), {.batch_size = 40, .window = 20, .shard_tokens = budget}, RngKey{3, 0});
    std::vector<double> all_dropped, all_encoded;
    for (const TrainingShard& shard : batches.batch(0, 0).shards) {
      const nn::Context context{true, key, shard.first_row};
      const Tensor ones = Tensor::full({shard.targets.numel(), 16}, 1);
      const auto d = nn::Dropout{0.5}(ones, context).value().to_doubles();
      const auto e = model.encode(shard.inputs, context).value().to_doubles();
      all_dropped.insert(all_dropped.end(), d.begin(), d.end());
      all_encoded.insert(all_encoded.end(), e.begin(), e.end());
    }
    dropped.push_back(all_dropped);
    encoded.push_back(all_encoded);
  }
  CHECK(dropped[0] == dropped[1]);
  REQUIRE(encoded[0].size() == encoded[1].size());
  double worst = 0;
  for (std::size_t i = 0; i < encoded[0].size(); ++i) worst = std::max(worst, std::abs(encoded[0][i] - encoded[1][i]));
  CHECK(worst < 1e-4);
}

TEST_CASE("the loss per shard and per batch are the same function", "[training]") {
  const auto data = walks(40, 5);
  auto model = small_model();
  const TrainingBatches batches(spans(data), {.batch_size = 40, .window = 20, .shard_tokens = 50}, RngKey{3, 0});
  const TrainingBatch batch = batches.batch(0, 0);
  const StageResult by_shard =
      training_step(*model, batch, RngKey{5, 5}, TrainingLoss({.stage = LossStage::shard}, {{}, kItems}));
  const StageResult by_batch =
      training_step(*model, batch, RngKey{5, 5}, TrainingLoss({.stage = LossStage::batch}, {{}, kItems}));
  CHECK(by_shard.loss == Approx(by_batch.loss).epsilon(1e-6));
  CHECK(by_shard.loss == Approx(std::log(kItems)).epsilon(0.05));
  for (const auto& [path, parameter] : model->parameters()) {
    INFO(path);
    const auto a = by_shard.gradients[parameter->id()].to_doubles(),
               b = by_batch.gradients[parameter->id()].to_doubles();
    double difference = 0, size = 0;
    for (std::size_t i = 0; i < a.size(); ++i) difference += std::pow(a[i] - b[i], 2), size += b[i] * b[i];
    CHECK(std::sqrt(difference) <= 1e-5 * std::sqrt(size) + 1e-9);
  }
}

TEST_CASE("an interrupted training resumes to the weights of an uninterrupted one", "[training][resume]") {
  const test::TemporaryDirectory directory;
  const auto data = walks(64, 6);
  const TrainingBatches batches(spans(data), {.batch_size = 16, .window = 20, .shard_tokens = 60}, RngKey{7, 8});
  const Json identity = Json::object({{"data", "walks"}});
  const auto score = [](std::int64_t epochs) { return nn::Validation{0.1 * static_cast<double>(epochs % 2)}; };
  auto whole = small_model();
  optim::Adam whole_adam;
  nn::TrainerProgress uninterrupted;
  RecommenderTask whole_task(*whole, batches, {}, score, identity);
  nn::Trainer(whole_task, whole_adam, small_options()).run(uninterrupted);
  const std::int64_t steps = uninterrupted.step;
  REQUIRE(steps == 3 * batches.batches_per_epoch());
  for (std::int64_t stop_at = 1; stop_at < steps; ++stop_at) {
    nn::TrainerOptions options = small_options();
    options.files.last = directory.path() / std::to_string(stop_at);
    {
      auto model = small_model();
      optim::Adam adam;
      RecommenderTask task(*model, batches, {}, score, identity);
      nn::TrainerProgress progress;
      nn::TrainerHooks hooks;
      hooks.stop_requested = [&] { return progress.step >= stop_at; };
      CHECK(nn::Trainer(task, adam, options, hooks).run(progress) == nn::TrainingOutcome::interrupted);
      CHECK(progress.step == stop_at);
    }
    auto model = small_model(nn::NormPlacement::sasrec);
    optim::Adam adam;
    RecommenderTask task(*model, batches, {}, score, identity);
    nn::Trainer trainer(task, adam, options);
    nn::TrainerProgress progress = trainer.restore().value();
    CHECK(progress.step == stop_at);
    CHECK(trainer.run(progress) == nn::TrainingOutcome::finished);
    CHECK(same_weights(*model, *whole));
    CHECK(progress.best_epoch == uninterrupted.best_epoch);
    CHECK(progress.best_score == uninterrupted.best_score);
  }
}

TEST_CASE("a checkpoint of another model or data is refused", "[training][resume]") {
  const test::TemporaryDirectory directory;
  auto model = small_model();
  optim::Adam adam;
  nn::save_checkpoint(directory.path() / "c", model->state(), adam, {}, Json::object({{"data", "a"}}));
  CHECK_THROWS_WITH(nn::load_checkpoint(directory.path() / "c", model->state(), adam, Json::object({{"data", "b"}})),
                    Contains("another run") && Contains("data"));
  // A key that came later has its default in what was written before, and no other value.
  const auto of_model = [](std::int64_t width, std::optional<std::int64_t> later) {
    Json keys = Json::object({{"width", width}});
    if (later) keys.set("later", *later);
    return Json::object({{"model", keys}});
  };
  nn::save_checkpoint(directory.path() / "old", model->state(), adam, {}, of_model(8, {}));
  const auto load = [&](const Json& identity, const Json& defaults) {
    nn::load_checkpoint(directory.path() / "old", model->state(), adam, identity, defaults);
    nn::load_weights(directory.path() / "old", model->state(), identity, defaults);
  };
  CHECK_NOTHROW(load(of_model(8, 3), of_model(1, 3)));
  CHECK_THROWS_WITH(load(of_model(8, 4), of_model(1, 3)), Contains("model.later is 3, here it is 4"));
  CHECK_THROWS_WITH(load(of_model(7, 3), of_model(1, 3)), Contains("model.width is 8, here it is 7"));
  CHECK_THROWS_WITH(load(of_model(8, 3), Json::object({})), Contains("model.later is absent, here it is 3"));
  nn::save_checkpoint(directory.path() / "old", model->state(), adam, {}, of_model(8, 3));
  CHECK_THROWS_WITH(load(of_model(8, {}), of_model(1, {})), Contains("no model.later"));
  // What is known and not asked for is a key of another model, say: it has no effect.
  CHECK_NOTHROW(load(of_model(8, {}), of_model(1, 4)));
  SasRecOptions wide = small_sasrec();
  wide.width = 32;
  SequenceModelOf<SasRec> other("sasrec", SasRec::make(wide, RngKey{1, 1}));
  CHECK_THROWS_WITH(nn::load_checkpoint(directory.path() / "c", other.state(), adam, Json::object({{"data", "a"}})),
                    Contains("of another shape") && Contains("items.table"));
}

TEST_CASE("early stopping keeps the best epoch", "[training]") {
  const auto data = walks(20, 7);
  auto model = small_model();
  optim::Adam adam;
  const TrainingBatches batches(spans(data), {.batch_size = 16, .window = 20, .shard_tokens = 60}, RngKey{7, 8});
  nn::TrainerOptions options = small_options();
  options.epochs = 50;
  options.patience = 3;
  std::vector<std::int64_t> best;
  nn::TrainerHooks hooks;
  hooks.on_best = [&](const nn::TrainerProgress& now) { best.push_back(now.best_epoch); };
  RecommenderTask task(*model, batches, {}, [](std::int64_t epochs) {
    return nn::Validation{epochs <= 4 ? 0.1 * static_cast<double>(epochs) : 0.2};
  });
  nn::TrainerProgress progress;
  nn::Trainer(task, adam, options, hooks).run(progress);
  CHECK(best == std::vector<std::int64_t>{1, 2, 3, 4});
  CHECK(progress.best_epoch == 4);
  CHECK(progress.epoch == 7);
}

TEST_CASE("a loss that is not finite names the op", "[training]") {
  const auto data = walks(20, 8);
  auto model = small_model();
  model->parameters()[0].parameter->mutable_value().mutable_data<float>()[0] = std::nanf("");
  for (auto& value : model->parameters()[0].parameter->mutable_value().mutable_span<float>()) value = std::nanf("");
  optim::Adam adam;
  const TrainingBatches batches(spans(data), {.batch_size = 16, .window = 20, .shard_tokens = 60}, RngKey{7, 8});
  RecommenderTask task(*model, batches);
  nn::TrainerProgress progress;
  CHECK_THROWS_WITH(nn::Trainer(task, adam, small_options()).run(progress),
                    Contains("[embedding]") && Contains("non-finite"));
}

TEST_CASE("sasrec is causal and learns a walk", "[sasrec]") {
  for (const auto norm : {nn::NormPlacement::sasrec, nn::NormPlacement::pre, nn::NormPlacement::post}) {
    const SasRec model = SasRec::make(small_sasrec(norm), RngKey{1, 1});
    const std::vector<std::int32_t> a{1, 2, 3, 4, 5}, b{1, 2, 3, 40, 50};
    const std::vector<std::span<const std::int32_t>> sa{a}, sb{b};
    const Tensor ha = model.encode(pack_window(sa), {}).value(), hb = model.encode(pack_window(sb), {}).value();
    CHECK(identical(ha.slice(0, 0, 3), hb.slice(0, 0, 3)));
    CHECK_FALSE(identical(ha.slice(0, 3, 4), hb.slice(0, 3, 4)));
  }
  // Steps of one only: the next item follows from the last.
  std::vector<std::vector<std::int32_t>> data;
  for (std::int32_t u = 0; u < 64; ++u) {
    std::vector<std::int32_t> walk;
    for (std::int32_t i = 0; i < 15; ++i) walk.push_back(static_cast<std::int32_t>((u + i) % kItems));
    data.push_back(walk);
  }
  auto model = small_model();
  optim::Adam adam;
  const TrainingBatches batches(spans(data), {.batch_size = 16, .window = 20, .shard_tokens = 200}, RngKey{7, 8});
  nn::TrainerOptions options = small_options();
  options.epochs = 40;
  RecommenderTask task(*model, batches);
  nn::TrainerProgress progress;
  nn::Trainer(task, adam, options).run(progress);
  const Tensor scores = make_ranker(*model).score(Sequences::from({{10, 11, 12}, {}, {58, 59}}, kItems));
  const float* row = scores.data<float>();
  CHECK(std::max_element(row, row + kItems) - row == 13);
  CHECK(row[kItems] == 0);
  CHECK(std::max_element(row + 2 * kItems, row + 3 * kItems) - (row + 2 * kItems) == 0);
}

TEST_CASE("a history's scores do not depend on the company", "[sasrec]") {
  const auto model = small_model();
  const auto data = walks(50, 9);
  const Tensor all = make_ranker(*model).score(Sequences::from(data, kItems));
  for (const std::size_t i : {0, 7, 33, 49}) {
    const Tensor alone = make_ranker(*model).score(Sequences::from({data[i]}, kItems));
    const auto row = static_cast<std::int64_t>(i);
    CHECK(identical(alone, all.slice(0, row, row + 1).contiguous()));
  }
}

TEST_CASE("positions count from either end of the window", "[sasrec]") {
  const std::vector<std::int64_t> lengths{2, 0, 3};
  const Offsets offsets = Offsets::from_lengths(lengths);
  CHECK(positions(offsets, 5, PositionAlignment::start).to_doubles() == std::vector<double>{0, 1, 0, 1, 2});
  CHECK(positions(offsets, 5, PositionAlignment::end).to_doubles() == std::vector<double>{3, 4, 2, 3, 4});
  CHECK_THROWS_AS(positions(offsets, 2, PositionAlignment::start), ShapeError);
}

}  // namespace training_test
