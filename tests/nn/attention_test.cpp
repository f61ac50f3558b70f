// Both forms of every attention kind together: whole sequences, an event at a time, and the definition in double.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>

#include "tests/nn/attention_samples.h"

namespace attention_test {

using namespace tally;
using namespace tally::attention_samples;
using Catch::Matchers::Contains;

TEST_CASE("every attention's two forms agree with each other and with its definition", "[attention]") {
  std::vector<std::string> streaming;
  for (const nn::AttentionRow& entry : nn::attention_kinds()) {
    INFO(entry.name);
    const Holder holder = make(entry.name, entry.causal);
    const nn::Attention& attention = holder.attention;
    CHECK(attention.name() == entry.name);
    for (const std::int64_t length : {1, 4, 37}) {
      const Tensor queries = normal(length, 1), source = normal(length, 2);
      const Rows whole = rows_of(attention(queries, source, sequence_of(length), {}).value());
      const std::vector<double> at = times(length);
      const Rows expected = defined(entry.name, attention, queries, source);
      if (!expected.empty()) CHECK(difference(whole, expected) < 2e-5);
      if (!attention.has_state()) {
        CHECK_THROWS_WITH(attention.initial_state(), Contains("no state of a fixed size"));
        continue;
      }
      if (length == 37) streaming.push_back(entry.name);
      REQUIRE_FALSE(expected.empty());
      // At some places the state is copied, or saved and read again.
      nn::AttentionState state = attention.initial_state();
      Rows steps;
      std::size_t after_window = 0;
      for (std::int64_t t = 0; t < length; ++t) {
        const std::uint64_t drawn = uniform_below(RngKey{8}, static_cast<std::uint64_t>(t), 0, 4);
        if (drawn == 0) {
          std::string bytes;
          state.save(bytes);
          nn::AttentionState read = attention.initial_state();
          ByteReader reader(bytes, "state");
          read.load(reader, t);
          reader.expect_end();
          state = read;
          ByteReader cut(std::string_view(bytes).substr(0, bytes.empty() ? 0 : bytes.size() - 1), "state");
          if (!bytes.empty()) CHECK_THROWS_AS(read.load(cut, t), IoError);
        } else if (drawn == 1) {
          const nn::AttentionState copy = state;
          attention.step(state, queries.slice(0, t, t + 1), source.slice(0, 0, 1),
                         {t, at[static_cast<std::size_t>(t)]});
          state = copy;
        }
        const Tensor row = attention
                               .step(state, queries.slice(0, t, t + 1), source.slice(0, t, t + 1),
                                     {t, at[static_cast<std::size_t>(t)]})
                               .value();
        CHECK(row.dtype() == DType::f32);
        steps.push_back(rows_of(row)[0]);
        if (t == 5) after_window = state.heap_bytes();
        if (t > 5) CHECK(state.heap_bytes() <= 2 * after_window);
      }
      CHECK(difference(steps, whole) < 2e-5);
      CHECK(difference(steps, expected) < 2e-5);
    }
  }
  CHECK(streaming == std::vector<std::string>{"local", "linear_elu", "linear_favor", "linrec", "efficient", "lambda",
                                              "galerkin", "fixed_memory", "histogram", "dispatcher", "recgrela",
                                              "retnet", "lightning", "gla", "deltanet", "gated_deltanet", "time_decay",
                                              "gated_slot"});
}

TEST_CASE("a state belongs to its kind", "[attention]") {
  const Holder local = make("local"), linear = make("linear_elu");
  const Tensor row = normal(1, 1);
  nn::AttentionState state = local.attention.initial_state();
  CHECK_THROWS_WITH(linear.attention.step(state, row, row, {}), Contains("its initial_state() made"));
  nn::AttentionState none;
  CHECK_THROWS_WITH(linear.attention.step(none, row, row, {}), Contains("its initial_state() made"));
  CHECK_THROWS_WITH(nn::Attention().has_state(), Contains("has no kind"));
  // A bidirectional attention sees what comes later.
  CHECK_FALSE(make("linear_elu", false).attention.has_state());
}

TEST_CASE("walkers enter an attention of any kind", "[attention]") {
  Holder holder = make("linear_favor");
  std::vector<std::string> paths;
  for (const auto& [path, tensor] : nn::state(holder)) paths.push_back(path);
  CHECK(paths == std::vector<std::string>{"attention.query.weight", "attention.query.bias", "attention.key.weight",
                                          "attention.key.bias", "attention.value.weight", "attention.value.bias",
                                          "attention.output.weight", "attention.output.bias",
                                          "attention.attention.directions"});
  CHECK(nn::count_parameters(holder) == 4 * (kWidth * kWidth + kWidth));
  CHECK(nn::freeze(holder, "attention.key.*") == 2);
  // Copies have identities of their own, moves keep them.
  const LeafId id = nn::parameters(holder)[0].parameter->id();
  Holder copy = holder;
  CHECK(nn::parameters(copy)[0].parameter->id() != id);
  nn::parameters(copy)[0].parameter->mutable_value().fill(9);
  CHECK(nn::parameters(holder)[0].parameter->value().to_doubles()[0] != 9);
  Holder moved = std::move(holder);
  CHECK(nn::parameters(moved)[0].parameter->id() == id);
  nn::convert(moved, DType::f64);
  for (const auto& [path, tensor] : nn::state(moved)) CHECK(tensor->dtype() == DType::f64);
}

TEST_CASE("a table of attentions is a value", "[attention]") {
  nn::AttentionKinds kinds = nn::attention_kinds();
  CHECK_THROWS_WITH(kinds.add(kinds.at("local")), Contains("\"local\" is there already"));
  kinds.add(nn::multi_head_row<nn::SoftmaxCore>("nearby", "the last two rows", nn::LocalOptions{.block = 2}));
  const nn::Attention nearby = nn::make_attention({kinds, "nearby"}, settings(), RngKey{1});
  CHECK(nearby.name() == "nearby");
  CHECK(nearby.as<nn::MultiHead<nn::SoftmaxCore>>()->attention.window == 2);
  CHECK_THROWS_WITH(nn::attention_kinds().at("nearby"), Contains("does not know \"nearby\""));
}

}  // namespace attention_test
