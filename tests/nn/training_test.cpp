#include <catch2/catch.hpp>
#include <cmath>
#include <fstream>

#include "tally/core/io/file.h"
#include "tally/core/parallel.h"
#include "tally/nn/layers.h"
#include "tally/nn/serialize.h"
#include "tally/nn/training/checkpoint.h"
#include "tally/nn/training/trainer.h"
#include "tally/ops/elementwise/elementwise.h"
#include "tally/ops/tensor/reduce.h"
#include "tests/support/temporary_directory.h"

namespace training_test {

using namespace tally;
using Catch::Matchers::Contains;

namespace {

constexpr std::int64_t kRows = 60, kBatch = 8, kShard = 4, kWidth = 3;

/// A small regression, with a dropout and two buffers: how many rows it saw, and a moving average of their columns.
struct Regressor {
  nn::Linear first, second;
  nn::Dropout dropout{0.2};
  nn::Buffer seen, average;
  static constexpr void fields(auto& self, auto&& visit) {
    visit("first", self.first);
    visit("second", self.second);
    visit("dropout", self.dropout);
    visit("seen", self.seen);
    visit("average", self.average);
  }
  static Regressor make() {
    Regressor made;
    made.first = nn::Linear::make({.in = kWidth, .out = 8}, {1, 1});
    made.second = nn::Linear::make({.in = 8, .out = 1}, {1, 2});
    made.seen = nn::Buffer(Tensor::zeros({1}, DType::i64));
    made.average = nn::Buffer(Tensor::zeros({kWidth}));
    return made;
  }
  Var operator()(const Tensor& x, const nn::Context& context) const {
    if (context.updates != nullptr) {
      std::vector<double> sums(kWidth, 0);
      const std::vector<double> values = x.to_doubles();
      for (std::size_t i = 0; i < values.size(); ++i) sums[i % kWidth] += values[i];
      context.updates->changes.push_back({seen.value(), Tensor::from<std::int64_t>({x.dim(0)}, {1})});
      context.updates->changes.push_back({average.value(), Tensor::from<double>(sums, {kWidth}), 0.9, 0.1});
    }
    return second(dropout(first(x, ops::Activation::relu), context.at("dropout")));
  }
};

Tensor rows_of(const Tensor& all, const std::vector<std::int64_t>& order, std::int64_t begin, std::int64_t end) {
  Tensor rows({end - begin, all.dim(1)});
  auto* out = rows.mutable_data<float>();
  for (std::int64_t i = begin; i < end; ++i) {
    const float* from = all.data<float>() + order[static_cast<std::size_t>(i)] * all.dim(1);
    out = std::copy_n(from, all.dim(1), out);
  }
  return rows;
}

class Regression final : public nn::Task {
 public:
  Regression() : x({kRows, kWidth}), y({kRows, 1}) {
    fill_normal({5, 5}, x, 0, 1);
    const float* in = x.data<float>();
    float* out = y.mutable_data<float>();
    for (std::int64_t i = 0; i < kRows; ++i) out[i] = std::abs(in[3 * i]) - 2 * in[3 * i + 1] + 0.5F;
  }

  std::int64_t steps() const override { return (kRows + kBatch - 1) / kBatch; }
  std::int64_t samples() const override { return kRows; }
  nn::TaskStep step(const nn::StepPlace& place) override {
    const std::vector<std::int64_t> order =
        random_permutation(RngKey{6, 6}.fold_in(static_cast<std::uint64_t>(place.epoch)), kRows);
    const std::int64_t begin = place.index * kBatch, end = std::min(kRows, begin + kBatch);
    std::vector<nn::BufferUpdates> posted(static_cast<std::size_t>((end - begin + kShard - 1) / kShard));
    const auto encode = [&](std::int64_t s, std::span<const Var>) -> ShardOutput {
      const std::int64_t from = begin + s * kShard, to = std::min(end, from + kShard);
      const nn::Context context{true, place.key, from - begin, &posted[static_cast<std::size_t>(s)]};
      const Var error = model(rows_of(x, order, from, to), context) - rows_of(y, order, from, to);
      return {ops::sum(ops::square(error)) * (1.0 / static_cast<double>(end - begin)), {}};
    };
    const Stages stages{.shards = static_cast<std::int64_t>(posted.size()), .encode = encode};
    nn::TaskStep result{run_stages(stages, place.configure), end - begin, end - begin, {}};
    for (auto& updates : posted) result.updates.append(std::move(updates));
    return result;
  }
  bool validates() const override { return true; }
  nn::Validation validate(std::int64_t epochs) override {
    if (before_validation) before_validation(epochs);
    return {-ops::mean(ops::square(model(x, {}) - y)).item()};  // at most 0
  }
  nn::ParameterList parameters() override { return nn::parameters(model); }
  nn::TensorList state() override { return nn::state(model); }
  Json identity() const override { return Json::object({{"task", "regression"}}); }

  Regressor model = Regressor::make();
  Tensor x, y;
  std::function<void(std::int64_t epochs)> before_validation;
};

bool same_state(Regression& a, Regression& b) {
  const nn::TensorList left = a.state(), right = b.state();
  for (std::size_t i = 0; i < left.size(); ++i) {
    if (!identical(*left[i].tensor, *right[i].tensor)) return false;
  }
  return left.size() == right.size();
}

/// One training with everything in it: groups, a hook, accumulation, clipping, a schedule of its own.
struct Run {
  Run() {
    adam.groups = {{.pattern = "first.bias", .frozen = true},
                   {.pattern = "first.*", .learning_rate_factor = 0.5},
                   {.pattern = "*.bias", .weight_decay = 0}};
    options.epochs = 4;
    options.accumulate = 3;
    options.clip_norm = 5;
    options.learning_rate = [](std::int64_t step) { return 0.05 / std::sqrt(1.0 + static_cast<double>(step)); };
    options.key = {9, 9};
    hooks.on_gradients = [](const nn::TrainerProgress& now, const nn::ParameterList&, Gradients& gradients) {
      gradients.scale(now.epoch == 0 ? 0.5 : 1);
    };
  }
  nn::TrainingOutcome train() {
    nn::Trainer trainer(task, adam, options, hooks);
    progress = trainer.restore().value_or(nn::TrainerProgress{});
    return trainer.run(progress);
  }

  Regression task;
  optim::Adam adam{{.weight_decay = 0.01}};
  nn::TrainerOptions options;
  nn::TrainerHooks hooks;
  nn::TrainerProgress progress;
};

std::vector<Json> lines_of(const std::filesystem::path& path) {
  std::vector<Json> lines;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) lines.push_back(parse_json(line));
  return lines;
}

}  // namespace

TEST_CASE("a task without items trains, and its negative score is kept as the best", "[training]") {
  const test::TemporaryDirectory directory;
  Run run;
  run.options.files = nn::TrainerFiles::in(directory / "run");
  const Tensor frozen = run.task.model.first.bias.value().clone();
  std::vector<double> rates;
  run.hooks.on_step = [&](const auto&, const nn::StepReport& step) { rates.push_back(step.learning_rate); };
  run.hooks.on_epoch = [](const auto&, const nn::EpochReport&, Json& record) { record.set("mine", 7); };
  const double before = run.task.validate(0).score;
  CHECK(run.train() == nn::TrainingOutcome::finished);
  CHECK(run.progress.step == 4 * 3);  // 8 steps of the task are 3, 3 and 2
  CHECK(rates[0] == 0.05);
  CHECK(rates[8] == 0.05 / 3);
  CHECK(run.progress.best_score.value() < 0);
  CHECK(run.progress.best_score.value() > before);
  CHECK(identical(run.task.model.first.bias.value(), frozen));
  CHECK(run.task.model.seen.value().item() == 4 * kRows);
  const std::vector<Json> lines = lines_of(directory / "run/log.jsonl");
  REQUIRE(lines.size() == 8);
  CHECK(lines[0].at("event") == Json("epoch"));
  CHECK(lines[0].at("samples") == Json(kRows));
  CHECK(lines[0].at("mine") == Json(7));
  CHECK(lines[1].at("event") == Json("validation"));
  CHECK(lines[1].at("score").as_double() < 0);
  Regression best;
  nn::load_weights(directory / "run/best", best.state(), best.identity());
  CHECK(best.validate(0).score == *run.progress.best_score);
  CHECK_THROWS_WITH(nn::load_weights(directory / "run/best", best.state(), Json::object({{"task", "other"}})),
                    Contains("another run"));
}

TEST_CASE("a training without a parameter to train is refused", "[training]") {
  Run run;
  run.adam.groups = {{.pattern = "*", .frozen = true}};
  CHECK_THROWS_AS(run.train(), ConfigError);
  CHECK_THROWS_WITH(run.train(), Contains("[trainer] needs a parameter that is not frozen"));
}

TEST_CASE("a task killed after any step resumes to the same bits", "[training][resume]") {
  const test::TemporaryDirectory directory;
  Run whole;
  whole.options.files = nn::TrainerFiles::in(directory / "whole");
  whole.train();
  for (std::int64_t stop_at = 1; stop_at < whole.progress.step; ++stop_at) {
    const auto files = nn::TrainerFiles::in(directory / std::to_string(stop_at));
    {
      Run killed;
      killed.options.files = files;
      killed.options.checkpoint_steps = 2;
      killed.hooks.on_step = [&](const nn::TrainerProgress& now, const nn::StepReport&) {
        if (now.step == stop_at) throw std::runtime_error("killed");  // without saving, after a line of the log maybe
      };
      CHECK_THROWS_WITH(killed.train(), "killed");
    }
    {
      Run stopped;
      stopped.options.files = files;
      stopped.hooks.stop_requested = [&] { return stopped.progress.step >= stop_at; };
      CHECK(stopped.train() == nn::TrainingOutcome::interrupted);
    }
    Run resumed;
    resumed.options.files = files;
    CHECK(resumed.train() == nn::TrainingOutcome::finished);
    CHECK(same_state(resumed.task, whole.task));
    CHECK(resumed.progress.best_score == whole.progress.best_score);
    for (const auto& [name, tensor] : resumed.adam.state()) CHECK(identical(tensor, whole.adam.state().at(name)));
    CHECK(lines_of(files.log).size() == 8);
  }
}

TEST_CASE("a task stopped in any validation resumes to the same bits", "[training][resume]") {
  const test::TemporaryDirectory directory;
  Run whole;
  whole.options.files = nn::TrainerFiles::in(directory / "whole");
  whole.train();
  for (std::int64_t stop_at = 1; stop_at <= whole.options.epochs; ++stop_at) {
    INFO("epoch " << stop_at);
    const auto files = nn::TrainerFiles::in(directory / std::to_string(stop_at));
    Run stopped;
    stopped.options.files = files;
    stopped.task.before_validation = [&](std::int64_t epoch) {
      if (epoch == stop_at) throw Stopped("stopped");
    };
    CHECK(stopped.train() == nn::TrainingOutcome::interrupted);
    CHECK(stopped.progress.validation_due);
    CHECK(stopped.progress.epoch == stop_at);
    Run killed;  // after its line of the log, before its checkpoint
    killed.options.files = files;
    killed.hooks.on_validation = [](const auto&, const auto&, double) { throw std::runtime_error("killed"); };
    CHECK_THROWS_WITH(killed.train(), "killed");
    Run resumed;
    resumed.options.files = files;
    CHECK(resumed.train() == nn::TrainingOutcome::finished);
    CHECK(same_state(resumed.task, whole.task));
    CHECK(resumed.progress.best_score == whole.progress.best_score);
    CHECK(lines_of(files.log).size() == 8);
  }
}

TEST_CASE("a task trains to the same bits on 1, 2 and 8 threads", "[training][threads]") {
  const int before = num_threads();
  std::vector<std::unique_ptr<Run>> runs;
  for (const int threads : {1, 2, 8}) {
    set_num_threads(threads);
    runs.push_back(std::make_unique<Run>());
    runs.back()->train();
  }
  set_num_threads(before);
  CHECK(same_state(runs[0]->task, runs[1]->task));
  CHECK(same_state(runs[0]->task, runs[2]->task));
}

TEST_CASE("an accumulated step is that of the mean over all its targets", "[training]") {
  // By hand: the last two steps of an epoch, of 8 and of 4 rows.
  Regression by_hand, accumulated;
  const RngKey key{9, 9};
  const auto place = [&](std::int64_t i) {
    return nn::StepPlace{0, i, key.fold_in("step").fold_in(static_cast<std::uint64_t>(i))};
  };
  nn::TaskStep six = by_hand.step(place(6)), seven = by_hand.step(place(7));
  REQUIRE(six.targets == 8);
  REQUIRE(seven.targets == 4);
  six.gradients.scale(8);
  seven.gradients.scale(4);
  six.gradients += std::move(seven.gradients);
  six.gradients.scale(1.0 / 12);
  optim::Sgd sgd({.learning_rate = 0.1}), same({.learning_rate = 0.1});
  sgd.step(by_hand.parameters(), six.gradients);
  six.updates.append(std::move(seven.updates));
  six.updates.apply();
  nn::TrainerOptions options;
  options.epochs = 1;
  options.accumulate = 5;  // more than are left
  options.key = key;
  nn::TrainerHooks hooks;
  double loss = 0;
  hooks.on_step = [&](const auto&, const nn::StepReport& step) { loss = step.loss; };
  nn::Trainer trainer(accumulated, same, options, hooks);
  CHECK(trainer.steps_per_epoch() == 2);
  nn::TrainerProgress progress;
  progress.batch = 6;
  trainer.run(progress);
  CHECK(same_state(by_hand, accumulated));
  CHECK(progress.step == 1);
  CHECK(loss == Approx((8 * six.loss + 4 * seven.loss) / 12));
  CHECK(accumulated.model.seen.value().item() == 12);
}

TEST_CASE("the hook sees parameters and gradients before they are clipped", "[training]") {
  Run plain, hooked;
  double norm = 0;
  for (Run* run : {&plain, &hooked}) run->options.epochs = 1, run->options.clip_norm = 1e-3;
  hooked.hooks.on_gradients = [&](const auto&, const nn::ParameterList& parameters, Gradients& gradients) {
    CHECK(parameters.size() == 4);
    gradients.scale(100);
    norm = optim::global_norm(parameters, gradients);
  };
  hooked.hooks.on_step = [&](const auto&, const nn::StepReport& step) { CHECK(step.gradient_norm == norm); };
  plain.train();
  hooked.train();
  CHECK(norm > 1e-3);
  // Of a clipped gradient, its direction alone is left.
  const auto a = plain.task.model.second.weight.value().to_doubles();
  const auto b = hooked.task.model.second.weight.value().to_doubles();
  for (std::size_t i = 0; i < a.size(); ++i) CHECK(a[i] == Approx(b[i]).epsilon(1e-3));
}

TEST_CASE("a trainer refuses what cannot be trained", "[training]") {
  struct Nothing final : nn::Task {
    std::int64_t steps() const override { return 0; }
    std::int64_t samples() const override { return 0; }
    nn::TaskStep step(const nn::StepPlace&) override { return {}; }
    nn::ParameterList parameters() override { return {}; }
    nn::TensorList state() override { return {}; }
  } nothing;
  optim::Sgd sgd;
  CHECK_THROWS_WITH(nn::Trainer(nothing, sgd, {}), Contains("at least one step"));
  Run run;
  run.options.accumulate = 0;
  CHECK_THROWS_AS(run.train(), ConfigError);
  run.options.accumulate = 1;
  run.adam.groups.push_back({.pattern = "third.*"});
  CHECK_THROWS_WITH(run.train(), Contains("none matches 'third.*'"));
  run.adam.groups.pop_back();
  run.options.learning_rate = [](std::int64_t) { return std::nan(""); };
  CHECK_THROWS_WITH(run.train(), Contains("learning rate of step 0"));
}

TEST_CASE("progress is read from what earlier builds wrote", "[training][resume]") {
  const auto written = [](const std::string& score, int best_epoch) {
    return nn::TrainerProgress::from_json(parse_json(
        R"({"epoch":3,"batch":1,"step":7,"epoch_loss":0.5,"epoch_targets":9,"best_score":)" + score +
        R"(,"best_epoch":)" + std::to_string(best_epoch) + R"(,"validations_since_best":0,"finished":false})"));
  };
  CHECK_FALSE(written("-1", 0).best_score.has_value());
  CHECK_FALSE(written("null", 0).best_score.has_value());
  CHECK_FALSE(written("null", 2).best_score.has_value());
  CHECK(written("0.25", 2).best_score == 0.25);
  CHECK(written("-1", 2).best_score == -1.0);
  CHECK(written("-3.5", 2).step == 7);
  nn::TrainerProgress progress;
  CHECK(progress.to_json().at("best_score") == Json());
  progress.best_score = -1;
  progress.best_epoch = 1;
  CHECK(nn::TrainerProgress::from_json(progress.to_json()).best_score == -1.0);
}

TEST_CASE("two tensors of one path are neither saved nor loaded", "[training]") {
  const test::TemporaryDirectory directory;
  Tensor a = Tensor::zeros({2}), b = Tensor::zeros({2});
  const nn::TensorList twice{{"weight", &a}, {"weight", &b}};
  CHECK_THROWS_WITH(nn::save_state(directory / "x", twice), Contains("'weight'"));
  nn::save_state(directory / "x", {{"weight", &a}});
  CHECK_THROWS_WITH(nn::load_state(directory / "x", twice), Contains("'weight'"));
}

TEST_CASE("changes of buffers are applied in order, each buffer kept once", "[training]") {
  Tensor average = Tensor::from<float>({10}, {1}), count = Tensor::from<std::int64_t>({1}, {1});
  nn::BufferUpdates first, second;
  first.changes = {{average, Tensor::from<double>({2}, {1}), 0.5, 0.25}, {count, Tensor::from<std::int64_t>({3}, {1})}};
  second.changes = {{average, Tensor::from<double>({4}, {1}), 0.5, 0.25}};
  first.append(second);
  first.apply();
  CHECK(average.item() == 0.5 * 10 + 0.25 * 2 + 0.25 * 4);
  CHECK(count.item() == 4);
  const nn::BufferUpdates wide{.changes = {{average, Tensor::from<double>({1, 2}, {2})}}, .means = {}};
  CHECK_THROWS_AS(wide.apply(), ShapeError);
  const nn::BufferUpdates kept{.changes = {{count, Tensor::from<std::int64_t>({1}, {1}), 0.5}}, .means = {}};
  CHECK_THROWS_AS(kept.apply(), DTypeError);
}

}  // namespace training_test
