#include "tally/nn/attention/linrec.h"

#include <algorithm>
#include <cmath>

#include "tally/nn/attention/visible_sums.h"
#include "tally/ops/attention/feature_map.h"
#include "tally/ops/attention/linear_attention.h"
#include "tally/ops/elementwise/elementwise.h"

namespace tally::nn {
namespace {

constexpr double kEpsilon = ops::kLinRecEpsilon;

double elu(double x) { return x > 0 ? x : std::expm1(x); }

}  // namespace

LinRecCore LinRecCore::make(const LinRecOptions& options, const AttentionSettings& settings, RngKey) {
  return {.width = settings.width, .heads = settings.heads, .mask = settings.mask, .keys_by = options.keys_by};
}

std::string LinRecCore::layout() const {
  return tally::detail::join(" of ", heads, " heads, keys by ", word_of(keys_by));
}

Var LinRecCore::operator()(const Var& q, const Var& k, const Var& v, const Sequence& sequence, const Context&) const {
  const ops::FeatureMapOptions unit{.heads = heads, .kind = ops::FeatureKind::linrec};
  Var queries = ops::feature_map(q, unit), keys;
  if (keys_by == LinRecKeys::token) {
    keys = ops::feature_map(k, unit);
  } else {
    keys = ops::elu(k);
    // A column's length divides the query's feature as well as the key's, and depends on the row in the causal form.
    queries = queries / ops::sqrt(visible_sums(ops::square(keys), sequence.offsets, mask) + kEpsilon);
  }
  return ops::linear_attention({queries, keys, v}, sequence.offsets,
                               {.heads = heads, .mask = mask, .final_state = false})
      .output;
}

void LinRecCore::State::save(std::string& to) const {
  write_values(to, std::span<const double>(products));
  write_values(to, std::span<const double>(squares));
}

void LinRecCore::State::load(ByteReader& bytes, std::int64_t) {
  bytes.read(std::span(products));
  bytes.read(std::span(squares));
  const auto finite = [](double x) { return std::isfinite(x); };
  check<IoError>(std::all_of(products.begin(), products.end(), finite) &&
                     std::all_of(squares.begin(), squares.end(), [](double x) { return std::isfinite(x) && x >= 0; }),
                 "linrec attention", "the saved state has a sum that cannot be");
}

LinRecCore::State LinRecCore::initial_state() const {
  const std::int64_t d = width / heads;
  return {std::vector<double>(static_cast<std::size_t>(width * d)),
          std::vector<double>(static_cast<std::size_t>(width))};
}

Var LinRecCore::step(State& state, const Var& q, const Var& k, const Var& v, const Event&) const {
  const std::vector<double> query = q.value().to_doubles(), key = k.value().to_doubles(),
                            value = v.value().to_doubles();
  const auto d = static_cast<std::size_t>(width / heads);
  const double scale = 1 / std::sqrt(static_cast<double>(d));
  Tensor row({1, width});
  for (std::size_t first = 0; first < query.size(); first += d) {
    std::vector<double> features(d), keys(d), out(d);
    double of_query = kEpsilon, of_key = kEpsilon;
    for (std::size_t i = 0; i < d; ++i) {
      features[i] = elu(query[first + i]);
      keys[i] = elu(key[first + i]);
      of_query += features[i] * features[i];
      of_key += keys[i] * keys[i];
      state.squares[first + i] += keys[i] * keys[i];
    }
    for (std::size_t i = 0; i < d; ++i) {
      double* const sums = state.products.data() + (first + i) * d;
      const double written = keys_by == LinRecKeys::token ? keys[i] / std::sqrt(of_key) : keys[i];
      for (std::size_t j = 0; j < d; ++j) sums[j] += written * value[first + j];
      double asked = scale * features[i] / std::sqrt(of_query);
      if (keys_by == LinRecKeys::column) asked /= std::sqrt(state.squares[first + i] + kEpsilon);
      for (std::size_t j = 0; j < d; ++j) out[j] += asked * sums[j];
    }
    for (std::size_t j = 0; j < d; ++j) row.mutable_data<float>()[first + j] = static_cast<float>(out[j]);
  }
  return Var(row);
}

}  // namespace tally::nn
