#include "tally/autograd/stages.h"

#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <mutex>
#include <set>
#include <thread>

#include "tally/core/memory.h"
#include "tally/core/parallel.h"
#include "tally/core/random.h"
#include "tally/ops/elementwise/elementwise.h"
#include "tally/ops/tensor/embedding.h"
#include "tally/ops/tensor/matmul.h"
#include "tally/ops/tensor/reduce.h"
#include "tally/ops/tensor/shape.h"

namespace stages_test {

using namespace tally;
using Catch::Matchers::Contains;

namespace {

Tensor normal(const Shape& shape, std::uint64_t stream, DType dtype) {
  Tensor tensor(shape, dtype);
  fill_normal(RngKey{5, stream}, tensor, 0, 1);
  return tensor;
}

/// A model with all stages: prepared features of the weights, shards of uneven size with an embedding, and a loss over
/// the whole batch.
struct Model {
  explicit Model(DType dtype, std::int64_t shard_count = 7) {
    weight = Var::leaf(normal({3, 4}, 1, dtype));
    unused = Var::leaf(normal({2}, 2, dtype));
    table = Var::leaf(normal({20, 3}, 3, dtype));
    for (std::int64_t s = 0; s < shard_count; ++s) {
      Tensor ids(Shape{s % 4 * 3}, DType::i64);  // every fourth shard is empty
      for (std::int64_t i = 0; i < ids.numel(); ++i) ids.mutable_data<std::int64_t>()[i] = (7 * s + 3 * i) % 20;
      items.push_back(ids);
    }
  }

  std::vector<Var> prepare() const { return {ops::tanh(weight), ops::square(unused)}; }
  ShardOutput encode(const Tensor& ids, std::span<const Var> prepared) const {
    const Var hidden = ops::matmul(ops::embedding(table, ids), prepared[0]);
    return {ops::sum(ops::square(hidden)), {ops::sigmoid(hidden), Var(ids)}};
  }
  Var finish(std::span<const Var> rows, std::span<const Var> prepared) const {
    // Needs the whole batch: the log of a sum over all rows. Uses the prepared values and the weights once more.
    return ops::sum(ops::log(ops::sum(rows[0] * prepared[0].dim(0), {.dims = {0}}))) + ops::sum(prepared[0] * weight);
  }

  Stages stages(bool with_finish) const {
    Stages stages;
    stages.prepare = [this] { return prepare(); };
    stages.shards = static_cast<std::int64_t>(items.size());
    stages.encode = [this](std::int64_t shard, std::span<const Var> prepared) {
      return encode(items[static_cast<std::size_t>(shard)], prepared);
    };
    if (with_finish) {
      stages.finish = [this](std::span<const Var> rows, std::span<const Var> prepared) {
        return finish(rows, prepared);
      };
    }
    return stages;
  }

  /// Everything on one tape.
  ValueAndGradients whole(bool with_finish) const {
    return value_and_gradients([&] {
      const std::vector<Var> prepared = prepare();
      std::vector<Var> parts;
      Var loss;
      for (const Tensor& ids : items) {
        const ShardOutput shard = encode(ids, prepared);
        loss = loss.defined() ? loss + shard.loss : shard.loss;
        parts.push_back(shard.rows[0]);
      }
      if (!with_finish) return loss;
      const std::vector<Var> rows{ops::concat(parts, 0)};
      return loss + finish(rows, prepared);
    });
  }

  Var weight, unused, table;
  std::vector<Tensor> items;
};

void check_close(const Tensor& got, const Tensor& expected) {
  REQUIRE(got.shape() == expected.shape());
  const std::vector<double> a = got.to_doubles(), b = expected.to_doubles();
  for (std::size_t i = 0; i < a.size(); ++i) CHECK(a[i] == Approx(b[i]).epsilon(1e-12).margin(1e-12));
}

struct RestoreThreads {
  int threads = num_threads();
  ~RestoreThreads() { set_num_threads(threads); }
};

struct FailingRule {
  static constexpr std::string_view name = "failing";
  void backward(BackwardContext&) const { throw ValueError("[failing] in backward"); }
};

}  // namespace

TEST_CASE("stages and shards compute what one tape computes", "[stages]") {
  for (const bool with_finish : {false, true}) {
    const Model model(DType::f64);
    const StageResult staged = run_stages(model.stages(with_finish));
    const ValueAndGradients whole = model.whole(with_finish);
    CHECK(staged.loss == Approx(whole.value.item()).epsilon(1e-12));
    check_close(staged.gradients[model.weight], whole.gradients[model.weight]);
    check_close(staged.gradients[model.table], whole.gradients[model.table]);
    CHECK_FALSE(staged.gradients.contains(model.unused));
    CHECK(staged.gradients.size() == 2);  // nothing is left of the prepared leaves
    // The table's rows stay sparse through the fold.
    CHECK(std::holds_alternative<RowGrad>(*staged.gradients.find(model.table.leaf_id())));
  }
}

TEST_CASE("stages give the same bits on 1, 2 and 8 threads, whatever shard ends first", "[stages]") {
  const RestoreThreads restore;
  for (const bool with_finish : {false, true}) {
    const Model model(DType::f32, 40);
    Stages stages = model.stages(with_finish);
    set_num_threads(1);
    const StageResult expected = run_stages(stages);
    // Early shards dawdle, so that later ones are done before them.
    const auto encode = stages.encode;
    stages.encode = [&](std::int64_t shard, std::span<const Var> prepared) {
      std::this_thread::sleep_for(std::chrono::microseconds(shard % 3 == 0 ? 600 : 0));
      return encode(shard, prepared);
    };
    for (const int threads : {2, 8}) {
      set_num_threads(threads);
      const StageResult got = run_stages(stages);
      CHECK(got.loss == expected.loss);
      CHECK(identical(got.gradients[model.weight], expected.gradients[model.weight]));
      CHECK(identical(got.gradients[model.table], expected.gradients[model.table]));
    }
  }
}

TEST_CASE("a wide shard runs alone, with parallel loops inside", "[stages]") {
  const RestoreThreads restore;
  set_num_threads(4);
  const Model model(DType::f64, 12);
  for (const bool with_finish : {false, true}) {
    Stages stages = model.stages(with_finish);
    const StageResult expected = run_stages(stages);
    std::atomic<int> running{0}, disturbed{0};
    std::mutex mutex;
    std::condition_variable arrived;
    std::set<std::thread::id> wide_threads;
    const auto encode = stages.encode;
    stages.wide = [](std::int64_t shard) { return shard % 5 == 2; };
    stages.encode = [&](std::int64_t shard, std::span<const Var> prepared) {
      const bool wide = stages.wide(shard);
      ++running;
      parallel_for(16, 1, [&](std::int64_t, std::int64_t) {
        if (!wide) {
          std::this_thread::sleep_for(std::chrono::milliseconds(1));  // so that shards overlap
          return;
        }
        // A thread that comes first waits for a second one, however busy the machine is.
        std::unique_lock lock(mutex);
        wide_threads.insert(std::this_thread::get_id());
        arrived.notify_all();
        arrived.wait_for(lock, std::chrono::seconds(10), [&] { return wide_threads.size() > 1; });
      });
      if (wide && running != 1) ++disturbed;
      --running;
      return encode(shard, prepared);
    };
    const StageResult got = run_stages(stages);
    CHECK(disturbed == 0);
    CHECK(wide_threads.size() > 1);
    // The order of the fold is that of the shards, wide or not.
    CHECK(got.loss == expected.loss);
    CHECK(identical(got.gradients[model.weight], expected.gradients[model.weight]));
    CHECK(identical(got.gradients[model.table], expected.gradients[model.table]));
  }
}

TEST_CASE("gradients of prepared values add up over shards", "[stages]") {
  // loss = sum over shards of s * p with p = 3 w: the gradient of w is 3 (0 + 1 + ... + 9).
  const Var w = Var::leaf(Tensor::full({1}, 2, DType::f64));
  Stages stages;
  stages.prepare = [&] { return std::vector<Var>{w * 3}; };
  stages.shards = 10;
  stages.encode = [](std::int64_t shard, std::span<const Var> prepared) {
    return ShardOutput{prepared[0] * static_cast<double>(shard), {}};
  };
  const StageResult result = run_stages(stages);
  CHECK(result.loss == 6 * 45);
  CHECK(result.gradients[w].item() == 3 * 45);
  // A parameter handed on as it is.
  stages.prepare = [&] { return std::vector<Var>{w, Var(Tensor::arange(3))}; };
  CHECK(run_stages(stages).gradients[w].item() == 45);
  // Rows of a prepared table, one of them in every shard: items 0 to 3 are met 3, 13, 2 and 2 times.
  const Var table = Var::leaf(Tensor::full({5, 2}, 1, DType::f64));
  Stages rows;
  rows.prepare = [&] { return std::vector<Var>{table * 2}; };
  rows.shards = 10;
  rows.encode = [](std::int64_t shard, std::span<const Var> prepared) {
    return ShardOutput{ops::sum(ops::embedding(prepared[0], Tensor::from<std::int64_t>({1, shard % 4}, {2}))), {}};
  };
  CHECK(run_stages(rows).gradients[table].to_doubles() == std::vector<double>{6, 6, 26, 26, 4, 4, 4, 4, 0, 0});
  // Nothing prepared at all, and shards without a loss.
  stages.prepare = nullptr;
  stages.encode = [&](std::int64_t shard, std::span<const Var>) {
    return shard % 2 == 0 ? ShardOutput{} : ShardOutput{w * static_cast<double>(shard), {}};
  };
  CHECK(run_stages(stages).gradients[w].item() == 25);
  stages.shards = 0;
  CHECK(run_stages(stages).gradients.size() == 0);
}

TEST_CASE("an exception of any stage arrives, and leaves nothing behind", "[stages]") {
  const RestoreThreads restore;
  set_num_threads(4);
  const Model model(DType::f64, 12);
  const StageResult expected = run_stages(model.stages(true));
  const std::int64_t held = memory_stats().active_bytes;
  const auto failing = [](const Var& x) { return record(FailingRule{}, {&x}, x.value().clone()); };
  const auto try_stages = [&](const Stages& stages, const std::string& message) {
    CHECK_THROWS_WITH(run_stages(stages), Contains(message));
    CHECK(Tape::current() == nullptr);
    CHECK(memory_stats().active_bytes == held);
    const StageResult again = run_stages(model.stages(true));
    CHECK(again.loss == expected.loss);
    CHECK(identical(again.gradients[model.weight], expected.gradients[model.weight]));
  };
  Stages stages = model.stages(true);
  stages.prepare = []() -> std::vector<Var> { throw ValueError("[prepare] breaks"); };
  try_stages(stages, "[prepare] breaks");

  stages = model.stages(true);
  stages.encode = [&](std::int64_t shard, std::span<const Var> prepared) {
    if (shard == 5) throw ValueError("[encode] breaks");
    return model.encode(model.items[static_cast<std::size_t>(shard)], prepared);
  };
  try_stages(stages, "[encode] breaks");
  stages.finish = nullptr;
  try_stages(stages, "[encode] breaks");

  for (const bool with_finish : {false, true}) {
    stages = model.stages(with_finish);
    stages.encode = [&](std::int64_t shard, std::span<const Var> prepared) {
      ShardOutput output = model.encode(model.items[static_cast<std::size_t>(shard)], prepared);
      if (shard == 6) output.loss = failing(output.loss);
      return output;
    };
    try_stages(stages, "[failing] in backward");
  }

  stages = model.stages(true);
  stages.finish = [](std::span<const Var>, std::span<const Var>) -> Var { throw ValueError("[finish] breaks"); };
  try_stages(stages, "[finish] breaks");
  stages.finish = [&](std::span<const Var> rows, std::span<const Var>) { return failing(ops::sum(rows[0])); };
  try_stages(stages, "[failing] in backward");
}

TEST_CASE("shards that hand on rows of different kinds are refused", "[stages]") {
  Stages stages;
  stages.shards = 3;
  stages.finish = [](std::span<const Var> rows, std::span<const Var>) { return ops::sum(rows[0]); };
  const auto with_rows = [&](const std::vector<Var>& odd) {
    stages.encode = [odd](std::int64_t shard, std::span<const Var>) {
      return ShardOutput{Var(), shard == 2 ? odd : std::vector<Var>{Var(Tensor::zeros({2, 3}))}};
    };
    return stages;
  };
  CHECK(run_stages(with_rows({Var(Tensor::zeros({5, 3}))})).loss == 0);
  CHECK_THROWS_WITH(run_stages(with_rows({})), Contains("shard 2") && Contains("0 tensors of rows"));
  CHECK_THROWS_WITH(run_stages(with_rows({Var(Tensor::zeros({2, 4}))})), Contains("shard 2") && Contains("[2, 4]"));
  CHECK_THROWS_WITH(run_stages(with_rows({Var(Tensor::zeros({2, 3}, DType::f64))})), Contains("f64"));
  CHECK_THROWS_WITH(run_stages(with_rows({Var(Tensor::scalar(1))})), Contains("shard 2"));
}

TEST_CASE("every tape of a step is configured", "[stages]") {
  const Model model(DType::f64, 6);
  std::atomic<int> tapes{0};
  run_stages(model.stages(true), [&](Tape&) { ++tapes; });
  CHECK(tapes == 1 + 6 + 1);
  CHECK_THROWS_AS(run_stages(Stages{}), ValueError);
  // Tracing reaches the shards: a non-finite value is reported by the op that made it.
  Stages stages = model.stages(false);
  stages.encode = [&](std::int64_t, std::span<const Var> prepared) {
    return ShardOutput{ops::sum(ops::log(prepared[0] * 0.0)), {}};
  };
  CHECK_THROWS_WITH(run_stages(stages, [](Tape& tape) { tape.trace_non_finite(true); }), Contains("[log]"));
}

}  // namespace stages_test
