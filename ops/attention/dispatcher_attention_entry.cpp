// What the catalog entries of both dispatcher attentions say and try.
#include <cmath>
#include <numeric>

#include "tally/ops/attention/dispatcher_call.h"

namespace tally::ops::detail {
namespace {

/// Sizes of a sample; letters as in dispatcher_attention.h.
struct Sizes {
  std::vector<std::int64_t> lengths;
  std::int64_t experts = 3, heads = 2, d = 3, e = 2, r = 4, o = 3;
  bool shared = true, mixed_keys = true, mixed_values = true;
};

std::vector<Tensor> inputs_of(const Sizes& s, std::uint64_t stream, double deviation = 1) {
  const std::int64_t rows = std::accumulate(s.lengths.begin(), s.lengths.end(), std::int64_t{0});
  const auto sequences = static_cast<std::int64_t>(s.lengths.size());
  // As a model has them: what they make is about as large as what they are given.
  const double size = 1 / std::sqrt(static_cast<double>(s.heads * s.e));
  const auto projection = [&](bool mixed, std::int64_t width, std::uint64_t at) {
    const Shape shape = mixed ? Shape{s.heads * s.e, s.heads * width} : Shape{s.heads, s.e, width};
    return sample_normal(shape, at, size);
  };
  const Shape experts = s.shared ? Shape{s.experts, s.heads * s.d} : Shape{sequences, s.experts, s.heads * s.d};
  return {sample_normal(experts, stream, deviation),        sample_normal({rows, s.heads * s.d}, stream + 1, deviation),
          sample_normal({rows, s.heads * s.e}, stream + 2), sample_normal({rows, s.heads * s.r}, stream + 3, deviation),
          projection(s.mixed_keys, s.r, stream + 4),        projection(s.mixed_values, s.o, stream + 5),
          Offsets::from_lengths(s.lengths).tensor()};
}

/// Gathering scores of up to 1,000 and more that are exact in f32: whole numbers below 2^24, scaled by 1/2.
std::vector<Tensor> spread_inputs(const std::vector<std::int64_t>& lengths, std::int64_t bound, std::uint64_t stream) {
  std::vector<Tensor> inputs = inputs_of({.lengths = lengths, .experts = 4, .d = 4}, stream);
  for (const std::size_t i : {std::size_t{0}, std::size_t{1}}) {
    const Tensor whole = sample_integers(inputs[i].shape(), stream + 6 + i, 2 * bound + 1);
    double* to = inputs[i].mutable_data<double>();
    for (std::int64_t j = 0; j < whole.numel(); ++j) to[j] = static_cast<double>(whole.data<std::int64_t>()[j] - bound);
  }
  return inputs;
}

std::vector<OpSample> samples() {
  const auto heads = [](std::int64_t n) { return OpOptions{{"heads", n}}; };
  const std::vector<std::int64_t> lengths{3, 0, 1, 5};
  std::vector<OpSample> all;
  all.push_back({"odd", inputs_of({.lengths = lengths}, 1), heads(2)});
  all.push_back({"one head", inputs_of({.lengths = lengths, .heads = 1}, 11)});
  all.push_back({"three heads", inputs_of({.lengths = {4, 2}, .heads = 3, .d = 1, .e = 3}, 21), heads(3)});
  all.push_back({"one", inputs_of({.lengths = {1}, .experts = 1, .heads = 1, .d = 1, .e = 1, .r = 1, .o = 1}, 31)});
  all.push_back({"one row", inputs_of({.lengths = {1}}, 301), heads(2)});
  all.push_back({"one expert", inputs_of({.lengths = lengths, .experts = 1}, 41), heads(2)});
  all.push_back({"empty", inputs_of({.lengths = {}}, 51), heads(2)});
  all.push_back({"empty sequences", inputs_of({.lengths = {0, 0}}, 61), heads(2)});
  all.push_back({"empty sequences, own experts", inputs_of({.lengths = {0, 0}, .shared = false}, 71), heads(2)});
  all.push_back({"own experts", inputs_of({.lengths = lengths, .shared = false}, 81), heads(2)});
  all.push_back({"own heads",
                 inputs_of({.lengths = {4, 3}, .heads = 3, .mixed_keys = false, .mixed_values = false}, 91), heads(3)});
  all.push_back({"own keys", inputs_of({.lengths = {4, 3}, .mixed_keys = false}, 101), heads(2)});
  all.push_back({"own values", inputs_of({.lengths = {4, 3}, .shared = false, .mixed_values = false}, 111), heads(2)});
  all.push_back({"scale", inputs_of({.lengths = {4, 2}}, 121), {{"heads", std::int64_t{2}}, {"scale", 0.3}}});
  all.push_back({"scale of one head", inputs_of({.lengths = {4, 2}, .heads = 1}, 126), {{"scale", 0.7}}});
  all.push_back({"wide", inputs_of({.lengths = {5, 2}, .d = 33, .e = 35, .r = 32, .o = 37}, 131), heads(2)});
  all.push_back({"many experts", inputs_of({.lengths = {5, 3}, .experts = 70, .heads = 1}, 141)});
  all.push_back({"many sequences", inputs_of({.lengths = std::vector<std::int64_t>(40, 2)}, 151), heads(2)});
  all.push_back({"long", inputs_of({.lengths = {150, 1, 70}, .d = 1, .e = 1, .r = 1, .o = 1}, 161), heads(2)});
  all.push_back({"long, own experts", inputs_of({.lengths = {130, 33}, .shared = false}, 171), heads(2)});
  all.push_back({"parallel inside", inputs_of({.lengths = {3, 2100}, .shared = false}, 181), heads(2), false});
  std::vector<Tensor> ties = inputs_of({.lengths = {4, 3}}, 191);
  ties[1].fill(0.5);
  ties[0].fill(0.25);
  all.push_back({"ties", ties, heads(2)});
  all.push_back({"spread of 30", spread_inputs({40, 7}, 4, 201), heads(2), false});
  all.push_back({"spread of 1,000", spread_inputs({70, 5}, 20, 211), heads(2), false});
  std::vector<Tensor> rising = spread_inputs({50, 3}, 8, 221);
  // Each position outbids all before it, by far more than an exponential of f32 holds.
  for (std::int64_t i = 0; i < rising[1].numel(); ++i)
    rising[1].mutable_data<double>()[i] = static_cast<double>(i / rising[1].dim(1) * 20);
  for (std::int64_t i = 0; i < rising[0].numel(); ++i) rising[0].mutable_data<double>()[i] = 1;
  all.push_back({"rising", rising, heads(2), false});
  std::vector<Tensor> large = inputs_of({.lengths = {6, 40}}, 231, 1e-3);
  for (const std::size_t i : {std::size_t{2}, std::size_t{5}}) {
    for (std::int64_t j = 0; j < large[i].numel(); ++j) large[i].mutable_data<double>()[j] *= 1e4;
  }
  all.push_back({"large values", large, {{"heads", std::int64_t{2}}, {"scale", 1e-4}}, false});
  return all;
}

std::vector<OpError> errors() {
  const auto good = [] { return inputs_of({.lengths = {2, 3}}, 1); };
  const auto with = [&](std::size_t input, Tensor tensor) {
    std::vector<Tensor> inputs = good();
    inputs[input] = std::move(tensor);
    return inputs;
  };
  const auto broken = [&](std::size_t input, std::int64_t at, double value) {
    std::vector<Tensor> inputs = good();
    inputs[input].mutable_data<double>()[at] = value;
    return inputs;
  };
  const OpOptions two{{"heads", std::int64_t{2}}};
  return {
      {"no expert", with(0, sample_normal({0, 6}, 1)), two, "at least one expert; got expert queries [0, 6]"},
      {"no head", good(), {{"heads", std::int64_t{0}}}, "at least one head; got 0"},
      {"heads", good(), {{"heads", std::int64_t{4}}}, "columns that its 4 heads share evenly"},
      {"query", broken(3, 9, NAN), two, "finite queries; got one that is not in row 1"},
      {"query of an expert", broken(0, 17, HUGE_VAL), two, "finite expert queries; got one that is not in row 2"},
      {"scale", good(), {{"heads", std::int64_t{2}}, {"scale", HUGE_VAL}}, "finite scale; got inf"},
      {"values", with(2, sample_normal({4, 4}, 1)), two, "values [T, heads * e]"},
      {"expert queries", with(0, sample_normal({3, 5}, 1)), two, "expert queries [k, 6] or [2, k, 6]; got [3, 5]"},
      {"sets of experts", with(0, sample_normal({3, 3, 6}, 1)), two, "or [2, k, 6]; got [3, 3, 6]"},
      {"key projection", with(4, sample_normal({4, 6}, 1)), two, "key projection [4, 8] or [2, 2, 4]; got [4, 6]"},
      {"value projection", with(5, sample_normal({4, 5}, 1)), two, "value projection [4, heads * o]"},
      {"value projection of a head", with(5, sample_normal({2, 3, 2}, 1)), two, "or [2, 2, o]; got [2, 3, 2]"},
      {"types", with(1, sample_normal({5, 6}, 1).to(DType::f32)), two, "one floating type"},
      {"offsets", with(6, Offsets::single(6).tensor()), two, "number of rows 5; got 6"},
  };
}

}  // namespace

OpEntry dispatcher_entry(std::string name, std::string summary) {
  OpEntry entry;
  entry.name = std::move(name);
  entry.summary = std::move(summary);
  entry.inputs = {{"expert_queries", "[k, heads * d] or [N, k, heads * d]"},
                  {"keys", "[T, heads * d]"},
                  {"values", "[T, heads * e]"},
                  {"queries", "[T, heads * r]"},
                  {"key_projection", "[heads * e, heads * r] or [heads, e, r]"},
                  {"value_projection", "[heads * e, heads * o] or [heads, e, o]"},
                  {"offsets", "[N + 1]", InputKind::integer, false, "i64, where each sequence begins, and T"}};
  entry.options = {{"heads", std::int64_t{1}, "number of heads, side by side in the columns"},
                   {"scale", 0.0, "of both steps' scores; 0 for 1 / sqrt(width of a head)"}};
  entry.samples = samples;
  entry.errors = errors;
  entry.large = [] {
    return OpSample{"large",
                    inputs_of({.lengths = {4096}, .experts = 64, .d = 32, .e = 32, .r = 32, .o = 32}, 1, 0.3),
                    {{"heads", std::int64_t{2}}}};
  };
  // Of the definition: scores and sums of both steps. What a method adds to them is not counted.
  entry.flops = [](const OpSample& sample) {
    const auto experts = static_cast<double>(sample.inputs[0].dim(-2));
    const auto columns =
        static_cast<double>(sample.inputs[1].numel() + sample.inputs[2].numel() + sample.inputs[3].numel() * 2);
    return 2 * experts * columns;
  };
  entry.f32_tolerance = 5e-6;
  return entry;
}

DispatcherInputs dispatcher_inputs(std::span<const Var> in) { return {in[0], in[1], in[2], in[3], in[4], in[5]}; }

DispatcherOptions dispatcher_options(const OpOptions& options) {
  return {.heads = options.integer("heads", 1), .scale = options.number("scale", 0)};
}

}  // namespace tally::ops::detail
