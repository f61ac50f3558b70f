// The recurrent faces of models against their encode() of whole histories.
#include "tally/recsys/models/recurrent_model.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <functional>
#include <numeric>

#include "tally/recsys/models/gru4rec.h"
#include "tally/recsys/models/lisa.h"
#include "tally/recsys/models/sasrec.h"
#include "tally/recsys/models/sequence_model.h"
#include "tests/support/attention_choices.h"
#include "tests/support/temporary_directory.h"

using namespace tally;
using namespace tally::recsys;
using tally::test::message_of;

namespace {

constexpr std::int64_t kItems = 23, kWidth = 12, kWindow = 30;

/// Moves weights off their small initial values, so that nothing hides in small numbers.
template <class M>
M lively(M model, std::uint64_t seed = 5) {
  std::uint64_t stream = 0;
  for (const auto& [path, tensor] : nn::state(model)) {
    Tensor noise(tensor->shape());
    fill_normal(RngKey{seed}.fold_in(stream++), noise, 0, 0.3);
    auto values = tensor->template mutable_span<float>();
    for (std::size_t i = 0; i < values.size(); ++i) values[i] += noise.data<float>()[i];
  }
  return model;
}

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

std::unique_ptr<SequenceModel> gru4rec(std::int64_t layers, bool tied = true) {
  return std::make_unique<SequenceModelOf<Gru4Rec>>(
      "gru4rec",
      lively(Gru4Rec::make(
          {.items = kItems, .width = kWidth, .layers = layers, .window = kWindow, .tie_embeddings = tied}, RngKey{2})));
}

std::unique_ptr<SequenceModel> sasrec(PositionAlignment alignment = PositionAlignment::start) {
  return std::make_unique<SequenceModelOf<SasRec>>(
      "sasrec",
      lively(SasRec::make({.items = kItems, .width = kWidth, .heads = 2, .window = kWindow, .alignment = alignment},
                          RngKey{2})));
}

SasRecOptions sasrec_options(const std::string& attention, nn::NormPlacement norm = nn::NormPlacement::sasrec,
                             const nn::AttentionKinds& kinds = nn::attention_kinds()) {
  return {.items = kItems,
          .width = kWidth,
          .heads = 2,
          .attention = attention_choice(
              kinds, attention, {{"attention_block", 7}, {"random_features", 9}, {"codebooks", 3}, {"codewords", 5}}),
          .window = kWindow,
          .norm = norm};
}

std::unique_ptr<SequenceModel> sasrec(const SasRecOptions& options) {
  return std::make_unique<SequenceModelOf<SasRec>>("sasrec", lively(SasRec::make(options, RngKey{2})));
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
  struct State {
    std::vector<double> sums;
    std::size_t heap_bytes() const { return sums.capacity() * sizeof(double); }
    void save(std::string& to) const { write_values(to, std::span<const double>(sums)); }
    void load(ByteReader& bytes, std::int64_t) { bytes.read(std::span(sums)); }
  };
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

std::vector<std::int32_t> history(std::size_t length) {
  std::vector<std::int32_t> items;
  std::uint64_t x = 12345;
  for (std::size_t i = 0; i < length; ++i) {
    x = x * 6364136223846793005ULL + 1442695040888963407ULL;
    items.push_back(static_cast<std::int32_t>((x >> 33) % kItems));
  }
  return items;
}

std::vector<float> last_row(const SequenceModel& model, std::vector<std::int32_t> items) {
  const BatchItems all = BatchItems::all(kItems);
  const Sequences batch = Sequences::from({std::move(items)}, kItems);
  const Tensor rows = model.encode(batch, model.prepare(all), {}).value().contiguous();
  const auto values = rows.span<float>();
  return {values.end() - kWidth, values.end()};
}

std::vector<float> streamed(const RecurrentModel& model, std::span<const std::int32_t> items) {
  ModelState state = model.initial_state();
  for (const std::int32_t item : items) model.append(state, item);
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

/// A model with a window of `longer`, whose further positions are the last one again: what a stream means beyond the
/// window, written as a whole history.
template <class M>
M widened(M model, std::int64_t longer) {
  const Tensor table = model.positions.table.value();
  const std::int64_t width = table.dim(1);
  Tensor wide({longer, width});
  for (std::int64_t p = 0; p < longer; ++p) {
    const float* const from = table.data<float>() + std::min(p, model.window - 1) * width;
    std::copy_n(from, width, wide.mutable_data<float>() + p * width);
  }
  model.positions.table = nn::Parameter(wide);
  model.window = longer;
  return model;
}

/// The last row of the uncut encoding in double, and how far the streamed one is from it, relative to its largest
/// element.
double error_of_stream(const SasRec& model, std::span<const std::int32_t> items) {
  const SequenceModelOf<SasRec> face("sasrec", model);
  const auto recurrent = face.recurrent();
  ModelState state = recurrent->initial_state();
  for (const std::int32_t item : items) recurrent->append(state, item);
  std::vector<float> row(static_cast<std::size_t>(recurrent->width()));
  recurrent->hidden(state, row);
  const auto length = static_cast<std::int64_t>(items.size());
  SasRec wide = widened(model, length);
  nn::convert(wide, DType::f64);
  const Tensor rows = wide.encode(pack_window(std::span(&items, 1)), {}).value();
  const std::vector<double> expected = rows.slice(0, length - 1, length).to_doubles();
  double error = 0, size = 0;
  for (std::size_t i = 0; i < row.size(); ++i) {
    error = std::max(error, std::fabs(double{row[i]} - expected[i]));
    size = std::max(size, std::fabs(expected[i]));
  }
  return error / size;
}

struct Streaming {
  std::string name;
  std::unique_ptr<SequenceModel> model;
};

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
  add("sasrec", sasrec());
  add("sasrec, positions from the end", sasrec(PositionAlignment::end));
  for (const char* attention : {"linear_elu", "linear_favor", "local", "histogram"}) {
    for (const auto norm : {nn::NormPlacement::pre, nn::NormPlacement::post, nn::NormPlacement::sasrec}) {
      add(attention, sasrec(sasrec_options(attention, norm)));
    }
  }
  for (const char* attention : {"softmax_materialized", "lsh", "sinkhorn"}) {
    add(attention, sasrec(sasrec_options(attention)));
  }
  add("an attention from outside", with_own_attention());
  return models;
}

}  // namespace

TEST_CASE("every event of a stream gives the row of the whole history", "[recurrent]") {
  const std::vector<std::int32_t> items = history(kWindow);
  for (const auto& [name, model] : all_models()) {
    INFO(name);
    const auto recurrent = model->recurrent();
    CHECK(recurrent->width() == kWidth);
    CHECK(recurrent->num_items() == kItems);
    ModelState state = recurrent->initial_state();
    std::vector<float> stepped(kWidth), asked(kWidth);
    for (std::size_t t = 0; t < items.size(); ++t) {
      recurrent->step(state, items[t], stepped);
      recurrent->hidden(state, asked);
      CHECK(stepped == asked);
      CHECK(state.events() == static_cast<std::int64_t>(t + 1));
      CHECK(difference(stepped, last_row(*model, {items.begin(), items.begin() + static_cast<std::ptrdiff_t>(t + 1)})) <
            1e-5);
    }
    CHECK(streamed(*recurrent, items) == stepped);
    const BatchItems all = BatchItems::all(kItems);
    const Tensor table = model->candidate_table(model->prepare(all)).value();
    std::vector<float> scores(kItems), expected(kItems);
    recurrent->scorer().score(stepped, scores);
    for (std::int64_t i = 0; i < kItems; ++i) {
      const float* const vector = table.data<float>() + i * kWidth;
      expected[static_cast<std::size_t>(i)] =
          static_cast<float>(std::inner_product(stepped.begin(), stepped.end(), vector, 0.0));
    }
    CHECK(difference(scores, expected) < 1e-5);
  }
}

TEST_CASE("beyond the window a stream keeps its tally and the last position", "[recurrent]") {
  const std::vector<std::int32_t> items = history(200);
  for (const std::int64_t layers : {1, 2}) {
    for (const LisaVariant variant : {LisaVariant::base, LisaVariant::soft}) {
      LisaOptions options = lisa_options();
      options.layers = layers;
      options.variant = variant;
      const auto recurrent = lisa(options)->recurrent();
      const SequenceModelOf<Lisa> whole("lisa", widened(lively(Lisa::make(options, RngKey{2})), 200));
      CHECK(difference(streamed(*recurrent, items), last_row(whole, items)) < 1e-5);
    }
  }
  // A tally of fewer events than the window holds: the cut history gives the same.
  const auto counted = lisa([](LisaOptions& o) { o.attention_window = 12, o.decay = 0; });
  const std::vector<std::int32_t> cut(items.end() - kWindow, items.end());
  CHECK(difference(streamed(*counted->recurrent(), items), last_row(*counted, cut)) < 1e-5);
  // A position counted from the window's end is that of the newest item: the same at any length, with one block.
  const auto from_end =
      lisa([](LisaOptions& o) { o.attention_window = 12, o.decay = 0, o.alignment = PositionAlignment::end; });
  for (const std::size_t length : {5, 200}) {
    const std::vector<std::int32_t> some = history(length);
    const std::vector<std::int32_t> end(
        some.end() - static_cast<std::ptrdiff_t>(std::min<std::size_t>(length, kWindow)), some.end());
    CHECK(difference(streamed(*from_end->recurrent(), some), last_row(*from_end, end)) < 1e-5);
  }
  CHECK_THAT(message_of<ValueError>(
                 [] { lisa([](LisaOptions& o) { o.layers = 2, o.alignment = PositionAlignment::end; })->recurrent(); }),
             Catch::Matchers::Contains("positions count from the window's start"));
  CHECK_THAT(message_of<ValueError>([] {
               lisa([](LisaOptions& o) { o.variant = LisaVariant::soft, o.attention_window = 5; })->recurrent();
             }),
             Catch::Matchers::Contains("without a counts_window"));
  // SASRec reads its last items again.
  const auto rival = sasrec();
  CHECK(difference(streamed(*rival->recurrent(), items), last_row(*rival, cut)) < 1e-5);
  // A recurrent unit has no window.
  const auto unit = gru4rec(2);
  CHECK(difference(streamed(*unit->recurrent(), items), last_row(*unit, items)) < 1e-5);
}

TEST_CASE("layers with states stream without end, in double where it counts", "[recurrent]") {
  const std::vector<std::int32_t> items = history(5000);
  for (const char* attention : {"linear_elu", "linear_favor", "local"}) {
    for (const auto norm : {nn::NormPlacement::pre, nn::NormPlacement::sasrec}) {
      INFO(attention);
      const SasRec model = lively(SasRec::make(sasrec_options(attention, norm), RngKey{2}));
      for (const std::size_t length : {std::size_t{1}, std::size_t{kWindow}, std::size_t{kWindow + 1}, items.size()}) {
        CHECK(error_of_stream(model, std::span(items).first(length)) < 1e-5);
      }
    }
  }
  // A state's size does not grow, unlike the window's that softmax keeps.
  const auto recurrent = sasrec(sasrec_options("linear_elu"))->recurrent();
  ModelState state = recurrent->initial_state();
  recurrent->append(state, 1);
  const std::size_t bytes = state.bytes();
  for (const std::int32_t item : items) recurrent->append(state, item);
  CHECK(state.bytes() == bytes);
  // Positions that count from the end move with every event: the window is read again.
  SasRecOptions from_end = sasrec_options("linear_elu");
  from_end.alignment = PositionAlignment::end;
  const auto rival = sasrec(from_end);
  CHECK_THAT(rival->recurrent()->layout(), Catch::Matchers::Contains("the last 30 items"));
  CHECK(difference(streamed(*rival->recurrent(), items), last_row(*rival, {items.end() - kWindow, items.end()})) <
        1e-5);
}

TEST_CASE("a stream of linear attention after 300,000 events", "[recurrent][slow]") {
  SasRecOptions options = sasrec_options("linear_elu");
  options.width = 8;
  CHECK(error_of_stream(lively(SasRec::make(options, RngKey{2})), history(300'000)) < 1e-5);
}

TEST_CASE("an event that a layer throws at leaves no trace", "[recurrent]") {
  // The second layer's codebooks cannot quantize rows that are not finite; the first has taken the event by then.
  SasRec model = SasRec::make(sasrec_options("histogram", nn::NormPlacement::pre), RngKey{2});
  for (float& weight : model.blocks[1].attention_norm.weight.mutable_value().mutable_span<float>()) weight = NAN;
  const auto recurrent = SequenceModelOf<SasRec>("sasrec", model).recurrent();
  ModelState state = recurrent->initial_state();
  const std::string before = state.save();
  CHECK_THROWS_AS(recurrent->append(state, 3), ValueError);
  CHECK(state.save() == before);
  CHECK(state.events() == 0);
}

TEST_CASE("layouts are words", "[recurrent]") {
  const auto contains = [](const auto& recurrent, const char* words) {
    CHECK_THAT(recurrent->layout(), Catch::Matchers::Contains(words));
  };
  contains(sasrec()->recurrent(), "softmax of 2 heads, norm sasrec, activation relu");
  contains(sasrec()->recurrent(), "positions from the start");
  contains(lisa(lisa_options())->recurrent(), "activation relu");
  contains(lisa([](LisaOptions& o) { o.variant = LisaVariant::soft; })->recurrent(), "similarity bilinear");
}

TEST_CASE("a state is a plain value, saved and restored", "[recurrent]") {
  const std::vector<std::int32_t> items = history(70);
  for (const auto& [name, model] : all_models()) {
    INFO(name);
    const auto recurrent = model->recurrent();
    ModelState state = recurrent->initial_state();
    CHECK(recurrent->load_state(state.save()).events() == 0);
    for (std::size_t t = 0; t < 40; ++t) recurrent->append(state, items[t]);
    const ModelState copy = state;
    // Another model object of the same weights reads the bytes.
    ModelState restored = model->recurrent()->load_state(state.save());
    CHECK(restored.save() == state.save());
    CHECK(restored.events() == 40);
    CHECK(state.dtype() == DType::f32);
    std::vector<float> going_on(kWidth), from_copy(kWidth);
    for (std::size_t t = 40; t < 70; ++t) {
      recurrent->append(state, items[t]);
      recurrent->append(restored, items[t]);
    }
    recurrent->hidden(state, going_on);
    recurrent->hidden(restored, from_copy);
    CHECK(going_on == from_copy);
    // What was done to one leaves the other.
    recurrent->hidden(copy, from_copy);
    CHECK(from_copy == streamed(*recurrent, std::span(items).first(40)));
    CHECK(copy.bytes() > sizeof(ModelState));
  }
}

TEST_CASE("states merge, and events are taken back, where that has a meaning", "[recurrent]") {
  const std::vector<std::int32_t> items = history(70);
  const auto of = [&](const RecurrentModel& model, std::size_t begin, std::size_t end) {
    ModelState state = model.initial_state();
    for (std::size_t t = begin; t < end; ++t) model.append(state, items[t]);
    return state;
  };
  std::vector<std::unique_ptr<SequenceModel>> mergeable;
  mergeable.push_back(lisa(lisa_options()));
  mergeable.push_back(lisa([](LisaOptions& o) { o.variant = LisaVariant::soft; }));
  mergeable.push_back(lisa([](LisaOptions& o) { o.decay = 0; }));
  mergeable.push_back(sasrec());
  for (const auto& model : mergeable) {
    const auto recurrent = model->recurrent();
    for (const std::size_t cut : {0, 1, 8, 25, 50, 69, 70}) {
      ModelState merged = of(*recurrent, cut, 70);
      recurrent->merge(merged, of(*recurrent, 0, cut));
      CHECK(merged.events() == 70);
      std::vector<float> row(kWidth);
      recurrent->hidden(merged, row);
      CHECK(difference(row, streamed(*recurrent, items)) < 1e-5);
      recurrent->step(merged, 3, row);
      std::vector<std::int32_t> further = items;
      further.push_back(3);
      CHECK(difference(row, streamed(*recurrent, further)) < 1e-5);
    }
  }
  for (const auto& model : {std::shared_ptr<SequenceModel>(gru4rec(1)),
                            std::shared_ptr<SequenceModel>(lisa([](LisaOptions& o) { o.layers = 2; }))}) {
    const auto recurrent = model->recurrent();
    ModelState state = of(*recurrent, 0, 5);
    CHECK_THROWS_AS(recurrent->merge(state, of(*recurrent, 5, 9)), ValueError);
    CHECK_THROWS_AS(recurrent->remove(state, items[2]), ValueError);
    CHECK(state.events() == 5);
  }

  const auto undecayed = lisa([](LisaOptions& o) { o.decay = 0; })->recurrent();
  ModelState state = of(*undecayed, 0, 20);
  undecayed->remove(state, items[4]);
  std::vector<std::int32_t> without(items.begin(), items.begin() + 20);
  without.erase(without.begin() + 4);
  std::vector<float> row(kWidth);
  if (items[4] == items[19]) undecayed->append(state, items[19]), without.push_back(items[19]);
  undecayed->hidden(state, row);
  CHECK(row == streamed(*undecayed, without));
  undecayed->remove(state, items[19]);
  CHECK_THAT(message_of<ValueError>([&] { undecayed->hidden(state, row); }), Catch::Matchers::Contains("taken back"));
  undecayed->step(state, 7, row);
  without.back() = 7;
  CHECK(row == streamed(*undecayed, without));
  const auto decayed = lisa(lisa_options())->recurrent();
  ModelState other = of(*decayed, 0, 20);
  CHECK_THROWS_AS(decayed->remove(other, items[4]), ValueError);
}

TEST_CASE("a state of another model is refused", "[recurrent]") {
  const auto first = lisa(lisa_options());
  const auto recurrent = first->recurrent();
  ModelState state = recurrent->initial_state();
  std::vector<float> row(kWidth);
  recurrent->step(state, 4, row);

  std::vector<std::shared_ptr<const RecurrentModel>> others{lisa([](LisaOptions& o) { o.decay = 0.2; })->recurrent(),
                                                            lisa([](LisaOptions& o) { o.layers = 2; })->recurrent(),
                                                            gru4rec(1)->recurrent(), sasrec()->recurrent()};
  // One weight a little different: of the items, where there are rows for them, and of the positions.
  const auto nudged = lisa(lisa_options());
  for (const auto& [path, tensor] : nudged->state()) {
    if (path == "positions.table") tensor->mutable_data<float>()[3] += 1e-6F;
  }
  others.push_back(nudged->recurrent());
  for (const auto& other : others) {
    CHECK(other->fingerprint() != recurrent->fingerprint());
    CHECK_THAT(message_of<ValueError>([&] { other->append(state, 1); }), Catch::Matchers::Contains("another model"));
    CHECK_THROWS_AS(other->hidden(state, row), ValueError);
    CHECK_THROWS_AS(other->step(state, 1, row), ValueError);
    CHECK_THAT(message_of<ValueError>([&] { other->load_state(state.save()); }),
               Catch::Matchers::Contains("another model"));
    ModelState own = other->initial_state();
    CHECK_THROWS_AS(other->merge(own, state), ValueError);
  }
  CHECK_THROWS_AS(recurrent->append(*std::make_unique<ModelState>(), 1), ValueError);
  // As an earlier build wrote it: another version, and a fingerprint of a layout in other words.
  std::string earlier = state.save();
  const std::size_t version_at = std::string_view("tally.state").size() + 1;
  REQUIRE(earlier[version_at] == 2);
  earlier[version_at] = 1;
  CHECK_THAT(message_of<IoError>([&] { recurrent->load_state(earlier); }),
             Catch::Matchers::Contains("needs a state of version 2; got 1"));
  earlier[version_at + 8] = static_cast<char>(earlier[version_at + 8] ^ 1);
  CHECK_THAT(message_of<ValueError>([&] { recurrent->load_state(earlier); }),
             Catch::Matchers::Contains("or of this one in a build that keeps other states") &&
                 Catch::Matchers::Contains("its version 1") && Catch::Matchers::Contains("and version 2"));
  // The model may go on training: its recurrent face does not change.
  const std::vector<float> before = streamed(*recurrent, history(9));
  for (const auto& [path, tensor] : first->state()) tensor->mutable_data<float>()[0] += 1;
  CHECK(streamed(*recurrent, history(9)) == before);
  CHECK(first->recurrent()->fingerprint() != recurrent->fingerprint());

  CHECK_THROWS_AS(recurrent->append(state, kItems), IndexError);
  CHECK_THROWS_AS(recurrent->append(state, -1), IndexError);
  CHECK_THROWS_AS(recurrent->hidden(recurrent->initial_state(), row), ValueError);
  CHECK_THROWS_AS(recurrent->hidden(state, std::span(row).first(3)), ShapeError);
  CHECK(state.events() == 1);
}

TEST_CASE("saved bytes that are damaged are refused", "[recurrent]") {
  for (const auto& model : {std::shared_ptr<SequenceModel>(lisa([](LisaOptions& o) { o.layers = 2; })),
                            std::shared_ptr<SequenceModel>(gru4rec(1)), std::shared_ptr<SequenceModel>(sasrec())}) {
    const auto recurrent = model->recurrent();
    ModelState state = recurrent->initial_state();
    for (const std::int32_t item : history(11)) recurrent->append(state, item);
    const std::string bytes = state.save();
    for (std::size_t length = 0; length < bytes.size(); length += 1 + length / 9) {
      CHECK_THROWS_AS(recurrent->load_state(bytes.substr(0, length)), Error);
    }
    CHECK_THROWS_AS(recurrent->load_state(bytes + 'x'), IoError);
    for (std::size_t at = 0; at < bytes.size(); at += 3) {
      std::string changed = bytes;
      changed[at] = static_cast<char>(changed[at] ^ 4);
      CHECK_THROWS_AS(recurrent->load_state(changed), Error);
    }
  }
}
