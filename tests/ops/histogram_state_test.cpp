#include "tally/ops/attention/histogram_state.h"

#include <catch2/catch.hpp>
#include <cmath>

#include "tally/core/io/fingerprint.h"
#include "tally/ops/attention/histogram_attention.h"
#include "tally/ops/catalog.h"

namespace histogram_state_test {

using namespace tally;
using Catch::Matchers::Contains;
using ops::HistogramLayout;
using ops::HistogramReader;
using ops::HistogramState;

namespace {

struct Events {
  std::vector<std::int32_t> codes;
  std::int64_t codebooks;
  std::span<const std::int32_t> operator[](std::int64_t i) const {
    return {codes.data() + i * codebooks, static_cast<std::size_t>(codebooks)};
  }
};

Events random_events(std::int64_t count, std::int64_t codebooks, std::int64_t words, std::uint64_t stream) {
  const Tensor codes = ops::sample_integers({count, codebooks}, stream, words).to(DType::i32);
  const auto all = codes.span<std::int32_t>();
  return {{all.begin(), all.end()}, codebooks};
}

/// Largest difference of the state's answers, event by event, from the parallel form's rows.
double difference(const HistogramLayout& layout, std::int64_t length, double deviation = 1) {
  const std::int64_t width = 7, b = layout.codebooks, w = layout.words;
  const Events events = random_events(length, b, w, 1);
  const Tensor tables = ops::sample_normal({b, w, w}, 2, deviation).to(DType::f32);
  const Tensor values = ops::sample_normal({b * w, width}, 3).to(DType::f32);
  const Tensor logits = ops::sample_normal({length, b, w}, 4, 2.0).to(DType::f32);
  const Tensor log_decay = layout.rate > 0 ? Tensor::scalar(std::log(layout.rate)) : Tensor();
  ops::HistogramAttentionOptions options;
  options.window = layout.window;
  if (layout.soft) options.assignment = ops::CodewordAssignment::soft;
  const Tensor expected =
      ops::histogram_attention(Tensor::from(events.codes, {length, b}), layout.soft ? Var(logits) : Var(), tables,
                               values, log_decay, Offsets::single(length), options)
          .value();
  const HistogramReader reader(tables, values, 0, layout.fingerprint);
  HistogramState state(layout);
  std::vector<float> out(static_cast<std::size_t>(width)), soft(static_cast<std::size_t>(b * w));
  double worst = 0;
  for (std::int64_t t = 0; t < length; ++t) {
    if (layout.soft) {
      for (std::int64_t book = 0; book < b; ++book) {
        const float* x = logits.data<float>() + (t * b + book) * w;
        double sum = 0;
        for (std::int64_t i = 0; i < w; ++i) sum += std::exp(static_cast<double>(x[i]));
        for (std::int64_t i = 0; i < w; ++i)
          soft[static_cast<std::size_t>(book * w + i)] = static_cast<float>(std::exp(static_cast<double>(x[i])) / sum);
      }
      state.append_soft(soft);
    } else {
      state.append(events[t]);
    }
    state.query(events[t], reader, out);
    for (std::int64_t d = 0; d < width; ++d) {
      const double apart = std::abs(static_cast<double>(out[static_cast<std::size_t>(d)]) -
                                    static_cast<double>(expected.data<float>()[t * width + d]));
      worst = std::isfinite(apart) ? std::max(worst, apart) : 1e300;
    }
  }
  CHECK(state.events() == length);
  return worst;
}

HistogramState after(const HistogramLayout& layout, const Events& events, std::int64_t begin, std::int64_t end) {
  HistogramState state(layout);
  for (std::int64_t i = begin; i < end; ++i) state.append(events[i]);
  return state;
}

}  // namespace

TEST_CASE("the recurrent form answers what the parallel form computes", "[histogram_state]") {
  CHECK(difference({.codebooks = 3, .words = 5}, 400) < 1e-5);
  CHECK(difference({.codebooks = 2, .words = 300}, 200) < 1e-5);
  CHECK(difference({.codebooks = 3, .words = 5, .window = 37}, 400) < 1e-5);
  CHECK(difference({.codebooks = 3, .words = 5, .rate = 0.1}, 400) < 1e-5);
  CHECK(difference({.codebooks = 3, .words = 5, .window = 37, .rate = 0.1}, 400) < 1e-5);
  CHECK(difference({.codebooks = 2, .words = 300, .window = 150, .rate = 0.01}, 400) < 1e-5);
  CHECK(difference({.codebooks = 3, .words = 5, .soft = true}, 300) < 1e-5);
  CHECK(difference({.codebooks = 3, .words = 5, .rate = 0.05, .soft = true}, 300) < 1e-5);
  // Exponentials of whole tables underflow: relative to the codewords present.
  CHECK(difference({.codebooks = 3, .words = 40}, 30, 2000) < 1e-5);
}

TEST_CASE("the millionth event is answered as by the parallel form", "[histogram_state][slow]") {
  for (const HistogramLayout& layout :
       {HistogramLayout{.codebooks = 2, .words = 5}, HistogramLayout{.codebooks = 2, .words = 5, .rate = 0.1},
        HistogramLayout{.codebooks = 2, .words = 5, .window = 1000, .rate = 0.001},
        HistogramLayout{.codebooks = 2, .words = 5, .rate = 1e-5, .soft = true}}) {
    CHECK(difference(layout, 1000000) < 1e-5);
  }
}

TEST_CASE("counts too small for f32 answer all the same, and those that are nothing are refused", "[histogram_state]") {
  const HistogramLayout layout{.codebooks = 2, .words = 4, .rate = 0.1};
  const HistogramReader reader(ops::sample_normal({2, 4, 4}, 2).to(DType::f32),
                               ops::sample_normal({8, 3}, 3).to(DType::f32));
  const std::vector<std::int32_t> code{1, 2};
  std::vector<float> expected(3), got(3);
  const HistogramState young = after(layout, random_events(9, 2, 4, 5), 0, 9);
  young.query(code, reader, expected);
  // All counts times e^-100: an average does not know.
  HistogramState old(layout);
  old.merge(young, 1000);
  CHECK(old.count(0, 0) < 1e-40);
  old.query(code, reader, got);
  for (std::size_t i = 0; i < 3; ++i) CHECK(got[i] == Approx(expected[i]).epsilon(1e-5));
  CHECK(HistogramState::load(old.save(), layout) == old);
  HistogramState empty(layout);
  CHECK_THROWS_WITH(empty.merge(young, 8000), Contains("decayed to nothing"));
  CHECK(empty == HistogramState(layout));

  HistogramState soft({.codebooks = 2, .words = 4, .soft = true});
  soft.append_soft(std::vector<float>(8, 0.0f));
  CHECK_THROWS_WITH(soft.query(code, reader, got), Contains("count nothing"));
  CHECK_THROWS_WITH(soft.query_soft(std::vector<float>(8, 0.25f), reader, got), Contains("count nothing"));
}

TEST_CASE("a codeword that has left a decayed window counts nothing", "[histogram_state]") {
  HistogramState state({.codebooks = 1, .words = 3, .window = 4, .rate = 0.7});
  const std::vector<std::int32_t> first{0}, later{2};
  for (int i = 0; i < 3; ++i) state.append(first);
  for (int i = 0; i < 3; ++i) state.append(later);
  CHECK(state.count(0, 0) == Approx(std::exp(-2.1)));
  state.append(later);
  CHECK(state.count(0, 0) == 0);
  CHECK(state.count(0, 2) == Approx(1 + std::exp(-0.7) + std::exp(-1.4) + std::exp(-2.1)));
  CHECK(state.size() == 4);
  CHECK(state.events() == 7);
}

TEST_CASE("undecayed states merge, forget and do not know an order", "[histogram_state]") {
  const HistogramLayout layout{.codebooks = 2, .words = 4, .fingerprint = 9};
  const Events events = random_events(50, 2, 4, 5);
  const HistogramState whole = after(layout, events, 0, 50);
  HistogramState merged = after(layout, events, 20, 50);
  merged.merge(after(layout, events, 0, 20));
  CHECK(merged == whole);
  HistogramState backwards(layout);
  for (std::int64_t i = 49; i >= 0; --i) backwards.append(events[i]);
  CHECK(backwards == whole);
  HistogramState shorter = whole;
  for (std::int64_t i = 30; i < 50; ++i) shorter.remove(events[i]);
  CHECK(shorter == after(layout, events, 0, 30));
  const std::vector<std::int32_t> code{1, 1};
  HistogramState empty(layout);
  CHECK_THROWS_WITH(empty.remove(code), Contains("has count 0"));
  CHECK_THROWS_WITH(HistogramState({.codebooks = 2, .words = 4, .rate = 0.1}).remove(code), Contains("without decay"));
  CHECK_THROWS_WITH(HistogramState({.codebooks = 2, .words = 4, .window = 3}).remove(code), Contains("and window"));
}

TEST_CASE("decayed states merge across the time between them", "[histogram_state]") {
  const HistogramLayout layout{.codebooks = 2, .words = 4, .rate = 0.2};
  const Events events = random_events(50, 2, 4, 5);
  const HistogramState whole = after(layout, events, 0, 50);
  HistogramState merged = after(layout, events, 20, 50);
  merged.merge(after(layout, events, 0, 20), 30);
  for (std::int64_t b = 0; b < 2; ++b) {
    for (std::int64_t w = 0; w < 4; ++w) CHECK(merged.count(b, w) == Approx(whole.count(b, w)).epsilon(1e-13));
  }
  CHECK_THROWS_WITH(merged.merge(whole, -1), Contains("gap of at least 0"));
  CHECK_THROWS_WITH(merged.merge(HistogramState({.codebooks = 2, .words = 4})), Contains("states of one layout"));
}

TEST_CASE("a saved state comes back, and no other is taken for it", "[histogram_state]") {
  const Events events = random_events(50, 2, 4, 5);
  for (const HistogramLayout& layout :
       {HistogramLayout{.codebooks = 2, .words = 4, .fingerprint = 77},
        HistogramLayout{.codebooks = 2, .words = 4, .window = 7, .rate = 0.3, .fingerprint = 77},
        HistogramLayout{.codebooks = 2, .words = 400, .window = 7}}) {
    const HistogramState state = after(layout, events, 0, 50);
    const std::string bytes = state.save();
    CHECK(HistogramState::load(bytes, layout) == state);
    HistogramLayout other = layout;
    other.fingerprint = 78;
    CHECK_THROWS_AS(HistogramState::load(bytes, other), ValueError);
    CHECK_THROWS_WITH(HistogramState::load(bytes, other), Contains("of another model"));
    other = layout;
    other.words = 5;
    CHECK_THROWS_AS(HistogramState::load(bytes, other), ValueError);
    // Every cut and every flipped byte is noticed.
    for (std::size_t n = 0; n < bytes.size(); ++n)
      CHECK_THROWS_AS(HistogramState::load(bytes.substr(0, n), layout), IoError);
    CHECK_THROWS_WITH(HistogramState::load(bytes + "x", layout), Contains("too many"));
    for (std::size_t n = 0; n < bytes.size(); ++n) {
      std::string damaged = bytes;
      damaged[n] = static_cast<char>(damaged[n] ^ 4);
      CHECK_THROWS_AS(HistogramState::load(damaged, layout), Error);
    }
  }
}

/// The bytes with some replaced and a checksum that fits.
template <class T>
std::string forged(std::string bytes, std::size_t from_end, T value) {
  bytes.replace(bytes.size() - from_end, sizeof(value), reinterpret_cast<const char*>(&value), sizeof(value));
  const std::uint64_t hash = fingerprint(bytes.substr(0, bytes.size() - sizeof(std::uint64_t)));
  return bytes.replace(bytes.size() - sizeof(hash), sizeof(hash), reinterpret_cast<const char*>(&hash), sizeof(hash));
}

TEST_CASE("bytes that somebody made are not taken for a state that events left", "[histogram_state]") {
  const Events events = random_events(5, 2, 4, 5);
  const auto load = [](const HistogramLayout& layout, const std::string& bytes) {
    return [layout, bytes] { HistogramState::load(bytes, layout); };
  };
  {
    // At the end: the number of events, counts [2, 4], the checksum.
    const HistogramLayout layout{.codebooks = 2, .words = 4};
    const std::string bytes = after(layout, events, 0, 5).save();
    CHECK(HistogramState::load(forged(bytes, 48, std::int64_t{5}), layout) == after(layout, events, 0, 5));
    for (const std::int64_t wrong : {std::int64_t{4}, std::int64_t{-5}, std::int64_t{1} << 60}) {
      CHECK_THROWS_AS(load(layout, forged(bytes, 48, wrong))(), IoError);
    }
    CHECK_THROWS_WITH(load(layout, forged(bytes, 40, std::uint32_t{77}))(), Contains("outside their range"));
  }
  {
    const HistogramLayout layout{.codebooks = 1, .words = 1, .rate = 0.5};
    const std::string bytes = after(layout, random_events(3, 1, 1, 5), 0, 3).save();
    for (const double wrong : {0.0, -1.0, std::numeric_limits<double>::infinity()}) {
      CHECK_THROWS_WITH(load(layout, forged(bytes, 16, wrong))(), Contains("outside their range"));
    }
  }
  {
    // A ring of one code: the number of events, a count, the code, the checksum.
    const HistogramLayout layout{.codebooks = 1, .words = 4, .window = 3};
    const std::string bytes = after(layout, random_events(1, 1, 4, 5), 0, 1).save();
    CHECK_THROWS_WITH(load(layout, forged(bytes, 9, std::uint8_t{4}))(), Contains("outside their range"));
    CHECK_THROWS_WITH(load(layout, forged(bytes, 8 + 1 + 16 + 8, std::int64_t{1} << 40))(), Contains("cut off"));
  }
}

TEST_CASE("a window takes memory as it fills", "[histogram_state]") {
  const HistogramLayout wide{.codebooks = 2, .words = 4, .window = std::int64_t{1} << 40};
  const Events events = random_events(50, 2, 4, 5);
  const HistogramState state = after(wide, events, 0, 50);
  CHECK(state.bytes() < 1000);
  const HistogramState plain = after({.codebooks = 2, .words = 4}, events, 0, 50);
  for (std::int64_t b = 0; b < 2; ++b) {
    for (std::int64_t w = 0; w < 4; ++w) CHECK(state.count(b, w) == plain.count(b, w));
  }
  CHECK(HistogramState::load(state.save(), wide) == state);
}

TEST_CASE("wrong calls of a state are refused", "[histogram_state]") {
  CHECK_THROWS_WITH(HistogramState({.codebooks = 0, .words = 4}), Contains("at least one codebook"));
  CHECK_THROWS_WITH(HistogramState({.codebooks = 1, .words = 0}), Contains("one codeword"));
  CHECK_THROWS_WITH(HistogramState({.codebooks = 1, .words = 4, .window = -1}), Contains("window of at least 1"));
  CHECK_THROWS_WITH(HistogramState({.codebooks = 1, .words = 4, .rate = NAN}), Contains("finite rate"));
  CHECK_THROWS_WITH(HistogramState({.codebooks = 1, .words = 4, .window = 2, .soft = true}), Contains("soft events"));
  HistogramState state({.codebooks = 2, .words = 4, .fingerprint = 1});
  const std::vector<std::int32_t> good{1, 3}, high{1, 4}, few{1};
  CHECK_THROWS_WITH(state.append(high), Contains("codes in [0, 4); got 4 of codebook 1"));
  CHECK_THROWS_WITH(state.append(few), Contains("needs 2 codes; got 1"));
  const std::vector<float> assignments(8);
  CHECK_THROWS_WITH(state.append_soft(assignments), Contains("cannot append soft events"));
  const Tensor tables = ops::sample_normal({2, 4, 4}, 1).to(DType::f32),
               values = ops::sample_normal({8, 3}, 2).to(DType::f32);
  std::vector<float> out(3);
  const HistogramReader reader(tables, values, 0, 1);
  CHECK_THROWS_WITH(state.query(good, reader, out), Contains("once an event was appended"));
  state.append(good);
  CHECK_NOTHROW(state.query(good, reader, out));
  CHECK_THROWS_WITH(state.query(high, reader, out), Contains("codes in [0, 4)"));
  CHECK_THROWS_WITH(state.query(good, HistogramReader(tables, values, 0, 2), out), Contains("of another model"));
  std::vector<float> narrow(2);
  CHECK_THROWS_WITH(state.query(good, reader, narrow), Contains("room for 3"));
  Tensor broken = tables.clone();
  broken.mutable_data<float>()[3] = INFINITY;
  CHECK_THROWS_WITH(HistogramReader(broken, values), Contains("finite"));
}

TEST_CASE("a decayed count ends as nothing, not as a denormal number", "[histogram_state]") {
  const std::vector<std::int32_t> once{0}, ever{1};
  HistogramState state({.codebooks = 1, .words = 2, .rate = 0.1});
  HistogramState soft({.codebooks = 1, .words = 2, .rate = 0.1, .soft = true});
  state.append(once);
  soft.append_soft(std::vector<float>{1, 0});
  for (int i = 0; i < 8000; ++i) {
    state.append(ever);
    soft.append_soft(std::vector<float>{0, 1});
  }
  CHECK(state.count(0, 0) == 0);
  CHECK(soft.count(0, 0) == 0);
  CHECK(state.count(0, 1) == Approx(1 / (1 - std::exp(-0.1))));
}

// What an event costs after any history is measured by `tally bench sessions`.
TEST_CASE("a state takes the same memory after any history", "[histogram_state]") {
  const std::int64_t b = 8, w = 16, block = 2000;
  const Events events = random_events(block, b, w, 1);
  for (const HistogramLayout& layout :
       {HistogramLayout{.codebooks = b, .words = w}, HistogramLayout{.codebooks = b, .words = w, .rate = 0.1},
        HistogramLayout{.codebooks = b, .words = w, .window = 1000}}) {
    const HistogramState young = after(layout, events, 0, 1000);
    HistogramState old = young;
    while (old.events() < 100000) {
      for (std::int64_t i = 0; i < block; ++i) old.append(events[i]);
    }
    CHECK(old.bytes() == young.bytes());
  }
}

}  // namespace histogram_state_test
