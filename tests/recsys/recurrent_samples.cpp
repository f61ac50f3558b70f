#include "tests/recsys/recurrent_samples.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "tally/recsys/models/gru4rec.h"
#include "tally/recsys/models/recgrela.h"
#include "tally/recsys/models/sequence_model_of.h"
#include "tests/support/attention_choices.h"

namespace tally::recsys::recurrent_samples {

LisaOptions lisa_options() {
  LisaOptions options;
  options.items = kItems;
  options.width = kWidth;
  options.window = kWindow;
  options.codebooks = 3;
  options.codewords = 5;
  options.target_codewords = 7;
  return options;
}

std::unique_ptr<SequenceModel> lisa(const LisaOptions& options) {
  return std::make_unique<SequenceModelOf<Lisa>>("lisa", lively(Lisa::make(options, RngKey{2})));
}

std::unique_ptr<SequenceModel> lisa(const std::function<void(LisaOptions&)>& change) {
  LisaOptions options = lisa_options();
  change(options);
  return lisa(options);
}

std::unique_ptr<SequenceModel> gru4rec(std::int64_t layers, bool tied) {
  return std::make_unique<SequenceModelOf<Gru4Rec>>(
      "gru4rec",
      lively(Gru4Rec::make(
          {.items = kItems, .width = kWidth, .layers = layers, .window = kWindow, .tie_embeddings = tied}, RngKey{2})));
}

std::unique_ptr<SequenceModel> gru4rec_behind() {
  return std::make_unique<SequenceModelOf<Gru4Rec>>(
      "gru4rec",
      lively(Gru4Rec::make({.items = kItems, .width = 10, .embedding_width = kWidth, .window = kWindow, .bias = false},
                           RngKey{2})));
}

std::unique_ptr<SequenceModel> sasrec(PositionAlignment alignment) {
  return std::make_unique<SequenceModelOf<SasRec>>(
      "sasrec",
      lively(SasRec::make({.items = kItems, .width = kWidth, .heads = 2, .window = kWindow, .alignment = alignment},
                          RngKey{2})));
}

SasRecOptions sasrec_options(const std::string& attention, nn::NormPlacement norm, const nn::AttentionKinds& kinds) {
  return {.items = kItems,
          .width = kWidth,
          .heads = 2,
          .attention = attention_choice(
              kinds, attention,
              {{"attention_block", 7}, {"random_features", 9}, {"codebooks", 3}, {"codewords", 5}, {"experts", 6}}),
          .window = kWindow,
          .norm = norm};
}

std::unique_ptr<SequenceModel> sasrec(const SasRecOptions& options) {
  return std::make_unique<SequenceModelOf<SasRec>>("sasrec", lively(SasRec::make(options, RngKey{2})));
}

Elastic elastic_model(bool causal, ExpertSharing sharing, Retrieval retrieval) {
  ElasticOptions options = elastic_options();
  options.layers = sasrec_options("dispatcher", nn::NormPlacement::pre);
  options.items = kItems;
  options.causal = causal;
  options.sharing = sharing;
  options.retrieval.retrieval = retrieval;
  options.retrieval.memory.sub_keys = 5;
  return lively(Elastic::make(options, RngKey{2}));
}

namespace {

std::unique_ptr<SequenceModel> elastic(bool causal, ExpertSharing sharing, Retrieval retrieval = Retrieval::none) {
  return std::make_unique<SequenceModelOf<Elastic>>("elastic", elastic_model(causal, sharing, retrieval));
}

/// A running mean of the rows so far: an attention from outside, with a projection of its own.
struct MeanKind {
  nn::Linear value;
  static constexpr void fields(auto& self, auto&& visit) { visit("value", self.value); }
  static MeanKind make(const NoOptions&, const nn::AttentionSettings& settings, RngKey key) {
    return {nn::Linear::make({.in = settings.width, .out = settings.width}, key)};
  }
  Var operator()(const Var&, const Var& source, const nn::Sequence& sequence, const nn::Context&) const {
    const Tensor values = value(source).value().contiguous();
    Tensor means = values.clone();
    for (std::int64_t s = 0; s < sequence.offsets.count(); ++s) {
      State state{std::vector<double>(static_cast<std::size_t>(values.dim(1)))};
      for (std::int64_t t = sequence.offsets.at(s); t < sequence.offsets.at(s + 1); ++t) {
        take(state, values.slice(0, t, t + 1), t - sequence.offsets.at(s),
             means.mutable_data<float>() + t * values.dim(1));
      }
    }
    return Var(means);
  }
  std::string layout() const { return ""; }
  using State = nn::SumsState;
  State initial_state() const { return {std::vector<double>(static_cast<std::size_t>(value.weight.shape()[0]))}; }
  Var step(State& state, const Var&, const Var& source, const nn::Event& event) const {
    Tensor mean({1, static_cast<std::int64_t>(state.sums.size())});
    take(state, value(source).value().contiguous(), event.place, mean.mutable_data<float>());
    return Var(mean);
  }
  static void take(State& state, const Tensor& row, std::int64_t before, float* out) {
    for (std::size_t i = 0; i < state.sums.size(); ++i) {
      state.sums[i] += double{row.data<float>()[i]};
      out[i] = static_cast<float>(state.sums[i] / static_cast<double>(before + 1));
    }
  }
};

std::unique_ptr<SequenceModel> with_own_attention() {
  nn::AttentionKinds kinds = nn::attention_kinds();
  kinds.add(nn::attention_row<MeanKind>("mean", "of the rows so far", NoOptions{}));
  return std::make_unique<SequenceModelOf<SasRec>>(
      "own", lively(SasRec::make(sasrec_options("mean", nn::NormPlacement::post, kinds), RngKey{2})));
}

}  // namespace

std::vector<std::int32_t> history(std::size_t length) {
  std::vector<std::int32_t> items;
  std::uint64_t x = 12345;
  for (std::size_t i = 0; i < length; ++i) {
    x = x * 6364136223846793005ULL + 1442695040888963407ULL;
    items.push_back(static_cast<std::int32_t>((x >> 33) % kItems));
  }
  return items;
}

std::vector<double> times_of(std::size_t length) {
  std::vector<double> times;
  for (std::size_t t = 0; t < length; ++t) times.push_back(time_of(t));
  return times;
}

std::vector<float> streamed(const RecurrentModel& model, std::span<const std::int32_t> items) {
  ModelState state = model.initial_state();
  for (std::size_t t = 0; t < items.size(); ++t) model.append(state, items[t], time_of(t));
  std::vector<float> row(kWidth);
  model.hidden(state, row);
  return row;
}

double difference(std::span<const float> a, std::span<const float> b) {
  double largest = 0, size = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    largest = std::max(largest, std::fabs(double{a[i]} - double{b[i]}));
    size = std::max(size, std::fabs(double{b[i]}));
  }
  return a.size() == b.size() ? largest / size : std::numeric_limits<double>::infinity();
}

std::vector<Streaming> all_models() {
  std::vector<Streaming> models;
  const auto add = [&](const char* name, std::unique_ptr<SequenceModel> model) {
    models.push_back({name, std::move(model)});
  };
  for (const std::int64_t layers : {1, 2, 3}) {
    for (const LisaVariant variant : {LisaVariant::base, LisaVariant::soft, LisaVariant::mini}) {
      add("lisa", lisa([&](LisaOptions& o) { o.variant = variant, o.layers = layers; }));
    }
    add("lisa soft queries",
        lisa([&](LisaOptions& o) { o.variant = LisaVariant::soft, o.soft_query = true, o.layers = layers; }));
    add("lisa scaled", lisa([&](LisaOptions& o) { o.score_scale = 0.2, o.layers = layers; }));
    for (const LisaQuantized quantized : {LisaQuantized::histories, LisaQuantized::attention}) {
      for (const LisaVariant variant : {LisaVariant::base, LisaVariant::soft}) {
        add("lisa quantized in part", lisa([&](LisaOptions& o) {
              o.variant = variant, o.quantized = quantized, o.score_scale = 0.2, o.layers = layers;
            }));
      }
    }
    for (const LisaVariant variant : {LisaVariant::base, LisaVariant::soft}) {
      add("lisa positions", lisa([&](LisaOptions& o) {
            o.variant = variant, o.position_codebooks = 2, o.position_codewords = 5, o.layers = layers;
          }));
    }
    add("lisa undecayed", lisa([&](LisaOptions& o) { o.decay = 0, o.layers = layers; }));
    add("lisa learned decay", lisa([&](LisaOptions& o) { o.learn_decay = true, o.layers = layers; }));
    add("lisa counts window", lisa([&](LisaOptions& o) { o.attention_window = 7, o.decay = 0, o.layers = layers; }));
  }
  add("lisa 300 codewords", lisa([](LisaOptions& o) { o.codewords = 300; }));
  add("lisa not residual", lisa([](LisaOptions& o) { o.residual = false; }));
  add("gru4rec", gru4rec(1));
  add("gru4rec of two layers", gru4rec(2));
  add("gru4rec untied", gru4rec(1, false));
  add("gru4rec with a layer behind it", gru4rec_behind());
  add("sasrec", sasrec());
  add("sasrec, positions from the end", sasrec(PositionAlignment::end));
  SasRecOptions of_recbole = sasrec_options("linear_elu", nn::NormPlacement::post);
  of_recbole.embeddings = {.normalised = true, .scaled = false};
  add("sasrec, normalised embeddings", sasrec(of_recbole));
  for (const char* attention : {"linear_elu", "linear_favor", "linrec", "efficient", "lambda", "galerkin",
                                "fixed_memory", "local", "histogram", "dispatcher", "recgrela", "retnet", "lightning",
                                "gla", "deltanet", "gated_deltanet", "gated_slot", "time_decay"}) {
    for (const auto norm : {nn::NormPlacement::pre, nn::NormPlacement::post, nn::NormPlacement::sasrec}) {
      add(attention, sasrec(sasrec_options(attention, norm)));
    }
  }
  SasRecOptions timed = sasrec_options("time_decay");
  timed.alignment = PositionAlignment::end;
  add("time_decay, positions from the end", sasrec(timed));
  for (const char* attention : {"softmax_materialized", "lsh", "sinkhorn"}) {
    add(attention, sasrec(sasrec_options(attention)));
  }
  add("an attention from outside", with_own_attention());
  for (const auto sharing : {ExpertSharing::layer, ExpertSharing::shared}) {
    add("elastic, causal", elastic(true, sharing));
    add("elastic, both ways", elastic(false, sharing));
  }
  add("elastic, experts carried", elastic(false, ExpertSharing::carried));
  add("elastic, rows retrieved before the window", elastic(true, ExpertSharing::shared, Retrieval::rows));
  add("elastic, rows retrieved", elastic(false, ExpertSharing::carried, Retrieval::rows));
  for (const bool causal : {true, false}) {
    RecGrelaOptions options = recgrela_options();
    options.items = kItems, options.width = kWidth, options.blocks = 2, options.heads = 2, options.inner = 12;
    options.window = kWindow, options.causal = causal;
    add(causal ? "recgrela, causal" : "recgrela, both ways",
        std::make_unique<SequenceModelOf<RecGrela>>("recgrela", lively(RecGrela::make(options, RngKey{2}))));
  }
  add("elastic, pooled", elastic(false, ExpertSharing::layer, Retrieval::pooled));
  return models;
}

}  // namespace tally::recsys::recurrent_samples
