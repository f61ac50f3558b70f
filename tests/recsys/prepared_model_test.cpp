// The contract of models that compute their item table once a step: training and inference against the same model
// computed in one piece.
#include <atomic>
#include <catch2/catch.hpp>
#include <cmath>

#include "tally/core/parallel.h"
#include "tally/nn/layers.h"
#include "tally/nn/optim/optimizer.h"
#include "tally/ops/elementwise/elementwise.h"
#include "tally/ops/losses/item_cross_entropy.h"
#include "tally/ops/tensor/embedding.h"
#include "tally/ops/tensor/linear.h"
#include "tally/ops/tensor/reduce.h"
#include "tally/recsys/models/lisa.h"
#include "tally/recsys/models/neural_ranker.h"
#include "tally/recsys/models/sequence_model_of.h"
#include "tally/recsys/training/training_step.h"

namespace prepared_model_test {

using namespace tally;
using namespace tally::recsys;

namespace {

constexpr std::int64_t kItems = 30, kWidth = 8;

std::atomic<int> preparations;
std::atomic<std::int64_t> prepared_rows;

/// An item's vector is tanh(x W), computed once a step; hidden states are the items' own vectors, and a commitment
/// pulls x to them.
struct Projected {
  nn::Embedding items;
  nn::Parameter projection;
  std::int64_t window = 10;
  bool whole = false;  ///< prepares the whole catalogue, whatever is asked for
  static constexpr void fields(auto& self, auto&& visit) {
    visit("items", self.items);
    visit("projection", self.projection);
    visit("window", self.window);
    visit("whole", self.whole);
  }

  static Projected make(RngKey key, bool whole = false) {
    Tensor w({kWidth, kWidth});
    fill_normal(key.fold_in("w"), w, 0, 0.5);
    return {nn::Embedding::make({kItems, kWidth, 0.5}, key), nn::Parameter(w), 10, whole};
  }
  std::int64_t num_items() const { return kItems; }
  std::int64_t width() const { return kWidth; }

  struct Values {
    BatchItems items;
    Var table;
    std::optional<Var> absent;
    std::vector<Var> errors;  ///< one, of each row
    static constexpr void fields(auto& self, auto&& visit) {
      visit("items", self.items);
      visit("table", self.table);
      visit("absent", self.absent);
      visit("errors", self.errors);
    }
  };
  Values prepare(const BatchItems& which) const {
    ++preparations;
    const Var x = whole ? items.table.var() : ops::embedding(items.table, which.ids());
    prepared_rows = x.dim(0);
    const Var table = ops::tanh(ops::linear(x, projection));
    return {which, table, std::nullopt, {ops::sum(ops::square(x - table), {.dims = {1}, .keepdims = true})}};
  }
  Var encode(const Sequences& batch, const Values& prepared, const nn::Context&) const {
    return ops::embedding(prepared.table, rows(batch, prepared));
  }
  Var candidate_table(const Values& prepared) const { return prepared.table; }
  Var auxiliary_loss(const Sequences& batch, const Tensor&, const Values& prepared, const nn::Context&) const {
    return ops::sum(ops::embedding(prepared.errors[0], rows(batch, prepared)));
  }
  Tensor rows(const Sequences& batch, const Values& prepared) const {
    return whole ? batch.items : prepared.items.rows(batch.items);
  }
};

TrainingBatch small_batch(std::int64_t shard_tokens) {
  static const std::vector<std::vector<std::int32_t>> data{
      {1, 2, 3, 4, 5, 6}, {7, 8, 9}, {1, 1, 2}, {29, 0, 15, 4}, {3, 9, 3, 9, 3}};
  const TrainingBatches batches({data.begin(), data.end()},
                                {.batch_size = 5, .window = 10, .shard_tokens = shard_tokens}, RngKey{1, 1});
  return batches.batch(0, 0);
}

/// The batch's loss on one tape, everything computed where it is used.
ValueAndGradients in_one_piece(const Projected& model, const TrainingBatch& batch) {
  return value_and_gradients([&] {
    const Var table = ops::tanh(ops::linear(model.items.table, model.projection));
    const Var errors = ops::sum(ops::square(model.items.table.var() - table), {.dims = {1}, .keepdims = true});
    Var total;
    const double scale = 1.0 / static_cast<double>(batch.targets);
    for (const TrainingShard& shard : batch.shards) {
      const Var hidden = ops::embedding(table, shard.inputs.items);
      const Var loss = ops::item_cross_entropy(hidden, table, shard.targets, {.reduction_scale = scale}) +
                       ops::sum(ops::embedding(errors, shard.inputs.items)) * scale;
      total = total.defined() ? total + loss : loss;
    }
    return total;
  });
}

double relative_difference(const Tensor& a, const Tensor& b) {
  const auto va = a.to_doubles(), vb = b.to_doubles();
  double difference = 0, size = 0;
  for (std::size_t i = 0; i < va.size(); ++i) difference += std::pow(va[i] - vb[i], 2), size += vb[i] * vb[i];
  return std::sqrt(difference / size);
}

}  // namespace

TEST_CASE("items of a batch and their rows", "[batch items]") {
  const std::vector<std::uint8_t> marks{0, 1, 0, 0, 1, 1};
  const BatchItems some = BatchItems::marked(marks);
  CHECK(some.count() == 3);
  CHECK(some.catalogue() == 6);
  CHECK_FALSE(some.is_all());
  CHECK(some.ids().to_doubles() == std::vector<double>{1, 4, 5});
  CHECK(some.rows(Tensor::from<std::int32_t>({5, 1, -1, 4}, {2, 2})).to_doubles() == std::vector<double>{2, 0, -1, 1});
  CHECK_THROWS_AS(some.rows(Tensor::from<std::int32_t>({1, 0}, {2})), IndexError);
  CHECK_THROWS_AS(some.rows(Tensor::from<std::int32_t>({6}, {1})), IndexError);
  const BatchItems all = BatchItems::all(3);
  CHECK(all.is_all());
  CHECK(all.rows(Tensor::from<std::int32_t>({2, 0}, {2})).to_doubles() == std::vector<double>{2, 0});
  CHECK_THROWS_AS(all.rows(Tensor::from<std::int32_t>({3}, {1})), IndexError);
  CHECK(BatchItems().count() == 0);
}

TEST_CASE("prepared structs are flattened and built again", "[prepared]") {
  const Projected model = Projected::make(RngKey{3, 1});
  const Prepared prepared(model.prepare(BatchItems::all(kItems)));
  const std::vector<Var> vars = prepared.vars();
  REQUIRE(vars.size() == 2);
  CHECK(identical(vars[0].value(), prepared.as<Projected::Values>().table.value()));
  const std::vector<Var> others{Var(Tensor::full({1}, 4)), Var(Tensor::full({1}, 5))};
  const Prepared changed = prepared.with(others);
  CHECK(changed.as<Projected::Values>().table.item() == 4);
  CHECK(changed.as<Projected::Values>().errors[0].item() == 5);
  CHECK(changed.as<Projected::Values>().items.count() == kItems);
  CHECK(identical(prepared.vars()[0].value(), vars[0].value()));
  CHECK_THROWS_AS(prepared.with(std::span(others).first(1)), ValueError);
  CHECK_THROWS_WITH(prepared.as<LisaPrepared>(), Catch::Matchers::Contains("that of another"));
  CHECK_THROWS_WITH(Prepared().as<LisaPrepared>(), Catch::Matchers::Contains("nothing"));
  CHECK(Prepared().with({}).vars().empty());
}

TEST_CASE("gradients flow through what a model prepared once", "[prepared]") {
  SequenceModelOf<Projected> model("projected", Projected::make(RngKey{3, 1}));
  const Projected reference = Projected::make(RngKey{3, 1});
  for (const std::int64_t budget : {4, 1000}) {
    const TrainingBatch batch = small_batch(budget);
    const ValueAndGradients expected = in_one_piece(reference, batch);
    for (const LossStage stage : {LossStage::shard, LossStage::batch}) {
      preparations = 0;
      const StageResult step = training_step(model, batch, RngKey{5, 5}, TrainingLoss({.stage = stage}, {{}, kItems}));
      CHECK(preparations == 1);
      CHECK(step.loss == Approx(expected.value.item()).epsilon(1e-6));
      CHECK(relative_difference(step.gradients[model.parameters()[0].parameter->id()],
                                expected.gradients[reference.items.table.id()]) < 1e-5);
      CHECK(relative_difference(step.gradients[model.parameters()[1].parameter->id()],
                                expected.gradients[reference.projection.id()]) < 1e-5);
    }
  }
}

TEST_CASE("sampled losses prepare the items of their batch alone", "[prepared]") {
  using Scope = NegativeSampling::Scope;
  auto some = SequenceModelOf<Projected>("projected", Projected::make(RngKey{3, 1}));
  auto all = SequenceModelOf<Projected>("projected", Projected::make(RngKey{3, 1}, true));
  const TrainingBatch batch = small_batch(4);
  for (const auto kind : {LossOptions::Kind::binary_cross_entropy, LossOptions::Kind::sampled_softmax}) {
    for (const Scope scope : {Scope::position, Scope::sequence, Scope::batch}) {
      const std::int64_t count = scope == Scope::position ? 1 : 4;
      const TrainingLoss loss({.kind = kind, .negatives = {.count = count, .scope = scope}}, {{}, kItems});
      const StageResult expected = training_step(all, batch, RngKey{5, 5}, loss);
      CHECK(prepared_rows == kItems);
      const StageResult step = training_step(some, batch, RngKey{5, 5}, loss);
      CHECK(prepared_rows < kItems);
      CHECK(step.loss == Approx(expected.loss).epsilon(1e-6));
      for (std::size_t p = 0; p < 2; ++p) {
        CHECK(relative_difference(step.gradients[some.parameters()[p].parameter->id()],
                                  expected.gradients[all.parameters()[p].parameter->id()]) < 1e-5);
      }
    }
  }
}

/// LISA that asks for all candidates to be prepared, whether it needs them or not.
struct PreparedWhole {
  Lisa lisa;
  std::int64_t window = lisa.window;
  static constexpr void fields(auto& self, auto&& visit) {
    visit("lisa", self.lisa);
    visit("window", self.window);
  }
  std::int64_t num_items() const { return lisa.num_items(); }
  std::int64_t width() const { return lisa.width(); }
  LisaPrepared prepare(const BatchItems& items) const { return lisa.prepare(items); }
  bool prepares_candidates() const { return true; }
  Var encode(const Sequences& batch, const LisaPrepared& prepared, const nn::Context& context) const {
    return lisa.encode(batch, prepared, context);
  }
  Var candidate_table(const LisaPrepared& prepared) const { return lisa.candidate_table(prepared); }
  Var auxiliary_loss(const Sequences& batch, const Tensor& targets, const LisaPrepared& prepared,
                     const nn::Context& context) const {
    return lisa.auxiliary_loss(batch, targets, prepared, context);
  }
};

TEST_CASE("a loss over all items prepares those of its batch when candidates need none", "[prepared]") {
  for (const LisaVariant variant : {LisaVariant::base, LisaVariant::soft}) {
    LisaOptions options{.items = kItems, .width = 8, .window = 10, .variant = variant, .codebooks = 2, .codewords = 4};
    options.quantized = variant == LisaVariant::base ? LisaQuantized::histories : LisaQuantized::all;
    options.dropout = 0;
    options.commitment = 0.1;
    SequenceModelOf<Lisa> some("some", Lisa::make(options, RngKey{3, 1}));
    SequenceModelOf<PreparedWhole> whole("whole", PreparedWhole{Lisa::make(options, RngKey{3, 1})});
    CHECK_FALSE(some.prepares_candidates());
    for (const std::int64_t budget : {4, 1000}) {
      const TrainingBatch batch = small_batch(budget);
      for (const LossStage stage : {LossStage::shard, LossStage::batch}) {
        const TrainingLoss loss({.stage = stage}, {{}, kItems});
        const StageResult step = training_step(some, batch, RngKey{5, 5}, loss);
        const StageResult expected = training_step(whole, batch, RngKey{5, 5}, loss);
        CHECK(step.loss == Approx(expected.loss).epsilon(1e-6));
        const nn::ParameterList listed = some.parameters(), reference = whole.parameters();
        REQUIRE(listed.size() == reference.size());
        for (std::size_t p = 0; p < listed.size(); ++p) {
          INFO(listed[p].path);
          CHECK(relative_difference(step.gradients[listed[p].parameter->id()],
                                    expected.gradients[reference[p].parameter->id()]) < 1e-5);
        }
      }
    }
  }
}

TEST_CASE("inference prepares once for each state of the weights", "[prepared]") {
  SequenceModelOf<Projected> model("projected", Projected::make(RngKey{3, 1}));
  const Ranker ranker = make_ranker(model);
  CHECK(ranker.num_items() == kItems);
  preparations = 0;
  const Sequences histories = Sequences::from({{1, 2, 3}, {}, {4}}, kItems);
  const Tensor before = ranker.score(histories);
  CHECK(identical(ranker.score(histories), before));
  CHECK(preparations == 1);
  // Against the definition.
  const Projected reference = Projected::make(RngKey{3, 1});
  const auto table = ops::tanh(ops::linear(reference.items.table, reference.projection)).value().to_doubles();
  for (std::size_t i = 0; i < kItems; ++i) {
    double score = 0;
    for (std::size_t d = 0; d < kWidth; ++d) score += table[3 * kWidth + d] * table[i * kWidth + d];
    CHECK(before.data<float>()[i] == Approx(score).margin(1e-5));
  }
  optim::Adam adam;
  adam.step(model.parameters(), training_step(model, small_batch(100), RngKey{5, 5}).gradients);
  const Tensor after = ranker.score(histories);
  CHECK(preparations == 3);  // one for the step
  CHECK_FALSE(identical(before, after));
  CHECK(identical(after, make_ranker(model).score(histories)));
}

}  // namespace prepared_model_test
