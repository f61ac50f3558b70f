// States of recurrent models as values: saved, merged, taken back, and refused.
#include <catch2/catch.hpp>
#include <numeric>

#include "tally/recsys/models/recurrent_model.h"
#include "tests/recsys/recurrent_samples.h"
#include "tests/support/temporary_directory.h"

namespace recurrent_state_test {

using namespace tally;
using namespace tally::recsys;
using namespace tally::recsys::recurrent_samples;
using tally::test::message_of;

TEST_CASE("a state is a plain value, saved and restored", "[recurrent]") {
  const std::vector<std::int32_t> items = history(70);
  for (const auto& [name, model] : all_models()) {
    INFO(name);
    const auto recurrent = model->recurrent();
    ModelState state = recurrent->initial_state();
    CHECK(recurrent->load_state(state.save()).events() == 0);
    for (std::size_t t = 0; t < 40; ++t) recurrent->append(state, items[t], time_of(t));
    const ModelState copy = state;
    // Another model object of the same weights reads the bytes.
    ModelState restored = model->recurrent()->load_state(state.save());
    CHECK(restored.save() == state.save());
    CHECK(restored.events() == 40);
    CHECK(state.dtype() == DType::f32);
    std::vector<float> going_on(kWidth), from_copy(kWidth);
    for (std::size_t t = 40; t < 70; ++t) {
      recurrent->append(state, items[t], time_of(t));
      recurrent->append(restored, items[t], time_of(t));
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
    for (std::size_t t = begin; t < end; ++t) model.append(state, items[t], time_of(t));
    return state;
  };
  std::vector<std::unique_ptr<SequenceModel>> mergeable;
  mergeable.push_back(lisa(lisa_options()));
  mergeable.push_back(lisa([](LisaOptions& o) { o.variant = LisaVariant::soft; }));
  mergeable.push_back(lisa([](LisaOptions& o) { o.decay = 0; }));
  mergeable.push_back(sasrec());
  SasRecOptions timed = sasrec_options("time_decay");
  timed.alignment = PositionAlignment::end;
  mergeable.push_back(sasrec(timed));
  for (const auto& model : mergeable) {
    const auto recurrent = model->recurrent();
    for (const std::size_t cut : {0, 1, 8, 25, 50, 69, 70}) {
      ModelState merged = of(*recurrent, cut, 70);
      recurrent->merge(merged, of(*recurrent, 0, cut));
      CHECK(merged.events() == 70);
      std::vector<float> row(kWidth);
      recurrent->hidden(merged, row);
      CHECK(difference(row, streamed(*recurrent, items)) < 1e-5);
      recurrent->step(merged, 3, row, time_of(70));
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
    ModelState fresh = other->initial_state();
    CHECK_THROWS_AS(other->merge(fresh, state), ValueError);
  }
  CHECK_THROWS_AS(recurrent->append(*std::make_unique<ModelState>(), 1), ValueError);
  // As builds with another hash wrote it.
  std::string hashed_before = state.save();
  hashed_before.replace(0, std::string_view("tally.state.xxh3").size(), "tally.state");
  CHECK_THAT(message_of<IoError>([&] { recurrent->load_state(hashed_before); }),
             Catch::Matchers::Contains("of an earlier build, which had another hash"));
  // As an earlier build wrote it: another version, and a fingerprint of a layout in other words.
  std::string earlier = state.save();
  const std::size_t version_at = std::string_view("tally.state.xxh3").size() + 1;
  REQUIRE(earlier[version_at] == 2);
  earlier[version_at] = 1;
  CHECK_THAT(message_of<IoError>([&] { recurrent->load_state(earlier); }),
             Catch::Matchers::Contains("needs a state of version 2; got 1"));
  earlier[version_at + 8] = static_cast<char>(earlier[version_at + 8] ^ 1);
  CHECK_THAT(message_of<ValueError>([&] { recurrent->load_state(earlier); }),
             Catch::Matchers::Contains("or of this one in a build that keeps other states") &&
                 Catch::Matchers::Contains("its version 1") && Catch::Matchers::Contains("and version 2"));
  // The model may go on training: its recurrent form does not change.
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

}  // namespace recurrent_state_test
