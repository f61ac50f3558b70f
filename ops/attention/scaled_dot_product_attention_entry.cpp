#include <numeric>

#include "tally/ops/attention/attention_options.h"
#include "tally/ops/attention/scaled_dot_product_attention.h"
#include "tally/ops/entries.h"

namespace tally::ops {
namespace {

using Lengths = std::vector<std::int64_t>;

/// Places of the inputs in the catalog's order.
enum GeneralInput : std::size_t { kQ, kK, kV, kQueryOffsets, kKeyOffsets, kBias, kVisible, kStarts };

/// Sizes of a sample; tables without a shape are absent.
struct GeneralSizes {
  Lengths queries, keys;
  std::int64_t columns = 1, key_columns = 1, value_columns = 1;
  Shape bias = {}, visible = {};
  Lengths starts = {};
  double deviation = 1;
};

std::int64_t total_rows(const Lengths& lengths) {
  return std::accumulate(lengths.begin(), lengths.end(), std::int64_t{0});
}

std::vector<Tensor> general_inputs(const GeneralSizes& s, std::uint64_t stream) {
  std::vector<Tensor> all{sample_normal({total_rows(s.queries), s.columns}, stream, s.deviation),
                          sample_normal({total_rows(s.keys), s.key_columns}, stream + 1, s.deviation),
                          sample_normal({total_rows(s.keys), s.value_columns}, stream + 2),
                          Offsets::from_lengths(s.queries).tensor(),
                          Offsets::from_lengths(s.keys).tensor(),
                          Tensor(),
                          Tensor(),
                          Tensor()};
  if (s.bias.rank() > 0) all[kBias] = sample_normal(s.bias, stream + 3, s.deviation);
  // Three of four are seen.
  if (s.visible.rank() > 0) all[kVisible] = sample_integers(s.visible, stream + 4, 4).to(DType::u8);
  if (!s.starts.empty()) all[kStarts] = Tensor::from(s.starts, {static_cast<std::int64_t>(s.starts.size())});
  return all;
}

ScaledDotProductOptions options_of_general(const OpOptions& options) {
  return {.heads = options.integer("heads", 1),
          .key_heads = options.integer("key_heads", 0),
          .mask = detail::attention_mask(options),
          .left_window = options.integer("left_window", -1),
          .right_window = options.integer("right_window", -1),
          .scale = options.number("scale", 0),
          .soft_cap = options.number("soft_cap", 0)};
}

ScoreTables tables_of(std::span<const Var> in, std::size_t bias) {
  const auto tensor = [&](std::size_t i) { return in[i].defined() ? in[i].value() : Tensor(); };
  return {in[bias], tensor(bias + 1), tensor(bias + 2)};
}

const std::string kBidirectional = "bidirectional";

std::vector<OpSample> general_samples() {
  const auto whole = [](std::int64_t value) { return OptionValue{value}; };
  const OpOptions all{{"mask", kBidirectional}};
  const OpOptions grouped{{"heads", whole(4)}, {"key_heads", whole(2)}, {"mask", kBidirectional}};
  const Lengths three{3, 0, 1, 5}, more{4, 2, 0, 7};
  std::vector<OpSample> samples;
  const auto add = [&](const char* name, const GeneralSizes& sizes, const OpOptions& options, bool gradient = true) {
    samples.push_back({name, general_inputs(sizes, 10 * samples.size() + 1), options, gradient});
  };
  add("odd", {three, more, 6, 6, 10}, {{"heads", whole(2)}});
  add("one", {{1}, {1}}, {});
  add("empty", {{}, {}, 4, 4, 2}, {{"heads", whole(2)}});
  add("empty sequences", {{0, 0}, {0, 3}, 4, 4, 2}, all);
  add("no keys", {{3, 1}, {0, 2}, 4, 4, 2}, all);
  add("grouped", {three, more, 12, 6, 10}, grouped);
  add("one head of keys", {three, more, 12, 3, 5}, {{"heads", whole(4)}, {"key_heads", whole(1)}});
  add("starts", {three, more, 6, 6, 4, {}, {}, {1, 0, 4, -2}}, {{"heads", whole(2)}});
  add("windows", {{6, 2}, {9, 3}, 2, 2, 3, {}, {}, {3, 0}}, {{"left_window", whole(2)}, {"mask", kBidirectional}});
  add("right window", {{6, 2}, {9, 3}, 2, 2, 3}, {{"right_window", whole(1)}, {"mask", kBidirectional}});
  add("bias of all", {three, more, 6, 6, 4, {1, 1, 5, 7}}, {{"heads", whole(2)}, {"mask", kBidirectional}});
  add("bias of heads", {three, more, 6, 6, 4, {1, 2, 6, 9}}, {{"heads", whole(2)}});
  add("bias of sequences", {three, more, 12, 6, 4, {4, 1, 5, 1}}, grouped);
  add("bias of places", {three, more, 12, 6, 4, {4, 4, 5, 7}}, grouped);
  add("bias of keys", {three, more, 6, 6, 3, {1, 1, 1, 7}}, {{"heads", whole(3)}, {"mask", kBidirectional}});
  add("visible", {three, more, 6, 6, 4, {}, {4, 2, 5, 7}}, {{"heads", whole(2)}, {"mask", kBidirectional}});
  add("nothing visible", {three, more, 6, 6, 4, {1, 1, 5, 7}, {1, 1, 1, 1}}, all);
  samples.back().inputs[kVisible].fill(0);
  add("hidden by a bias", {three, more, 6, 6, 4, {1, 1, 5, 7}}, all, false);
  for (const std::int64_t i : {0, 1, 2, 3, 4, 5, 6, 8, 20})
    samples.back().inputs[kBias].mutable_data<double>()[i] = -std::numeric_limits<double>::infinity();
  add("cap", {three, more, 6, 6, 4, {}, {}, {}, 2}, {{"heads", whole(2)}, {"soft_cap", 1.5}, {"mask", kBidirectional}});
  // Several tiles of rows.
  add("long", {{150, 1, 70}, {90, 3, 200}, 2, 2, 1, {1, 1, 1, 200}}, {{"soft_cap", 3.0}, {"mask", kBidirectional}});
  add("long causal", {{200}, {200}, 2, 2, 1, {}, {}, {0}}, {{"left_window", whole(90)}});
  add("wide", {{6, 0, 3}, {4, 1, 3}, 134, 134, 66}, {{"heads", whole(2)}});
  add("extreme", {{6, 70}, {70, 6}, 8, 8, 2, {2, 2, 70, 70}, {}, {}, 100}, {{"heads", whole(2)}, {"scale", 1.0}},
      false);
  add("one row", {{2}, {1}, 6, 6, 10}, {{"heads", whole(2)}});
  add("one query", {{1}, {3}, 6, 6, 10}, {{"heads", whole(2)}});
  return samples;
}

/// Every option and table with every other. The heads of keys are given for one head, and for several.
std::vector<OpVariations> general_variations() {
  const auto whole = [](std::int64_t value) { return OptionValue{value}; };
  const GeneralSizes sizes{{4, 0, 2}, {3, 1, 5}, 12, 12, 6, {3, 1, 4, 5}, {1, 1, 4, 5}, {1, 0, 3}};
  GeneralSizes grouped = sizes;
  grouped.key_columns = 6;
  const std::vector<std::pair<std::string, std::vector<OptionValue>>> values{{"mask", {kBidirectional}},
                                                                             {"left_window", {whole(2)}},
                                                                             {"right_window", {whole(1)}},
                                                                             {"scale", {0.3}},
                                                                             {"soft_cap", {2.0}}};
  auto with_heads = values;
  with_heads.push_back({"heads", {whole(2), whole(3)}});
  return {{{"heads", general_inputs(sizes, 501)}, with_heads},
          {{"one head of keys", general_inputs(sizes, 511), {{"key_heads", whole(1)}}}, values},
          {{"grouped", general_inputs(grouped, 521), {{"heads", whole(4)}, {"key_heads", whole(2)}}}, values}};
}

/// Of the common inputs, at the places they have in the larger op.
std::vector<OpError> general_errors() {
  const auto good = [] { return general_inputs({{2, 3}, {4, 1}, 6, 6, 4, {1, 1, 3, 4}, {1, 1, 3, 4}, {0, 0}}, 1); };
  const auto replaced = [&](std::size_t input, Tensor tensor) {
    std::vector<Tensor> inputs = good();
    inputs[input] = std::move(tensor);
    return inputs;
  };
  const auto whole = [](std::int64_t value) { return OptionValue{value}; };
  return {
      {"keys", replaced(kK, sample_normal({5, 3}, 1)), {}, "needs q [T, 1 * d] and k [S, 1 * d]"},
      {"query offsets", replaced(kQueryOffsets, Offsets::single(6).tensor()), {}, "offsets of queries that end at"},
      {"key offsets", replaced(kKeyOffsets, Offsets::single(6).tensor()), {}, "offsets of keys that end at"},
      {"pairs", replaced(kKeyOffsets, Offsets::single(5).tensor()), {}, "as many sequences of keys as of queries, 2"},
      {"types", replaced(kQ, sample_integers({5, 6}, 1, 3)), {}, "one floating type"},
      {"heads", good(), {{"heads", whole(4)}}, "needs q [T, 4 * d]"},
      {"uneven heads", good(), {{"heads", whole(3)}, {"key_heads", whole(2)}}, "got 3 heads and 2 of keys"},
      {"mask", good(), {{"mask", std::string("diagonal")}}, "'causal' or"},
      {"window", good(), {{"left_window", whole(-2)}}, "or -1 for no limit; got -2 and -1"},
      {"cap", good(), {{"soft_cap", -1.0}}, "finite cap above 0"},
      {"bias", replaced(kBias, sample_normal({1, 1, 3, 3}, 1)), {}, "needs a bias for 2 sequences, 1 heads, 3 queries"},
      {"bias rank", replaced(kBias, sample_normal({3, 4}, 1)), {}, "or 1 for all of them; got [3, 4]"},
      {"visible", replaced(kVisible, Tensor({3, 1, 3, 4}, DType::u8)), {}, "needs a table of visible keys for 2"},
      {"visible type", replaced(kVisible, sample_integers({1, 1, 3, 4}, 1, 2)), {}, "visible keys of type u8"},
      {"starts", replaced(kStarts, sample_integers({3}, 1, 2)), {}, "needs a start for each of 2 sequences"},
      {"far start", replaced(kStarts, Tensor::from<std::int64_t>({0, std::int64_t{1} << 41}, {2})), {}, "at most 2^40"},
  };
}

std::vector<OpOption> general_options() {
  return {{"heads", std::int64_t{1}, "number of heads of queries, side by side in the columns"},
          {"key_heads", std::int64_t{0}, "number of heads of keys and values; 0: as many"},
          {"mask", std::string("causal"), "'causal' or 'bidirectional'"},
          {"left_window", std::int64_t{-1}, "keys seen before the query's own place; -1 for no limit"},
          {"right_window", std::int64_t{-1}, "keys seen after it; -1 for no limit"},
          {"scale", 0.0, "of scores; 0 for 1 / sqrt(d)"},
          {"soft_cap", 0.0, "c of c tanh(score / c); 0 for none"}};
}

/// Without the values.
std::vector<Tensor> scores_inputs(std::vector<Tensor> inputs) {
  inputs.erase(inputs.begin() + kV);
  return inputs;
}

}  // namespace

void entries::add_scaled_dot_product_attention(Catalog& catalog) {
  const OpInput bias{"bias", "[N, heads, queries, keys]", InputKind::differentiable, true, "sizes of 1 stand for all"};
  const std::vector<OpInput> others{
      {"visible", "[N, heads, queries, keys]", InputKind::integer, true, "u8, 0 for keys that are not seen"},
      {"starts", "[N]", InputKind::integer, true, "i64, where each first query stands among the keys"}};
  const OpInput offsets{"offsets", "[N + 1]", InputKind::integer, false, "i64, where queries of a sequence begin"},
      key_offsets{"key_offsets", "[N + 1]", InputKind::integer, false, "i64, where its keys begin"};
  OpEntry entry{
      .name = "scaled_dot_product_attention",
      .summary = "Softmax attention of packed queries to packed keys, ONNX's: grouped heads, bias, mask, soft cap.",
      .inputs = {{"q", "[T, heads * d]"},
                 {"k", "[S, key_heads * d]"},
                 {"v", "[S, key_heads * e]"},
                 offsets,
                 key_offsets,
                 bias,
                 others[0],
                 others[1]},
      .options = general_options(),
      .outputs = {{"output", "[T, heads * e]"}},
      .call = [](std::span<const Var> in, const OpOptions& options) -> std::vector<Var> {
        return {scaled_dot_product_attention(in[kQ], in[kK], in[kV], Offsets(in[kQueryOffsets].value()),
                                             Offsets(in[kKeyOffsets].value()), options_of_general(options),
                                             tables_of(in, kBias))};
      },
      .samples = general_samples,
      .errors =
          [] {
            std::vector<OpError> errors = general_errors();
            std::vector<Tensor> inputs = errors[0].inputs;
            inputs[kK] = sample_normal({5, 6}, 2);
            inputs[kV] = sample_normal({4, 4}, 3);
            errors.push_back({"values", inputs, {}, "needs v [S, 1 * e] beside k [5, 6]; got [4, 4]"});
            return errors;
          },
      .large =
          [] {
            const Lengths lengths(64, 200);
            return OpSample{"large", general_inputs({lengths, lengths, 64, 64, 64}, 1), {}};
          },
      .variations = general_variations,
  };
  catalog.add(std::move(entry));

  const std::string looked = "scores are looked at, not learned from";
  const auto constant = [&](const char* name, const char* shape) {
    return OpInput{name, shape, InputKind::constant, false, "", looked};
  };
  std::vector<OpOption> with_stage = general_options();
  with_stage.push_back({"stage", std::string("probabilities"), "'products', 'capped', 'biased' or 'probabilities'"});
  OpInput constant_bias = bias;
  constant_bias.kind = InputKind::constant;
  constant_bias.no_gradient = looked;
  catalog.add({
      .name = "attention_scores",
      .summary = "The scores of scaled_dot_product_attention, each sequence's one after the other, at a stage.",
      .inputs = {constant("q", "[T, heads * d]"), constant("k", "[S, key_heads * d]"), offsets, key_offsets,
                 constant_bias, others[0], others[1]},
      .options = with_stage,
      .outputs = {{"scores", "[sum of heads * queries * keys]"}},
      .call = [](std::span<const Var> in, const OpOptions& options) -> std::vector<Var> {
        const auto stage = value_of<ScoresAt>(options.text("stage", "probabilities"), "option 'stage'");
        return {Var(attention_scores(in[0], in[1], Offsets(in[2].value()), Offsets(in[3].value()), stage,
                                     options_of_general(options), tables_of(in, 4)))};
      },
      .samples =
          [] {
            std::vector<OpSample> samples = general_samples();
            for (OpSample& sample : samples) sample.inputs = scores_inputs(sample.inputs);
            return samples;
          },
      .errors =
          [] {
            std::vector<OpError> errors = general_errors();
            for (OpError& error : errors) error.inputs = scores_inputs(error.inputs);
            errors.push_back(
                {"stage", errors.back().inputs, {{"stage", std::string("raw")}}, "[option 'stage'] knows no"});
            return errors;
          },
      .variations =
          [] {
            std::vector<OpVariations> all = general_variations();
            for (OpVariations& each : all) {
              each.base.inputs = scores_inputs(each.base.inputs);
              each.values.push_back({"stage", {std::string("products"), std::string("capped"), std::string("biased")}});
            }
            return all;
          },
  });
}

}  // namespace tally::ops
