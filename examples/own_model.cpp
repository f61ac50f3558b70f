// A recommender of one's own, outside the tree: an attention, a loss and a model, each a struct and a row of a table.
// With the rows come all commands: own_model train, evaluate, recommend, study, gradcheck --model, bench, models ...
#include <cmath>

#include "tally/nn/blocks/transformer.h"
#include "tally/ops/elementwise/elementwise.h"
#include "tally/ops/losses/item_cross_entropy.h"
#include "tally/ops/recurrent/decayed_sum.h"
#include "tally/ops/tensor/reduce.h"
#include "tally/ops/tensor/shape.h"
#include "tally/recsys/config/tables.h"
#include "tally/tools/tally_commands.h"

using namespace tally;

namespace {

struct AgeOptions {
  double rate = 0.1;
  static void keys(auto& o, auto&& key) { key("age_rate", o.rate, above(0), "decay of a value's weight, per event"); }
};

/// Attention by age alone: the mean of the values so far, with a weight of e^(-rate k) for the value k places back.
/// Each layer learns its rate.
struct AgeAttention {
  nn::Linear value, output;
  nn::Parameter log_rate;
  static constexpr void fields(auto& self, auto&& visit) {
    visit("value", self.value);
    visit("output", self.output);
    visit("log_rate", self.log_rate);
  }
  static AgeAttention make(const AgeOptions& options, const nn::AttentionSettings& settings, RngKey key) {
    const nn::LinearOptions square{.in = settings.width, .out = settings.width, .deviation = settings.deviation};
    return {nn::Linear::make(square, key.fold_in("value")), nn::Linear::make(square, key.fold_in("output")),
            nn::Parameter(Tensor::from<float>({static_cast<float>(std::log(options.rate))}, {1}))};
  }
  Var operator()(const Var&, const Var& source, const nn::Sequence& sequence, const nn::Context&) const {
    Tensor ones({source.dim(0), 1}, source.dtype());
    ones.fill(1);
    return output(ops::decayed_sum(value(source), log_rate, sequence.offsets) /
                  ops::decayed_sum(ones, log_rate, sequence.offsets));
  }
  std::string layout() const { return ""; }
  using State = nn::SumsState;  // the recurrent form, by which models stream: sums of the values, then of the weights
  State initial_state() const { return {std::vector<double>(static_cast<std::size_t>(value.weight.shape()[0] + 1))}; }
  Var step(State& state, const Var&, const Var& source, const nn::Event&) const {
    const double kept = std::exp(-std::exp(log_rate.value().item()));
    const Tensor row = value(source).value().contiguous();
    Tensor mean(row.shape());
    state.sums.back() = kept * state.sums.back() + 1;
    for (std::size_t i = 0; i + 1 < state.sums.size(); ++i) {
      state.sums[i] = kept * state.sums[i] + double{row.data<float>()[i]};
      mean.mutable_data<float>()[i] = static_cast<float>(state.sums[i] / state.sums.back());
    }
    return output(mean);
  }
};

struct SmoothingOptions {
  double smoothing = 0.1;
  static void keys(auto& o, auto&& key) { key("label_smoothing", o.smoothing, share(), "of the target, to all items"); }
};

/// Cross-entropy towards a target of 1 - s, and s shared by all items: CE + s <hidden, target's row - mean row>.
Var smoothed(const SmoothingOptions& options, const recsys::LossRows& rows) {
  const auto [counted, targets] = rows.counted();
  const Var beside = ops::gather(rows.table, targets) - ops::mean(rows.table, {.dims = {0}, .keepdims = true});
  const Var excess = ops::sum(ops::gather(rows.hidden, counted) * beside);
  return ops::item_cross_entropy(rows.hidden, rows.table, rows.shard.targets, {.reduction_scale = rows.scale}) +
         excess * (options.smoothing * rows.scale);
}

struct PlainOptions {
  std::int64_t items = 0, width = 64;
  nn::AttentionChoice attention{nn::attention_kinds(), "softmax"};
  static void keys(auto& o, auto&& key) {
    key("hidden_size", o.width, at_least(1), "width of embeddings and hidden rows");
    key("attention", o.attention, "kind of attention");
  }
};

/// Blocks over item embeddings without positions: order is the attention's to see.
struct Plain {
  nn::Embedding items;
  std::vector<nn::TransformerBlock> blocks;
  std::int64_t window = 200;
  recsys::PositionAlignment alignment = recsys::PositionAlignment::start;
  static constexpr void fields(auto& self, auto&& visit) {
    visit("items", self.items);
    visit("blocks", self.blocks);
    visit("window", self.window);
    visit("alignment", self.alignment);
  }
  static Plain make(const PlainOptions& o, RngKey key) {
    Plain model{.items = nn::Embedding::make({o.items, o.width, 0.02}, key.fold_in("items")), .blocks = {}};
    for (std::int64_t b = 0; b < 2; ++b) {
      model.blocks.push_back(nn::TransformerBlock::make(
          {.attention = o.attention, .settings = {.width = o.width}, .hidden_dropout = 0.3, .deviation = 0.02},
          key.fold_in(static_cast<std::uint64_t>(b))));
    }
    return model;
  }
  Var embed(const Tensor& rows, const Tensor&, const nn::Context&) const { return items(rows, 8); }
  Var finish(const Var& x) const { return x; }
  Var encode(const recsys::Sequences& b, const nn::Context& c) const { return recsys::encode_layers(*this, b, c); }
  Var item_table() const { return items.table.var(); }
};

}  // namespace

int main(int argc, char** argv) {
  nn::AttentionKinds attentions = nn::attention_kinds();
  attentions.add(nn::attention_row<AgeAttention>("age", "the values so far, weighted by age", AgeOptions{}));
  recsys::Tables tables = recsys::standard(attentions);
  tables.losses.add(recsys::loss_row("smoothed", "cross-entropy with label smoothing", SmoothingOptions{}, smoothed));
  tables.models.add(
      recsys::model_row<Plain>("plain", "blocks over item embeddings", PlainOptions{.attention = {attentions, "age"}}));
  return tools::tally_commands(tables, ops::standard_catalog(), argc, argv);
}
