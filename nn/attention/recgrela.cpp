#include "tally/nn/attention/recgrela.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "tally/nn/attention/visible_sums.h"
#include "tally/nn/initializers.h"
#include "tally/ops/attention/feature_map.h"
#include "tally/ops/attention/linear_attention.h"
#include "tally/ops/attention/rotary.h"
#include "tally/ops/elementwise/elementwise.h"
#include "tally/ops/recurrent/causal_conv1d.h"
#include "tally/ops/tensor/reduce.h"
#include "tally/ops/tensor/shape.h"

namespace tally::nn {
namespace {

/// Of the product of the sums of a query's and of all keys' features: the least denominator. It is a share, as no
/// absolute number suits features of every size.
constexpr double kFloor = 1e-6;

const ops::RotaryOptions kRotary{.pairs = ops::RotaryPairs::interleaved};

}  // namespace

RecGrelaKind RecGrelaKind::make(const RecGrelaOptions& options, const AttentionSettings& settings, RngKey key) {
  check<ValueError>(settings.width % 2 == 0, "recgrela", "turns pairs of columns and needs an even width; got ",
                    settings.width);
  const LinearOptions square{.in = settings.width, .out = settings.width, .deviation = settings.deviation};
  // Uniform within 1 / sqrt(taps), as a convolution of `taps` inputs begins elsewhere.
  Tensor taps({settings.width, options.taps});
  const double bound = 1 / std::sqrt(static_cast<double>(options.taps));
  fill_uniform(key.fold_in("shortcut"), taps, -bound, bound);
  return {.input = Linear::make(square, key.fold_in("input")),
          .query = Linear::make(square, key.fold_in("query")),
          .key = Linear::make(square, key.fold_in("key")),
          .gate = Linear::make(square, key.fold_in("gate")),
          .output = Linear::make(square, key.fold_in("output")),
          .shortcut_weight = Parameter(std::move(taps)),
          .shortcut_bias = Parameter(Tensor::zeros({settings.width})),
          .heads = settings.heads,
          .mask = settings.mask,
          .shortcut_activation = options.activation};
}

Var RecGrelaKind::operator()(const Var& queries, const Var& source, const Sequence& sequence, const Context&) const {
  const Var asking = input(queries), given = &source == &queries ? asking : input(source);
  const Var q = ops::feature_map(query(asking)), k = ops::feature_map(key(given));
  const std::int64_t rows = q.dim(0), d = q.dim(1) / heads;
  const auto by_head = [&](const Var& x) { return ops::reshape(x, Shape{rows * heads, d}); };
  const auto sums = [&](const Var& x) { return ops::sum(x, {.dims = {1}, .keepdims = true}); };
  const Var keys = by_head(visible_sums(k, sequence.offsets, mask));
  const Var denominators = sums(by_head(q) * (keys + kFloor * sums(keys)));
  const Var read =
      ops::linear_attention({.q = ops::rotary(q, sequence.offsets, {}, kRotary),
                             .k = ops::rotary(k, sequence.offsets, {}, kRotary),
                             .v = given},
                            sequence.offsets, {.heads = heads, .mask = mask, .scale = 1, .final_state = false})
          .output;
  const Var nearby =
      ops::causal_conv1d(given, shortcut_weight, shortcut_bias, {}, sequence.offsets, shortcut_activation);
  const Var y = ops::reshape(by_head(read) / denominators, read.shape()) + nearby;
  return output(y * gate(queries, ops::Activation::silu));
}

std::string RecGrelaKind::layout() const {
  return tally::detail::join(" of ", heads, " heads, shortcut ", word_of(shortcut_activation));
}

std::size_t RecGrelaKind::State::heap_bytes() const {
  return (products.capacity() + keys.capacity()) * sizeof(double) + recent.rows.capacity() * sizeof(float);
}

void RecGrelaKind::State::save(std::string& to) const {
  write_values(to, std::span<const double>(products));
  write_values(to, std::span<const double>(keys));
  write_values(to, std::span<const float>(recent.rows));
}

void RecGrelaKind::State::load(ByteReader& bytes, std::int64_t) {
  bytes.read(std::span(products));
  bytes.read(std::span(keys));
  bytes.read(std::span(recent.rows));
  const auto finite = [](auto x) { return std::isfinite(x); };
  check<IoError>(std::all_of(products.begin(), products.end(), finite) &&
                     std::all_of(keys.begin(), keys.end(), [](double x) { return std::isfinite(x) && x >= 0; }) &&
                     std::all_of(recent.rows.begin(), recent.rows.end(), finite),
                 "recgrela attention", "the saved state has a number that cannot be");
}

RecGrelaKind::State RecGrelaKind::initial_state() const {
  auto reader = std::make_shared<const ops::ConvolutionReader>(shortcut_weight.value(), shortcut_bias.value(),
                                                               shortcut_activation);
  const std::int64_t width = reader->width();
  return {.products = std::vector<double>(static_cast<std::size_t>(width * width / heads)),
          .keys = std::vector<double>(static_cast<std::size_t>(width)),
          .recent = reader->initial_state(),
          .shortcut = std::move(reader)};
}

Var RecGrelaKind::step(State& state, const Var& queries, const Var& source, const Event& event) const {
  const Var asking = input(queries), given = &source == &queries ? asking : input(source);
  const Var q = ops::feature_map(query(asking)), k = ops::feature_map(key(given));
  const Tensor place = Tensor::from<std::int64_t>({event.place}, {1});
  const std::vector<double> asked = q.value().to_doubles(), added = k.value().to_doubles(),
                            turned_query = ops::rotary(q, place, kRotary).value().to_doubles(),
                            turned_key = ops::rotary(k, place, kRotary).value().to_doubles(),
                            value = given.value().to_doubles();
  const Tensor row_given = given.value().contiguous();
  Tensor row({1, given.dim(1)});
  const std::span<float> y = row.mutable_span<float>();
  state.shortcut->step(state.recent, row_given.span<float>(), y);
  const std::size_t width = value.size(), d = width / static_cast<std::size_t>(heads);
  for (std::size_t first = 0; first < width; first += d) {
    std::vector<double> read(d);
    double of_query = 0, of_keys = 0, denominator = 0;
    for (std::size_t i = first; i < first + d; ++i) {
      double* const sums = state.products.data() + i * d;
      for (std::size_t j = 0; j < d; ++j) {
        sums[j] += turned_key[i] * value[first + j];
        read[j] += turned_query[i] * sums[j];
      }
      state.keys[i] += added[i];
      denominator += asked[i] * state.keys[i];
      of_query += asked[i];
      of_keys += state.keys[i];
    }
    denominator += kFloor * of_query * of_keys;
    for (std::size_t j = 0; j < d; ++j) y[first + j] += static_cast<float>(read[j] / denominator);
  }
  return output(Var(row) * gate(queries, ops::Activation::silu));
}

}  // namespace tally::nn
