#include <cmath>
#include <limits>
#include <numeric>

#include "tally/ops/attention/attention_options.h"
#include "tally/ops/attention/linear_attention.h"
#include "tally/ops/entries.h"

namespace tally::ops {
namespace {

/// Sizes of a sample.
struct SampleSizes {
  std::vector<std::int64_t> lengths;
  std::int64_t heads = 2, memories = 1, width = 3, value_width = 2;
  std::int64_t rows() const { return std::accumulate(lengths.begin(), lengths.end(), std::int64_t{0}); }
};

/// Below 0 by more than derivatives are measured with.
Tensor sample_decays(const Shape& shape, std::uint64_t stream, double strength) {
  Tensor values = sample_normal(shape, stream);
  for (double& value : values.mutable_span<double>()) value = -0.01 - strength * std::abs(value);
  return values;
}
/// Within (0, 2).
Tensor sample_gains(const Shape& shape, std::uint64_t stream) {
  Tensor values = sample_normal(shape, stream);
  for (double& value : values.mutable_span<double>()) value = 0.9 + 0.8 * std::tanh(value);
  return values;
}

/// Keys of length 1: delta rules with larger ones and gains up to 2 would grow without bound.
Tensor sample_keys(std::int64_t rows, std::int64_t memories, std::int64_t width, std::uint64_t stream) {
  Tensor keys = sample_normal({rows, memories * width}, stream);
  const std::span<double> all = keys.mutable_span<double>();
  for (std::size_t at = 0; at < all.size(); at += static_cast<std::size_t>(width)) {
    const std::span<double> key = all.subspan(at, static_cast<std::size_t>(width));
    const double length = std::sqrt(std::inner_product(key.begin(), key.end(), key.begin(), 0.0));
    for (double& x : key) x /= length;
  }
  return keys;
}

/// q, k, v, a log_decay of this shape, a gain for each row or memory, initial_state, offsets.
std::vector<Tensor> inputs_of(const SampleSizes& s, std::uint64_t stream, const Shape& decay, double strength = 0.5) {
  const std::int64_t rows = s.rows(), memories = s.memories;
  return {sample_normal({rows, s.heads * s.width}, stream),
          sample_keys(rows, memories, s.width, stream + 1),
          sample_normal({rows, memories * s.value_width}, stream + 2),
          sample_decays(decay, stream + 3, strength),
          sample_gains({rows, stream % 2 == 0 ? 1 : memories}, stream + 4),
          sample_normal({static_cast<std::int64_t>(s.lengths.size()), memories, s.width, s.value_width}, stream + 5),
          Offsets::from_lengths(s.lengths).tensor()};
}

constexpr std::size_t kLogDecay = 3, kGain = 4, kInitialState = 5;

/// Those that a rule takes.
std::vector<Tensor> for_rule(std::vector<Tensor> inputs, UpdateRule rule) {
  if (!decays(rule)) inputs[kLogDecay] = Tensor();
  return inputs;
}

std::vector<OpSample> samples() {
  std::vector<OpSample> all;
  const auto options = [](std::int64_t heads, UpdateRule rule) {
    return OpOptions{{"heads", heads}, {"rule", std::string(word_of(rule))}};
  };
  std::uint64_t stream = 1000;
  const auto add = [&](const std::string& name, const SampleSizes& sizes, UpdateRule rule, const Shape& decay,
                       bool gradient = true, double strength = 0.5) {
    all.push_back({name + ", " + std::string(word_of(rule)), for_rule(inputs_of(sizes, stream, decay, strength), rule),
                   options(sizes.heads, rule), gradient});
    stream += 11;
  };
  for (const auto& [word, rule] : words(UpdateRule())) {
    const SampleSizes odd{{3, 0, 1, 5}, 6, 2, 3, 5}, one{{1}, 1, 1, 1, 1}, none{{}, 2, 2, 2, 1},
        rowless{{0, 0}, 2, 1, 2, 3};
    add("odd", odd, rule, {odd.rows(), 2});
    add("one", one, rule, {1, 1});
    add("empty", none, rule, {0, 2});
    add("empty sequences", rowless, rule, {0, 1});
    // Several chunks.
    const SampleSizes chunks{{130, 1, 65}, 1, 1, 2, 2}, many{{70, 64}, 4, 2, 2, 3};
    add("long", chunks, rule, {chunks.rows(), 1}, true, 0.05);
    add("long, memories", many, rule, {many.rows(), 2}, true, 0.2);
    const SampleSizes wide{{6, 0, 3}, 2, 2, 67, 33};
    add("wide", wide, rule, {9, 1});
    if (!decays(rule)) continue;
    add("constant", odd, rule, {2});
    add("channels", odd, rule, {odd.rows(), 6});
    const SampleSizes in_chunks{{70, 1, 40}, 2, 1, 2, 2};
    add("long, channels", in_chunks, rule, {in_chunks.rows(), 2}, true, 0.2);
    add("long, constant", in_chunks, rule, {1}, true, 0.05);
    // Decays that forget all at some rows.
    add("strong", in_chunks, rule, {in_chunks.rows(), 1}, true, 4);
    add("strong, channels", in_chunks, rule, {in_chunks.rows(), 2}, true, 4);
    if (rule == UpdateRule::gated) {
      const auto along = [&](const std::string& name, const SampleSizes& sizes, double strength, bool gradient = true) {
        const Shape decay{sizes.rows(), sizes.memories * sizes.value_width};
        add(name + " of values", sizes, UpdateRule::gated, decay, gradient, strength);
        all.back().options.set("decay_along", std::string("values"));
      };
      const SampleSizes many_chunks{{70, 0, 40}, 2, 1, 2, 3};
      along("channels", odd, 0.5);
      along("wide channels", wide, 0.5);
      along("long, channels", many_chunks, 0.2);
      along("strong, channels", many_chunks, 4);
      along("extreme, channels", many_chunks, 30, false);
      const std::span<double> decay = all.back().inputs[kLogDecay].mutable_span<double>();
      for (std::size_t i = 0; i < decay.size(); i += 7) decay[i] = -std::numeric_limits<double>::infinity();
      for (std::size_t i = 1; i < decay.size(); i += 5) decay[i] = 0;
    }
    for (const std::int64_t columns : {1, 2}) {
      add("extreme", in_chunks, rule, {in_chunks.rows(), columns}, false, 30);
      const std::span<double> decay = all.back().inputs[kLogDecay].mutable_span<double>();
      for (std::size_t i = 0; i < decay.size(); i += 7) decay[i] = -std::numeric_limits<double>::infinity();
      for (std::size_t i = 1; i < decay.size(); i += 5) decay[i] = 0;
    }
  }
  for (const bool gains : {false, true}) {
    const SampleSizes sizes{{70, 3, 0}, 4, 2, 3, 2};
    std::vector<Tensor> inputs = for_rule(inputs_of(sizes, stream, {2}), UpdateRule::linear);
    if (!gains) inputs[kGain] = inputs[kInitialState] = Tensor();
    OpOptions both = options(4, UpdateRule::linear);
    both.set("mask", std::string("bidirectional"));
    all.push_back({gains ? "one sum, gains" : "one sum", inputs, both});
    all.push_back({gains ? "no state, gains" : "no state", inputs, options(4, UpdateRule::linear)});
  }
  for (const auto& [word, rule] : words(UpdateRule())) add("one row", {{1}, 4, 2, 3, 5}, rule, {1, 2});
  return all;
}

/// Every pair of options and inputs, for decays of this shape, of channels along those of `along`.
OpVariations variations_of(const SampleSizes& sizes, const Shape& decay, std::uint64_t stream,
                           DecayAlong along = DecayAlong::keys) {
  OpVariations all{{"rules", inputs_of(sizes, stream, decay)}};
  if (sizes.heads != 1) all.base.options.set("heads", sizes.heads);
  if (along != DecayAlong::keys) all.base.options.set("decay_along", std::string(word_of(along)));
  all.values = {{"rule", {std::string("gated"), std::string("delta"), std::string("gated_delta")}},
                {"mask", {std::string("bidirectional")}},
                {"scale", {0.7, -0.3}},
                {"execution", {std::string("recurrent"), std::string("naive")}}};
  return all;
}

std::vector<OpError> errors() {
  const SampleSizes sizes{{2, 3}, 4, 2, 3, 2};
  const auto replaced = [&](std::size_t input, Tensor tensor) {
    std::vector<Tensor> inputs = inputs_of(sizes, 1, {5, 2});
    inputs[input] = std::move(tensor);
    return inputs;
  };
  const auto with_element = [&](std::size_t input, std::size_t place, double value) {
    std::vector<Tensor> inputs = inputs_of(sizes, 1, {5, 2});
    inputs[input].mutable_span<double>()[place] = value;
    return inputs;
  };
  const double nan = std::numeric_limits<double>::quiet_NaN(), infinity = std::numeric_limits<double>::infinity();
  const OpOptions gated{{"heads", std::int64_t{4}}, {"rule", std::string("gated")}};
  const OpOptions delta{{"heads", std::int64_t{4}}, {"rule", std::string("gated_delta")}};
  const auto with = [&](OpOptions options, const std::string& name, const OptionValue& value) {
    options.set(name, value);
    return options;
  };
  const std::vector<Tensor> good = inputs_of(sizes, 1, {5, 2}), plain = for_rule(good, UpdateRule::linear);
  const auto ruled = [&](const char* rule) { return with(gated, "rule", std::string(rule)); };
  const auto both = [&](const char* rule) { return with(ruled(rule), "mask", std::string("bidirectional")); };
  const auto along = [&](OpOptions options) { return with(std::move(options), "decay_along", std::string("values")); };
  return {
      {"keys", replaced(1, sample_normal({5, 7}, 1)), gated, "got q [5, 12], k [5, 7] and v [5, 4]"},
      {"rows", replaced(2, sample_normal({4, 4}, 1)), gated, "v [T, memories * e] with heads = 4; got q [5, 12]"},
      {"heads", good, with(gated, "heads", std::int64_t{5}), "with heads = 5"},
      {"no heads", good, with(gated, "heads", std::int64_t{0}), "at least one head; got 0"},
      {"memories", replaced(1, sample_normal({5, 9}, 1)), gated, "memories that divide the heads, 4 of width 3"},
      {"values", replaced(2, sample_normal({5, 3}, 1)), gated, "share the columns of k and v"},
      {"offsets", replaced(6, Offsets::single(6).tensor()), gated, "number of rows 5; got 6"},
      {"types", replaced(0, sample_integers({5, 12}, 1, 3)), gated, "one floating type"},
      {"scale", good, with(gated, "scale", infinity), "a finite scale; got inf"},
      {"rule", good, ruled("oja"), "knows no \"oja\""},
      {"execution", good, with(gated, "execution", std::string("fast")), "knows no \"fast\""},
      {"mask", good, with(gated, "mask", std::string("diagonal")), "'causal' or"},
      {"decay of linear", good, ruled("linear"), "needs no log_decay for the rule linear; got one"},
      {"decay of delta", good, ruled("delta"), "needs no log_decay for the rule delta; got one"},
      {"no decay of gated", plain, gated, "needs log_decay for the rule gated; got none"},
      {"no decay of gated delta", plain, delta, "needs log_decay for the rule gated_delta; got none"},
      {"along values, linear", plain, along(ruled("linear")),
       "the rule gated for decays along values; got the rule linear"},
      {"along values, delta", plain, along(ruled("delta")), "for decays along values; got the rule delta"},
      {"along values, gated delta", good, along(delta), "for decays along values; got the rule gated_delta"},
      {"along values, none", plain, along(gated), "needs log_decay for the rule gated; got none"},
      {"along values, both ways", good, along(both("gated")), "got a bidirectional mask and the rule gated"},
      {"along values, keys", replaced(kLogDecay, sample_decays({5, 6}, 1, 1)), along(gated),
       "[T, memories * e] with T = 5, memories = 2, e = 2; got [5, 6]"},
      {"along values, knows", good, with(gated, "decay_along", std::string("rows")), "knows no \"rows\""},
      {"both ways, gated", good, both("gated"), "two causal calls; got a bidirectional mask and the rule gated"},
      {"both ways, delta", plain, both("delta"), "got a bidirectional mask and the rule delta"},
      {"both ways, gated delta", good, both("gated_delta"), "got a bidirectional mask and the rule gated_delta"},
      {"both ways, decay", good, both("linear"), "needs no log_decay for the rule linear"},
      {"shape of log_decay", replaced(kLogDecay, sample_decays({5, 3}, 1, 1)), gated,
       "[T, memories * d] with T = 5, memories = 2, d = 3; got [5, 3]"},
      {"shape of gain", replaced(kGain, sample_gains({2}, 1)), gated, "gain [T, 1] or [T, memories] with T = 5"},
      {"shape of state", replaced(kInitialState, sample_normal({2, 2, 2, 3}, 1)), gated,
       "= [2, 2, 3, 2]; got [2, 2, 2, 3]"},
      {"decay above 0", with_element(kLogDecay, 7, 0.5), gated, "log_decay of at most 0; got 0.5 at row 3"},
      {"decay of NaN", with_element(kLogDecay, 2, nan), gated, "of at most 0; got nan at row 1"},
      {"gain", with_element(kGain, 9, 2.5), delta, "gain in [0, 2] for a delta rule; got 2.5 at row 4"},
      {"negative gain", with_element(kGain, 0, -0.5), delta, "in [0, 2] for a delta rule; got -0.5 at row 0"},
      {"gain of infinity", with_element(kGain, 3, infinity), gated, "gain that is finite; got inf at row 1"},
      {"key", with_element(1, 13, nan), gated, "needs finite k; got one that is not in row 2"},
      {"value", with_element(2, 17, infinity), gated, "needs finite v; got one that is not in row 4"},
  };
}

}  // namespace

void entries::add_linear_attention(Catalog& catalog) {
  catalog.add({
      .name = "linear_attention",
      .summary =
          "Linear attention by an update rule (linear, gated, delta, gated_delta) over packed sequences, in chunks.",
      .inputs = {{"q", "[T, heads * d]"},
                 {"k", "[T, memories * d]"},
                 {"v", "[T, memories * e]"},
                 {.name = "log_decay",
                  .shape = "[memories], [T, 1], [T, memories], [T, memories * d] or [T, memories * e]",
                  .optional = true,
                  .doc = "of gated rules, at most 0"},
                 {.name = "gain", .shape = "[T, 1] or [T, memories]", .optional = true, .doc = "of what a row writes"},
                 {.name = "initial_state",
                  .shape = "[N, memories, d, e]",
                  .optional = true,
                  .doc = "before the first row of each sequence"},
                 {"offsets", "[N + 1]", InputKind::integer, false, "i64, where each sequence begins, and T"}},
      .options = {{"heads", std::int64_t{1}, "of queries, side by side; heads / memories neighbours share a memory"},
                  {"rule", std::string("linear"), "'linear', 'gated', 'delta' or 'gated_delta'"},
                  {"decay_along", std::string("keys"),
                   "whose channels a decay of each channel is of: 'keys', [T, memories * d], or 'values' of the rule "
                   "gated, [T, memories * e]"},
                  {"mask", std::string("causal"), "'causal', or 'bidirectional' for the rule linear"},
                  {"scale", 0.0, "of the products; 0 for 1 / sqrt(d)"},
                  {"execution", std::string("chunked"), "'chunked', 'recurrent' or 'naive'"}},
      .outputs = {{"output", "[T, heads * e]"}, {"final_state", "[N, memories, d, e]"}},
      .call = [](std::span<const Var> in, const OpOptions& options) -> std::vector<Var> {
        LinearAttentionResult result = linear_attention(
            {in[0], in[1], in[2], in[kLogDecay], in[kGain], in[kInitialState]}, Offsets(in[6].value()),
            {.heads = options.integer("heads", 1),
             .rule = value_of<UpdateRule>(options.text("rule", "linear"), "option 'rule'"),
             .decay_along = value_of<DecayAlong>(options.text("decay_along", "keys"), "option 'decay_along'"),
             .mask = detail::attention_mask(options),
             .scale = options.number("scale", 0),
             .execution = value_of<LinearExecution>(options.text("execution", "chunked"), "option 'execution'")});
        return {std::move(result.output), std::move(result.final_state)};
      },
      .samples = samples,
      .errors = errors,
      .large =
          [] {
            const SampleSizes sizes{std::vector<std::int64_t>(64, 200), 1, 1, 64, 64};
            return OpSample{"large", for_rule(inputs_of(sizes, 1, {1}), UpdateRule::linear)};
          },
      .flops =
          [](const OpSample& sample) {
            const auto heads = static_cast<double>(sample.options.integer("heads", 1));
            return 4.0 * static_cast<double>(sample.inputs[2].numel()) * static_cast<double>(sample.inputs[0].dim(1)) /
                   heads;
          },
      .variations =
          [] {
            const SampleSizes alone{{4, 0, 1, 3}, 1, 1, 3, 2}, grouped{{4, 0, 1, 3}, 4, 2, 2, 3};
            return std::vector<OpVariations>{variations_of(alone, {8, 1}, 55),
                                             variations_of(alone, {8, 3}, 66),
                                             variations_of(grouped, {8, 1}, 78),
                                             variations_of(grouped, {8, 2}, 89),
                                             variations_of(grouped, {2}, 90),
                                             variations_of(grouped, {8, 4}, 91),
                                             variations_of(grouped, {8, 6}, 92, DecayAlong::values),
                                             variations_of(alone, {8, 2}, 93, DecayAlong::values)};
          },
      .apart = {{"rule=linear", "log_decay given"},
                {"rule=delta", "log_decay given"},
                {"rule=gated", "log_decay absent"},
                {"rule=gated_delta", "log_decay absent"},
                {"rule=gated", "mask=bidirectional"},
                {"rule=delta", "mask=bidirectional"},
                {"rule=gated_delta", "mask=bidirectional"},
                {"mask=bidirectional", "log_decay given"},
                {"rule=linear", "decay_along=values"},
                {"rule=delta", "decay_along=values"},
                {"rule=gated_delta", "decay_along=values"},
                {"log_decay absent", "decay_along=values"},
                {"mask=bidirectional", "decay_along=values"}},
  });
}

}  // namespace tally::ops
