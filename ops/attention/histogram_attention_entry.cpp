#include <cmath>
#include <numeric>

#include "tally/ops/attention/histogram_attention_call.h"
#include "tally/ops/entries.h"
#include "tally/ops/kernels/histogram_attention.h"

// The catalog entry of histogram_attention.

namespace tally::ops {
namespace {

HistogramAttentionOptions read_options(const OpOptions& options) {
  HistogramAttentionOptions result;
  const std::string mask = options.text("mask", "causal");
  check<ConfigError>(mask == "causal" || mask == "bidirectional", "option",
                     "'mask' needs 'causal' or 'bidirectional'; got '", mask, "'");
  result.mask = mask == "causal" ? AttentionMask::causal : AttentionMask::bidirectional;
  const std::string assignment = options.text("assignment", "hard");
  check<ConfigError>(assignment == "hard" || assignment == "soft", "option",
                     "'assignment' needs 'hard' or 'soft'; got '", assignment, "'");
  result.assignment = assignment == "hard" ? CodewordAssignment::hard : CodewordAssignment::soft;
  result.window = options.integer("window", 0);
  result.scale = options.number("scale", 0);
  return result;
}

std::vector<Var> call(std::span<const Var> in, const OpOptions& options) {
  return {
      histogram_attention(in[0].value(), in[1], in[2], in[3], in[4], Offsets(in[5].value()), read_options(options))};
}

enum Input : std::size_t { kCodes, kAssignments, kTables, kValues, kLogDecay, kOffsets };

struct Sizes {
  std::vector<std::int64_t> lengths;
  std::int64_t codebooks, words, width;
  bool assignments = true;
  double rate = 0;  ///< of decay; 0 for none
  double deviation = 1;
  double logit_deviation = 1;
};

/// Codes, assignments, tables, values, log_decay, offsets.
std::vector<Tensor> inputs_of(const Sizes& s, std::uint64_t stream, DType codes = DType::u8) {
  const std::int64_t rows = std::accumulate(s.lengths.begin(), s.lengths.end(), std::int64_t{0});
  return {sample_integers({rows, s.codebooks}, stream, s.words).to(codes),
          s.assignments ? sample_normal({rows, s.codebooks, s.words}, stream + 1, s.logit_deviation) : Tensor(),
          sample_normal({s.codebooks, s.words, s.words}, stream + 2, s.deviation),
          sample_normal({s.codebooks * s.words, s.width}, stream + 3),
          s.rate > 0 ? Tensor::scalar(std::log(s.rate), DType::f64) : Tensor(),
          Offsets::from_lengths(s.lengths).tensor()};
}

std::vector<OpSample> samples() {
  const std::vector<std::int64_t> lengths{3, 0, 1, 6};
  const std::string bidirectional = "bidirectional", soft = "soft";
  std::vector<OpSample> all;
  std::uint64_t stream = 1;
  const auto add = [&](const std::string& name, const Sizes& sizes, const OpOptions& options = {},
                       bool gradient = true) {
    all.push_back({name, inputs_of(sizes, stream, stream % 8 == 1 ? DType::u8 : DType::i32), options, gradient});
    stream += 4;
  };
  // Every path: hard and soft, decayed or not, both masks, with and without a window.
  for (const std::string& assignment : {std::string("hard"), soft}) {
    for (const std::string& mask : {std::string("causal"), bidirectional}) {
      for (const std::int64_t window : {0, 1, 3}) {
        for (const double rate : {0.0, 0.3}) {
          const OpOptions options{{"assignment", assignment}, {"mask", mask}, {"window", window}};
          add("odd", {{3, 0, 1, 8}, 2, 3, 5, true, rate}, options);
        }
      }
    }
  }
  add("one", {{1}, 1, 1, 1});
  add("one codeword", {lengths, 3, 1, 2});
  add("whole vectors", {{5, 2}, 2, 16, 2, true, 0.1});
  add("no assignments", {lengths, 2, 5, 4, false, 0.2});
  add("empty", {{}, 2, 3, 4}, {{"assignment", soft}});
  add("empty sequences", {{0, 0}, 2, 3, 4});
  add("scale", {lengths, 2, 4, 3}, {{"scale", -0.7}});
  add("window beyond length", {lengths, 2, 3, 3}, {{"window", std::int64_t{50}}});
  add("fast decay", {lengths, 2, 3, 3, true, 30.0}, {{"mask", bidirectional}}, false);
  add("wide", {{4, 2}, 2, 5, 67, true, 0.3});
  add("wide soft", {{4, 2}, 3, 17, 66, true, 0.3}, {{"assignment", soft}, {"mask", bidirectional}});
  add("many codebooks", {{3, 1}, 17, 3, 5, true, 0.1}, {{"window", std::int64_t{2}}});
  // Codebooks of a number of vectors for which counts stay in registers on no target.
  add("many codewords", {{4, 2}, 2, 40, 2});
  add("many codewords decayed", {{150}, 1, 40, 1, false, 0.02});
  // Several tiles and segments.
  add("long", {{150, 1, 140}, 1, 2, 1, true, 0.02});
  add("long soft", {{300}, 1, 2, 1, true, 0.02}, {{"assignment", soft}});
  add("long bidirectional", {{290, 3}, 1, 2, 1, true, 0.01}, {{"mask", bidirectional}});
  add("long window", {{530}, 1, 2, 1, true, 0.01}, {{"window", std::int64_t{200}}});
  add("long bidirectional window", {{450}, 1, 3, 1, true, 0.005},
      {{"mask", bidirectional}, {"window", std::int64_t{190}}});
  add("long soft window", {{330}, 1, 2, 1}, {{"assignment", soft}, {"window", std::int64_t{150}}});
  add("several tiles", {{140, 9}, 1, 2, 1, true, 0.1}, {{"mask", bidirectional}, {"window", std::int64_t{20}}});
  // Products of about +-10^4: the largest of a row is often not present, and exponentials underflow.
  add("extreme", {{6, 9}, 2, 5, 3, false, 0.0, 10000}, {{"scale", 1.0}}, false);
  add("extreme whole vectors", {{7}, 1, 16, 3, false, 0.0, 10000}, {{"scale", 1.0}}, false);
  add("extreme many codewords", {{7}, 1, 40, 1, false, 0.0, 10000}, {{"scale", 1.0}}, false);
  add("extreme decayed", {{12}, 2, 5, 3, true, 0.5, 10000}, {{"scale", 1.0}}, false);
  add("extreme assignments", {{4, 3}, 2, 5, 3, true, 0, 1, 200}, {{"assignment", soft}}, false);
  std::vector<Tensor> ties = inputs_of({{4, 3}, 2, 4, 3}, stream);
  ties[kTables].fill(0.5);
  ties[kAssignments].fill(0);
  all.push_back({"ties", ties});
  // lambda = 0 by a logarithm: as without decay.
  std::vector<Tensor> undecayed = inputs_of({{4, 3}, 2, 4, 3}, stream);
  undecayed[kLogDecay] = Tensor::full({1}, -HUGE_VAL, DType::f64);
  all.push_back({"no decay", undecayed, {}, false});
  return all;
}

std::vector<OpError> errors() {
  const auto good = [] { return inputs_of({{2, 3}, 2, 3, 4, true, 0.1}, 1); };
  const auto with = [&](Input input, Tensor tensor) {
    std::vector<Tensor> inputs = good();
    inputs[input] = std::move(tensor);
    return inputs;
  };
  const auto broken = [&](Input input, std::int64_t at, double value) {
    std::vector<Tensor> inputs = good();
    inputs[input].mutable_data<double>()[at] = value;
    return inputs;
  };
  Tensor codes = good()[kCodes].clone();
  codes.mutable_data<std::uint8_t>()[7] = 3;
  Tensor negative = good()[kCodes].to(DType::i32);
  negative.mutable_data<std::int32_t>()[4] = -1;
  const OpOptions soft{{"assignment", std::string("soft")}};
  return {
      {"code", with(kCodes, codes), {}, "codes in [0, 3); got 3 at row 3 of codebook 1"},
      {"negative code", with(kCodes, negative), {}, "codes in [0, 3); got -1 at row 2 of codebook 0"},
      {"type of codes", with(kCodes, codes.to(DType::i64)), {}, "codes u8 or i32; got i64"},
      {"codebooks of codes", with(kCodes, sample_integers({5, 3}, 1, 3).to(DType::u8)), {}, "codes [T, B]"},
      {"assignments", with(kAssignments, sample_normal({5, 2, 4}, 1)), {}, "assignments [T, B, W]"},
      {"no assignments", with(kAssignments, Tensor()), soft, "needs assignments where they are soft"},
      {"square tables", with(kTables, sample_normal({2, 3, 4}, 1)), {}, "tables [B, W, W]"},
      {"no codebook",
       {Tensor({5, 0}, DType::u8), Tensor(), Tensor({0, 3, 3}, DType::f64), Tensor({0, 4}, DType::f64), Tensor(),
        good()[kOffsets]},
       {},
       "at least one codebook"},
      {"no codeword",
       {Tensor({5, 2}, DType::u8), Tensor(), Tensor({2, 0, 0}, DType::f64), Tensor({0, 4}, DType::f64), Tensor(),
        good()[kOffsets]},
       {},
       "at least one codebook and one codeword"},
      {"values", with(kValues, sample_normal({5, 4}, 1)), {}, "values [B * W, D]"},
      {"types", with(kValues, sample_normal({6, 4}, 1).to(DType::f32)), {}, "one floating type"},
      {"tables not finite", broken(kTables, 5, NAN), {}, "needs finite tables; got nan at element 5"},
      {"values not finite", broken(kValues, 2, HUGE_VAL), {}, "needs finite values; got inf at element 2"},
      {"assignments not finite", broken(kAssignments, 3, NAN), soft, "needs finite assignments"},
      {"decays", with(kLogDecay, sample_normal({2}, 1)), {}, "one element of log_decay"},
      {"decay", broken(kLogDecay, 0, 1000), {}, "log_decay whose exponential is finite; got 1000"},
      {"offsets",
       with(kOffsets, Offsets::from_lengths(std::vector<std::int64_t>{2, 4}).tensor()),
       {},
       "number of rows 5"},
      {"mask", good(), {{"mask", std::string("diagonal")}}, "'causal' or 'bidirectional'"},
      {"assignment", good(), {{"assignment", std::string("firm")}}, "'hard' or 'soft'"},
      {"window", good(), {{"window", std::int64_t{-1}}}, "window of at least 1"},
      {"scale", good(), {{"scale", HUGE_VAL}}, "finite scale"},
  };
}

/// The gradient of hard assignments is that of tallying one_hot(codes) + softmax(logits) - softmax(logits at the base).
std::function<std::vector<Var>(std::span<const Var>)> surrogate(std::span<const Tensor> base,
                                                                const OpOptions& options) {
  if (!base[kAssignments].defined() || read_options(options).assignment == CodewordAssignment::soft) {
    return [options](std::span<const Var> in) { return call(in, options); };
  }
  const Tensor stopped = detail::codeword_softmax(base[kAssignments]);
  return [options, stopped](std::span<const Var> in) -> std::vector<Var> {
    const detail::HistogramCall checked =
        detail::check_histogram_attention(in[kCodes].value(), in[kAssignments], in[kTables], in[kValues], in[kLogDecay],
                                          Offsets(in[kOffsets].value()), read_options(options), true);
    Tensor tallied = detail::codeword_softmax(in[kAssignments].value());
    const Tensor codes = checked.codes.to(DType::i32);
    double* y = tallied.mutable_data<double>();
    const double* s = stopped.data<double>();
    for (std::int64_t i = 0; i < tallied.numel(); ++i) y[i] -= s[i];
    for (std::int64_t i = 0; i < codes.numel(); ++i) y[i * checked.words() + codes.data<std::int32_t>()[i]] += 1;
    return {checked.forward(tallied)};
  };
}

}  // namespace

void entries::add_histogram_attention(Catalog& catalog) {
  OpEntry entry;
  entry.name = "histogram_attention";
  entry.summary = "Attention by codeword histogram (LISA): each row attends to the tally of codewords that it sees.";
  entry.inputs = {
      {"codes", "[T, B]", InputKind::integer, false, "u8 or i32, codeword of each token per codebook"},
      {"assignments", "[T, B, W]", InputKind::differentiable, true, "logits: tallied when soft, else straight through"},
      {"tables", "[B, W, W]", InputKind::differentiable, false, "inner products of projected codewords"},
      {"values", "[B * W, D]", InputKind::differentiable, false, "projected codewords"},
      {"log_decay", "[]", InputKind::differentiable, true, "counts decay by e^-exp(log_decay) per row"},
      {"offsets", "[N + 1]", InputKind::integer, false, "i64, where each sequence begins, and T"}};
  entry.options = {{"mask", std::string("causal"), "'causal' or 'bidirectional'"},
                   {"assignment", std::string("hard"), "'hard' or 'soft'"},
                   {"window", std::int64_t{0}, "only rows fewer than this many rows away; 0 for no limit"},
                   {"scale", 0.0, "of inner products; 0 for 1 / sqrt(D)"}};
  entry.outputs = {{"output", "[T, D]"}};
  entry.call = call;
  entry.samples = samples;
  entry.variations = [] {
    return std::vector<OpVariations>{{{"codewords", inputs_of({{5, 0, 1, 4}, 2, 4, 3, true, 0.3}, 401)},
                                      {{"mask", {std::string("bidirectional")}},
                                       {"assignment", {std::string("soft")}},
                                       {"window", {std::int64_t{1}, std::int64_t{3}}},
                                       {"scale", {-0.7}}}}};
  };
  entry.apart = {{"assignment=soft", "assignments absent"}};
  entry.errors = errors;
  entry.surrogate = surrogate;
  // The slopes of all rows, of either sign, add up in log_decay.
  entry.f32_tolerance = 2e-5;
  entry.large = [] { return OpSample{"large", inputs_of({{8192}, 8, 16, 128}, 1)}; };
  entry.flops = [](const OpSample& sample) {
    return 2.0 * static_cast<double>(sample.inputs[kCodes].dim(0)) *
           static_cast<double>(sample.inputs[kValues].numel());
  };
  catalog.add(std::move(entry));
}

}  // namespace tally::ops
