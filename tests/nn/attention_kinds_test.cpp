// What each attention kind has of its own: settings, the other mask, extreme rows.
#include <catch2/catch.hpp>
#include <cmath>

#include "tally/autograd/tape.h"
#include "tally/ops/elementwise/elementwise.h"
#include "tally/ops/tensor/reduce.h"
#include "tests/nn/attention_samples.h"

namespace attention_kinds_test {

using namespace tally;
using namespace tally::attention_samples;
using Catch::Matchers::Contains;

TEST_CASE("linrec's keys by token and by column, both ways", "[attention]") {
  const Tensor queries = normal(37, 1), source = normal(37, 2);
  for (const auto mask : {ops::AttentionMask::causal, ops::AttentionMask::bidirectional}) {
    for (const char* keys : {"token", "column"}) {
      nn::AttentionSettings with = settings();
      with.mask = mask;
      const nn::Attention attention = nn::make_attention(
          attention_choice(nn::attention_kinds(), "linrec", {{"linrec_keys", keys}}), with, RngKey{4});
      const Rows expected = by_products(*attention.as<nn::MultiHead<nn::LinRecCore>>(), queries, source);
      CHECK(difference(rows_of(attention(queries, source, {Offsets::single(37)}, {}).value()), expected) < 2e-5);
      CHECK(attention.has_state() == (mask == ops::AttentionMask::causal));
      if (!attention.has_state()) continue;
      nn::AttentionState state = attention.initial_state();
      Rows steps;
      for (std::int64_t t = 0; t < 37; ++t) {
        steps.push_back(rows_of(
            attention.step(state, queries.slice(0, t, t + 1), source.slice(0, t, t + 1), {.place = t}).value())[0]);
      }
      CHECK(difference(steps, expected) < 2e-5);
    }
  }
}

TEST_CASE("recgrela with both activations of its shortcut, both ways", "[attention]") {
  const Tensor queries = normal(37, 1), source = normal(37, 2);
  for (const bool causal : {true, false}) {
    for (const char* activation : {"none", "silu"}) {
      const nn::Attention attention = nn::make_attention(
          attention_choice(nn::attention_kinds(), "recgrela", {{"shortcut_act", activation}, {"shortcut_kernel", 3}}),
          settings(causal), RngKey{4});
      const Rows expected = testing::recgrela_by_definition(*attention.as<nn::RecGrelaKind>(), queries, source);
      CHECK(difference(rows_of(attention(queries, source, {Offsets::single(37)}, {}).value()), expected) < 2e-5);
      CHECK(attention.has_state() == causal);
    }
  }
}

TEST_CASE("recgrela keeps its denominator where no feature of the query meets one of the keys", "[attention]") {
  // Queries have the first column alone, keys all others: e^-60 of a row's features meet.
  Holder holder = make("recgrela");
  nn::RecGrelaKind kind = *holder.attention.as<nn::RecGrelaKind>();
  const auto set = [](nn::Linear& layer, bool first) {
    layer.weight.mutable_value().fill(0);
    auto bias = layer.bias.mutable_value().mutable_span<float>();
    for (std::size_t i = 0; i < bias.size(); ++i) bias[i] = (i % 3 == 0) == first ? 1 : -60;
  };
  set(kind.query, true);
  set(kind.key, false);
  const Tensor rows = normal(20, 1);
  const auto [loss, gradients] =
      value_and_gradients([&] { return ops::sum(ops::square(kind(rows, rows, {Offsets::single(20)}, {}))); });
  CHECK(std::isfinite(loss.item()));
  for (const auto& [path, parameter] : nn::parameters(kind)) {
    INFO(path);
    for (const double x : gradients[parameter->id()].to_doubles()) CHECK(std::isfinite(x));
  }
}

TEST_CASE("a memory that decays by time needs the times of events", "[attention]") {
  const Holder holder = make("time_decay");
  const Tensor rows = normal(3, 1);
  CHECK_THROWS_WITH(holder.attention(rows, rows, {Offsets::single(3)}, {}), Contains("needs the times of events"));
  nn::AttentionState state = holder.attention.initial_state();
  CHECK_THROWS_WITH(holder.attention.step(state, normal(1, 1), normal(1, 1), {}), Contains("needs the time of each"));
  // Decayed by events alone, it needs none; a longer gap leaves less of what came before.
  const nn::Attention by_events = nn::make_attention(
      attention_choice(nn::attention_kinds(), "time_decay", {{"decay_by", "events"}}), settings(), RngKey{4});
  CHECK_NOTHROW(by_events(rows, rows, {Offsets::single(3)}, {}));
  const auto last_row = [&](double gap) {
    return rows_of(
        holder.attention(rows, rows, {Offsets::single(3), Tensor::from<double>({0, 1, gap}, {3})}, {}).value())[2];
  };
  CHECK(last_row(1) != last_row(1e6));
}

TEST_CASE("hstu divides by the visible rows or by the longest length, both ways", "[attention]") {
  const Tensor queries = normal(19, 1), source = normal(19, 2);
  for (const bool causal : {true, false}) {
    for (const char* normalizer : {"visible", "window"}) {
      const nn::Attention attention =
          nn::make_attention(attention_choice(nn::attention_kinds(), "hstu", {{"hstu_normalizer", normalizer}}),
                             settings(causal), RngKey{4});
      const Rows expected = testing::hstu_by_definition(*attention.as<nn::HstuKind>(), queries, source);
      CHECK(difference(rows_of(attention(queries, source, {Offsets::single(19)}, {}).value()), expected) < 2e-5);
    }
  }
  nn::AttentionSettings endless = settings();
  endless.max_length = 0;
  const auto by_window = attention_choice(nn::attention_kinds(), "hstu", {{"hstu_normalizer", "window"}});
  CHECK_THROWS_WITH(nn::make_attention(by_window, endless, RngKey{4}), Contains("needs a longest length"));
}

TEST_CASE("attentions that are written for one mask follow their definition under the other", "[attention]") {
  const Tensor queries = normal(19, 1), source = normal(19, 2);
  for (const char* name : {"hstu", "efficient", "lambda", "galerkin", "fixed_memory"}) {
    INFO(name);
    const Holder holder = make(name, false);
    const Rows expected = defined(name, holder.attention, queries, source);
    CHECK(difference(rows_of(holder.attention(queries, source, {Offsets::single(19)}, {}).value()), expected) < 2e-5);
    CHECK_FALSE(holder.attention.has_state());
  }
}

TEST_CASE("a lambda layer without norms, and with a window of one row, is what it is defined as", "[attention]") {
  const Tensor queries = normal(9, 1), source = normal(9, 2);
  for (const bool causal : {true, false}) {
    const nn::AttentionChoice with =
        attention_choice(nn::attention_kinds(), "lambda", {{"lambda_norm", "none"}, {"lambda_window", 1}});
    const nn::Attention attention = nn::make_attention(with, settings(causal), RngKey{4});
    const auto& kind = *attention.as<nn::LambdaKind>();
    CHECK_FALSE(kind.query_norm.weight.defined());
    CHECK(kind.positions.shape() == Shape{1, kWidth / kHeads});
    const Rows expected = testing::lambda_by_definition(kind, queries, source);
    CHECK(difference(rows_of(attention(queries, source, {Offsets::single(9)}, {}).value()), expected) < 2e-5);
    if (!causal) continue;
    nn::AttentionState state = attention.initial_state();
    Rows steps;
    for (std::int64_t t = 0; t < 9; ++t) {
      steps.push_back(rows_of(
          attention.step(state, queries.slice(0, t, t + 1), source.slice(0, t, t + 1), {.place = t}).value())[0]);
    }
    CHECK(difference(steps, expected) < 2e-5);
  }
}

TEST_CASE("galerkin's projections begin small, with a diagonal", "[attention]") {
  const nn::Attention attention = nn::make_attention(choice("galerkin"), settings(), RngKey{4});
  const auto& kind = *attention.as<nn::MultiHead<nn::GalerkinCore>>();
  for (const nn::Linear* layer : {&kind.query, &kind.key, &kind.value}) {
    // Xavier's bound is sqrt(6 / (fan in + fan out)).
    const double bound = 1e-2 * std::sqrt(6.0 / (2 * kWidth));
    const Rows weight = rows_of(layer->weight.value());
    double largest = 0;
    for (std::size_t i = 0; i < weight.size(); ++i) {
      for (std::size_t j = 0; j < weight.size(); ++j) {
        largest = std::max(largest, std::fabs(weight[i][j] - (i == j ? 1e-2 : 0)));
      }
    }
    CHECK(largest <= bound);
    CHECK(largest > bound / 2);
  }
}

TEST_CASE("lightsans reads the interests of each row's own sequence", "[attention]") {
  const Holder holder = make("lightsans", false);
  const auto& kind = *holder.attention.as<nn::MultiHead<nn::LightSansCore>>();
  const Tensor queries = normal(9, 1), source = normal(9, 2);
  const Tensor together =
      holder.attention(queries, source, {Offsets::from_lengths(std::vector<std::int64_t>{0, 4, 0, 1, 4, 0})}, {})
          .value();
  for (const auto& [begin, end] : {std::pair{0, 4}, std::pair{4, 5}, std::pair{5, 9}}) {
    const Rows expected = by_interests(kind, queries.slice(0, begin, end), source.slice(0, begin, end));
    CHECK(difference(rows_of(together.slice(0, begin, end).contiguous()), expected) < 2e-5);
  }
  const Tensor none = Tensor::zeros({0, kWidth});
  CHECK(holder.attention(none, none, {Offsets::from_lengths(std::vector<std::int64_t>{0, 0})}, {}).shape() ==
        none.shape());
  CHECK_THROWS_WITH(nn::make_attention(choice("lightsans"), settings(), RngKey{4}), Contains("has no causal form"));
}

}  // namespace attention_kinds_test
