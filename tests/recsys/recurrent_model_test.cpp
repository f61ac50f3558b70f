// The recurrent form of models against their encode() of whole histories.
#include "tally/recsys/models/recurrent_model.h"
#include "tally/recsys/models/sequence_model_of.h"

#include <catch2/catch.hpp>
#include <cmath>

#include "tests/recsys/recurrent_samples.h"
#include "tests/support/temporary_directory.h"

namespace recurrent_model_test {

using namespace tally;
using namespace tally::recsys;
using namespace tally::recsys::recurrent_samples;
using tally::test::message_of;

namespace {

/// One sequence, whose events are `before` further ones behind its first.
Sequences at_their_times(std::span<const std::int32_t> items, std::size_t before = 0) {
  const std::vector<double> times = times_of(before + items.size());
  const std::span<const double> moments = std::span(times).subspan(before);
  return pack(std::span(&items, 1), std::span(&moments, 1));
}

/// Of the events behind the first `before`.
std::vector<float> last_row(const SequenceModel& model, const std::vector<std::int32_t>& items,
                            std::size_t before = 0) {
  const BatchItems all = BatchItems::all(kItems);
  const Sequences batch = at_their_times(items, before);
  const Tensor rows = model.encode(batch, model.prepare(all), {}).value().contiguous();
  const auto values = rows.span<float>();
  return {values.end() - kWidth, values.end()};
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
template <class M>
double error_of_stream(const M& model, std::span<const std::int32_t> items) {
  const SequenceModelOf<M> layers("layers", model);
  const auto recurrent = layers.recurrent();
  ModelState state = recurrent->initial_state();
  for (std::size_t t = 0; t < items.size(); ++t) recurrent->append(state, items[t], time_of(t));
  std::vector<float> row(static_cast<std::size_t>(recurrent->width()));
  recurrent->hidden(state, row);
  const auto length = static_cast<std::int64_t>(items.size());
  M wide = widened(model, length);
  nn::convert(wide, DType::f64);
  const Tensor rows = wide.encode(at_their_times(items), {}).value();
  const std::vector<double> expected = rows.slice(0, length - 1, length).to_doubles();
  double error = 0, size = 0;
  for (std::size_t i = 0; i < row.size(); ++i) {
    error = std::max(error, std::fabs(double{row[i]} - expected[i]));
    size = std::max(size, std::fabs(expected[i]));
  }
  return error / size;
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
      recurrent->step(state, items[t], stepped, time_of(t));
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
  const auto windowed = sasrec();
  CHECK(difference(streamed(*windowed->recurrent(), items), last_row(*windowed, cut)) < 1e-5);
  // A recurrent unit has no window.
  const auto unit = gru4rec(2);
  CHECK(difference(streamed(*unit->recurrent(), items), last_row(*unit, items)) < 1e-5);
}

TEST_CASE("layers with states stream without end, in double where it counts", "[recurrent]") {
  const std::vector<std::int32_t> items = history(5000);
  for (const char* attention : {"linear_elu", "linear_favor", "linrec", "efficient", "lambda", "galerkin",
                                "fixed_memory", "local", "dispatcher", "recgrela", "retnet", "lightning", "gla",
                                "deltanet", "gated_deltanet", "gated_slot", "time_decay"}) {
    for (const auto norm : {nn::NormPlacement::pre, nn::NormPlacement::sasrec}) {
      INFO(attention);
      const SasRec model = lively(SasRec::make(sasrec_options(attention, norm), RngKey{2}));
      for (const std::size_t length : {std::size_t{1}, std::size_t{kWindow}, std::size_t{kWindow + 1}, items.size()}) {
        CHECK(error_of_stream(model, std::span(items).first(length)) < 1e-5);
      }
    }
  }
  CHECK(error_of_stream(elastic_model(true, ExpertSharing::shared), items) < 1e-5);
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
  const auto windowed = sasrec(from_end);
  CHECK_THAT(windowed->recurrent()->layout(), Catch::Matchers::Contains("the last 30 items"));
  CHECK(difference(streamed(*windowed->recurrent(), items), last_row(*windowed, {items.end() - kWindow, items.end()})) <
        1e-5);
}

TEST_CASE("a model that reads times needs one of each event, and others pass them over", "[recurrent]") {
  const std::vector<std::int32_t> items = history(3 * kWindow);
  const auto timed = sasrec(sasrec_options("time_decay"));
  REQUIRE(timed->reads_times());
  const auto recurrent = timed->recurrent();
  REQUIRE(recurrent->reads_times());
  ModelState state = recurrent->initial_state();
  recurrent->append(state, 1, 5);
  const std::string before = state.save();
  for (const double time : {kNoTime, std::numeric_limits<double>::infinity()}) {
    CHECK_THAT(message_of<ValueError>([&] { recurrent->append(state, 3, time); }),
               Catch::Matchers::Contains("reads when events were, and needs the time of each; got item 3 without one"));
  }
  CHECK(state.save() == before);
  // Another time is another state.
  ModelState sooner = state, later = state;
  recurrent->append(sooner, 3, 6);
  recurrent->append(later, 3, 1e7);
  CHECK(sooner.save() != later.save());

  // A window keeps the times of its events, also where it begins within the history.
  SasRecOptions from_end = sasrec_options("time_decay");
  from_end.alignment = PositionAlignment::end;
  const auto by_window = sasrec(from_end);
  CHECK(by_window->recurrent()->reads_times());
  const std::vector<std::int32_t> cut(items.end() - kWindow, items.end());
  CHECK(difference(streamed(*by_window->recurrent(), items), last_row(*by_window, cut, items.size() - kWindow)) < 1e-5);

  const auto untimed = sasrec(sasrec_options("gla"));
  CHECK_FALSE(untimed->reads_times());
  ModelState with = untimed->recurrent()->initial_state(), without = with;
  untimed->recurrent()->append(with, 4, 77);
  untimed->recurrent()->append(without, 4);
  CHECK(with.save() == without.save());
}

TEST_CASE("a stream of linear attention after 300,000 events", "[recurrent][slow]") {
  SasRecOptions options = sasrec_options("linear_elu");
  options.width = 8;
  CHECK(error_of_stream(lively(SasRec::make(options, RngKey{2})), history(300'000)) < 1e-5);
}

TEST_CASE("a stream of dispatcher attention after 300,000 events", "[recurrent][slow]") {
  CHECK(error_of_stream(elastic_model(true, ExpertSharing::shared), history(300'000)) < 1e-5);
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

}  // namespace recurrent_model_test
