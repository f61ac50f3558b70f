#include "tally/ops/attention/attention_options.h"

#include <cmath>
#include <numeric>

#include "tally/ops/kernels/codewords.h"

namespace tally::ops::detail {

AttentionSizes check_attention(std::string_view op, const Var& q, const Var& k, const Var& v, const Offsets& offsets,
                               const AttentionOptions& options) {
  check<DTypeError>(is_floating(q.dtype()) && k.dtype() == q.dtype() && v.dtype() == q.dtype(), op,
                    "needs q, k, v of one floating type; got ", q.dtype(), ", ", k.dtype(), " and ", v.dtype());
  const Shape &sq = q.shape(), &sk = k.shape(), &sv = v.shape();
  check<ShapeError>(sq.rank() == 2 && sv.rank() == 2 && sk == sq && sv[0] == sq[0], op,
                    "needs q and k [T, heads * d] and v [T, heads * e]; got q ", sq, ", k ", sk, " and v ", sv);
  check<ValueError>(options.heads >= 1, op, "needs at least one head; got ", options.heads);
  check<ShapeError>(sq[1] % options.heads == 0 && sv[1] % options.heads == 0 && sq[1] > 0 && sv[1] > 0, op,
                    "needs columns that its ", options.heads, " heads share evenly; got q ", sq, " and v ", sv);
  offsets.check_rows(sq[0], op);
  check<ValueError>(options.window >= 0, op, "needs a window of at least 1, or 0 for none; got ", options.window);
  check<ValueError>(std::isfinite(options.scale), op, "needs a finite scale; got ", options.scale);
  const DropoutOptions& dropout = options.dropout;
  check<ValueError>(dropout.rate >= 0 && dropout.rate < 1, op, "needs a dropout rate in [0, 1); got ", dropout.rate);
  constexpr std::uint64_t kRows = std::uint64_t{1} << 32;
  check<ValueError>(dropout.first_row <= kRows && static_cast<std::uint64_t>(sq[0]) <= kRows - dropout.first_row, op,
                    "needs rows below 2^32; got ", sq[0], " rows from ", dropout.first_row);
  const std::int64_t width = sq[1] / options.heads;
  const double scale = options.scale == 0 ? 1 / std::sqrt(static_cast<double>(width)) : options.scale;
  return {options.heads, width, sv[1] / options.heads, scale};
}

void check_one_type(std::string_view op, std::initializer_list<std::pair<std::string_view, const Var*>> inputs) {
  const DType dtype = inputs.begin()->second->dtype();
  bool good = is_floating(dtype);
  std::string types;
  for (const auto& [name, input] : inputs) {
    if (!input->defined()) continue;
    good = good && input->dtype() == dtype;
    types += tally::detail::join(types.empty() ? "" : ", ", name, ' ', input->dtype());
  }
  check<DTypeError>(good, op, "needs inputs of one floating type; got ", types);
}

void check_finite_rows(std::string_view op, std::string_view name, const Tensor& x) {
  const std::int64_t row = dispatch_floating(x.dtype(), op, [&]<class T>(T) {
    return kernels::first_row_not_finite(x.strided_data<T>(), x.dim(0), x.dim(1), x.stride(0));
  });
  check<ValueError>(row < 0, op, "needs finite ", name, "; got one that is not in row ", row);
}

Tensor with_dense_rows(const Tensor& x) { return x.stride(1) == 1 && x.stride(0) >= x.dim(1) ? x : x.contiguous(); }

AttentionMask attention_mask(const OpOptions& options) {
  const std::string mask = options.text("mask", "causal");
  check<ConfigError>(mask == "causal" || mask == "bidirectional", "option",
                     "'mask' needs 'causal' or 'bidirectional'; got '", mask, "'");
  return mask == "causal" ? AttentionMask::causal : AttentionMask::bidirectional;
}

namespace {

Tensor bounds_of(const std::vector<std::int64_t>& lengths) { return Offsets::from_lengths(lengths).tensor(); }

}  // namespace

std::vector<Tensor> attention_inputs(const std::vector<std::int64_t>& lengths, std::int64_t columns,
                                     std::int64_t value_columns, std::uint64_t stream, double deviation) {
  const std::int64_t rows = std::accumulate(lengths.begin(), lengths.end(), std::int64_t{0});
  return {sample_normal({rows, columns}, stream, deviation), sample_normal({rows, columns}, stream + 1, deviation),
          sample_normal({rows, value_columns}, stream + 2), bounds_of(lengths)};
}

namespace {

AttentionOptions attention_options(const OpOptions& options) {
  AttentionOptions result;
  result.heads = options.integer("heads", 1);
  result.mask = attention_mask(options);
  result.window = options.integer("window", 0);
  result.scale = options.number("scale", 0);
  result.dropout.rate = options.number("dropout", 0);
  result.dropout.key = options.key();
  const std::int64_t first_row = options.integer("first_row", 0);
  check<ConfigError>(first_row >= 0, "option", "'first_row' needs at least 0; got ", first_row);
  result.dropout.first_row = static_cast<std::uint64_t>(first_row);
  return result;
}

std::vector<OpSample> attention_samples() {
  const OpOptions two_heads{{"heads", std::int64_t{2}}};
  const auto with = [&](std::initializer_list<std::pair<std::string, OptionValue>> more) {
    OpOptions options = two_heads;
    for (const auto& [name, value] : more) options.set(name, value);
    return options;
  };
  const std::string bidirectional = "bidirectional";
  const std::vector<std::int64_t> lengths{3, 0, 1, 5};
  std::vector<OpSample> samples;
  samples.push_back({"odd", attention_inputs(lengths, 6, 10, 1), two_heads});
  samples.push_back({"one head", attention_inputs(lengths, 5, 5, 4)});
  samples.push_back({"one", attention_inputs({1}, 1, 1, 7)});
  samples.push_back({"one row", attention_inputs({1}, 6, 10, 301), two_heads});
  samples.push_back({"empty", attention_inputs({}, 4, 2, 8), two_heads});
  samples.push_back({"empty sequences", attention_inputs({0, 0}, 4, 2, 9), two_heads});
  samples.push_back({"window one", attention_inputs(lengths, 6, 4, 10), with({{"window", std::int64_t{1}}})});
  samples.push_back({"window", attention_inputs({7, 2}, 6, 4, 13), with({{"window", std::int64_t{3}}})});
  samples.push_back(
      {"window beyond length", attention_inputs(lengths, 6, 4, 16), with({{"window", std::int64_t{50}}})});
  samples.push_back({"bidirectional", attention_inputs(lengths, 6, 4, 19), with({{"mask", bidirectional}})});
  samples.push_back({"bidirectional window", attention_inputs({7, 2}, 6, 4, 22),
                     with({{"mask", bidirectional}, {"window", std::int64_t{2}}})});
  samples.push_back({"scale", attention_inputs(lengths, 6, 4, 25), with({{"scale", 0.3}})});
  samples.push_back({"dropout", attention_inputs({9, 0, 4}, 6, 4, 28),
                     with({{"dropout", 0.3},
                           {"seed", std::int64_t{5}},
                           {"stream", std::int64_t{6}},
                           {"first_row", std::int64_t{11}}})});
  samples.push_back({"dropout bidirectional", attention_inputs({6, 3}, 6, 4, 31),
                     with({{"dropout", 0.5}, {"seed", std::int64_t{7}}, {"mask", bidirectional}})});

  // Several blocks of rows and tiles of keys.
  samples.push_back({"long", attention_inputs({150, 1, 70}, 2, 2, 34)});
  samples.push_back({"long bidirectional", attention_inputs({300}, 2, 1, 37), {{"mask", bidirectional}}});
  samples.push_back({"long window", attention_inputs({290}, 2, 1, 40), {{"window", std::int64_t{70}}}});
  samples.push_back({"long bidirectional window",
                     attention_inputs({205}, 1, 1, 43),
                     {{"mask", bidirectional}, {"window", std::int64_t{20}}}});
  samples.push_back(
      {"long dropout", attention_inputs({140}, 4, 2, 46), with({{"dropout", 0.2}, {"window", std::int64_t{90}}})});
  // Heads wider than every vector, and of widths that none divides.
  samples.push_back({"wide", attention_inputs({6, 0, 3}, 134, 66, 64), two_heads});
  samples.push_back(
      {"three wide heads",
       attention_inputs({5, 2}, 3 * 65, 3 * 17, 67),
       {{"heads", std::int64_t{3}}, {"mask", bidirectional}, {"window", std::int64_t{2}}, {"scale", 0.2}}});
  samples.push_back({"parallel inside", attention_inputs({530}, 2, 1, 49), {}, false});

  std::vector<Tensor> ties = attention_inputs({4, 3}, 4, 4, 52);
  ties[1].fill(0.5);
  samples.push_back({"ties", ties, two_heads});
  // Scores of about +-10^4: probabilities are 0 or 1, and finite.
  samples.push_back({"extreme", attention_inputs({6, 70}, 8, 2, 55, 100), {{"scale", 1.0}}, false});
  return samples;
}

}  // namespace

OpEntry attention_entry(std::string name, std::string summary, AttentionFunction function) {
  OpEntry entry;
  entry.name = std::move(name);
  entry.summary = std::move(summary);
  entry.inputs = {{"q", "[T, heads * d]"},
                  {"k", "[T, heads * d]"},
                  {"v", "[T, heads * e]"},
                  {"offsets", "[N + 1]", InputKind::integer, false, "i64, where each sequence begins, and T"}};
  entry.options = {{"heads", std::int64_t{1}, "number of heads, side by side in the columns"},
                   {"mask", std::string("causal"), "'causal' or 'bidirectional'"},
                   {"window", std::int64_t{0}, "only keys fewer than this many rows away; 0 for no limit"},
                   {"scale", 0.0, "of scores; 0 for 1 / sqrt(d)"},
                   {"dropout", 0.0, "share of probabilities set to zero, in [0, 1)"},
                   {"seed", std::int64_t{0}, "of the dropout key"},
                   {"stream", std::int64_t{0}, "of the dropout key"},
                   {"first_row", std::int64_t{0}, "of q, in the rows that the dropout key counts"}};
  entry.outputs = {{"output", "[T, heads * e]"}};
  entry.call = [function](std::span<const Var> in, const OpOptions& options) -> std::vector<Var> {
    return {function(in[0], in[1], in[2], Offsets(in[3].value()), attention_options(options))};
  };
  entry.samples = attention_samples;
  entry.variations = [] {
    const auto whole = [](std::int64_t value) { return OptionValue{value}; };
    return std::vector<OpVariations>{{{"heads", attention_inputs({5, 0, 1, 7}, 6, 12, 61)},
                                      {{"heads", {whole(2), whole(3)}},
                                       {"mask", {std::string("bidirectional")}},
                                       {"window", {whole(3), whole(50)}},
                                       {"scale", {0.3, -0.6}},
                                       {"dropout", {0.3}},
                                       {"seed", {whole(5)}},
                                       {"stream", {whole(6)}},
                                       {"first_row", {whole(11)}}}}};
  };
  entry.errors = [] {
    const auto good = [] { return attention_inputs({2, 3}, 6, 4, 1); };
    const auto replaced = [&](std::size_t input, Tensor tensor) {
      std::vector<Tensor> inputs = good();
      inputs[input] = std::move(tensor);
      return inputs;
    };
    return std::vector<OpError>{
        {"keys", replaced(1, sample_normal({5, 3}, 1)), {}, "needs q and k [T, heads * d] and v [T, heads * e]"},
        {"values", replaced(2, sample_normal({4, 4}, 1)), {}, "got q [5, 6], k [5, 6] and v [4, 4]"},
        {"rank", replaced(2, sample_normal({5}, 1)), {}, "needs q and k [T, heads * d]"},
        {"offsets end", replaced(3, bounds_of({2, 4})), {}, "needs offsets that end at the number of rows 5; got 6"},
        {"offsets fall", replaced(3, Tensor::from<std::int64_t>({0, 5, 4, 5}, {4})), {}, "must not fall"},
        {"offsets begin", replaced(3, Tensor::from<std::int64_t>({1, 5}, {2})), {}, "needs 0 at position 0"},
        {"types", replaced(0, sample_integers({5, 6}, 1, 3)), {}, "one floating type"},
        {"heads", good(), {{"heads", std::int64_t{4}}}, "4 heads share evenly"},
        {"no head", good(), {{"heads", std::int64_t{0}}}, "at least one head"},
        {"mask", good(), {{"mask", std::string("diagonal")}}, "'causal' or 'bidirectional'"},
        {"window", good(), {{"window", std::int64_t{-1}}}, "window of at least 1"},
        {"rate", good(), {{"dropout", 1.0}}, "rate in [0, 1)"},
        {"first row", good(), {{"first_row", std::int64_t{1} << 32}}, "rows below 2^32"},
    };
  };
  entry.large = [] { return OpSample{"large", attention_inputs(std::vector<std::int64_t>(64, 200), 64, 64, 1), {}}; };
  return entry;
}

}  // namespace tally::ops::detail
