#include "tally/nn/attention/softmax.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "tally/ops/attention/softmax_attention_materialized.h"

namespace tally::nn {
namespace {

SoftmaxCore core(const AttentionSettings& settings, std::int64_t window, double dropout, bool materialized = false) {
  return {.heads = settings.heads,
          .mask = settings.mask,
          .window = window,
          .dropout = dropout,
          .width = settings.width,
          .materialized = materialized};
}

}  // namespace

SoftmaxCore SoftmaxCore::make(const SoftmaxOptions& options, const AttentionSettings& settings, RngKey) {
  return core(settings, options.window, options.dropout);
}
SoftmaxCore SoftmaxCore::make(const MaterializedOptions& options, const AttentionSettings& settings, RngKey) {
  return core(settings, options.window, options.dropout, true);
}
SoftmaxCore SoftmaxCore::make(const LocalOptions& options, const AttentionSettings& settings, RngKey) {
  return core(settings, options.block, options.dropout);
}

Var SoftmaxCore::operator()(const Var& q, const Var& k, const Var& v, const Sequence& sequence,
                            const Context& context) const {
  const ops::AttentionOptions options{.heads = heads,
                                      .mask = mask,
                                      .window = window,
                                      .dropout = {.rate = context.training ? dropout : 0,
                                                  .key = context.at("attention").key,
                                                  .first_row = static_cast<std::uint64_t>(context.first_row)}};
  return materialized ? ops::softmax_attention_materialized(q, k, v, sequence.offsets, options)
                      : ops::softmax_attention(q, k, v, sequence.offsets, options);
}

std::string SoftmaxCore::layout() const {
  return " of " + std::to_string(heads) + " heads" + (window > 0 ? " over " + std::to_string(window) + " rows" : "");
}

void SoftmaxCore::State::load(ByteReader& bytes, std::int64_t events) {
  const std::int64_t kept = std::min(events, window) * columns;
  check<IoError>(static_cast<std::uint64_t>(kept) * sizeof(float) <= bytes.left(), "softmax attention",
                 "the saved state is cut off");
  rows.resize(static_cast<std::size_t>(kept));
  bytes.read(std::span(rows));
  check<IoError>(std::all_of(rows.begin(), rows.end(), [](float x) { return std::isfinite(x); }), "softmax attention",
                 "the saved state has a number that is not finite");
}

Var SoftmaxCore::step(State& state, const Var& q, const Var& k, const Var& v, const Event& event) const {
  const std::int64_t seen = std::min(event.place, window), d = width / heads;
  const auto row_at = [&](std::int64_t row) { return state.rows.data() + row * state.columns; };
  if (seen < window) state.rows.resize(static_cast<std::size_t>((seen + 1) * state.columns));
  float* const own = row_at(event.place % window);
  std::copy_n(k.value().contiguous().data<float>(), width, own);
  std::copy_n(v.value().contiguous().data<float>(), width, own + width);
  const std::int64_t rows = std::min(event.place + 1, window);
  const Tensor queries = q.value().contiguous();
  Tensor result({1, width});
  std::vector<double> scores(static_cast<std::size_t>(rows)), sums(static_cast<std::size_t>(d));
  for (std::int64_t head = 0; head < heads; ++head) {
    const float* const query = queries.data<float>() + head * d;
    double largest = -std::numeric_limits<double>::infinity();
    for (std::int64_t row = 0; row < rows; ++row) {
      const float* const key = row_at(row) + head * d;
      double score = 0;
      for (std::int64_t i = 0; i < d; ++i) score += static_cast<double>(query[i]) * static_cast<double>(key[i]);
      scores[static_cast<std::size_t>(row)] = score /= std::sqrt(static_cast<double>(d));
      largest = std::max(largest, score);
    }
    double total = 0;
    std::fill(sums.begin(), sums.end(), 0.0);
    for (std::int64_t row = 0; row < rows; ++row) {
      const float* const value = row_at(row) + width + head * d;
      const double weight = std::exp(scores[static_cast<std::size_t>(row)] - largest);
      total += weight;
      for (std::size_t i = 0; i < sums.size(); ++i) sums[i] += weight * static_cast<double>(value[i]);
    }
    float* const out = result.mutable_data<float>() + head * d;
    for (std::size_t i = 0; i < sums.size(); ++i) out[i] = static_cast<float>(sums[i] / total);
  }
  return Var(result);
}

}  // namespace tally::nn
