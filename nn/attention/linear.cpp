#include "tally/nn/attention/linear.h"

#include <algorithm>
#include <cmath>

#include "tally/nn/initializers.h"

namespace tally::nn {

LinearAttentionCore LinearAttentionCore::make(const NoOptions&, const AttentionSettings& settings, RngKey) {
  return {.width = settings.width, .heads = settings.heads, .mask = settings.mask, .directions = {}};
}
LinearAttentionCore LinearAttentionCore::make(const FavorOptions& options, const AttentionSettings& settings,
                                              RngKey key) {
  LinearAttentionCore core = make(NoOptions{}, settings, key);
  core.directions = Buffer(orthogonal_directions(options.random_features, settings.width / settings.heads, key));
  return core;
}

ops::NormalizedLinearAttentionOptions LinearAttentionCore::options() const {
  return {.heads = heads,
          .mask = mask,
          .feature_map = directions.defined() ? ops::FeatureMap::positive_random : ops::FeatureMap::elu};
}

Var LinearAttentionCore::operator()(const Var& q, const Var& k, const Var& v, const Sequence& sequence,
                                    const Context&) const {
  // In the type of the rows: checks run in f64.
  const Var drawn = directions.defined() ? Var(directions.value().to(q.dtype())) : Var();
  return ops::normalized_linear_attention(q, k, v, drawn, sequence.offsets, options());
}

void LinearAttentionCore::State::save(std::string& to) const {
  write_values(to, std::span<const double>(sums.sums));
  write_values(to, std::span<const double>(sums.reference));
}

void LinearAttentionCore::State::load(ByteReader& bytes, std::int64_t events) {
  bytes.read(std::span(sums.sums));
  bytes.read(std::span(sums.reference));
  const auto finite = [](double x) { return std::isfinite(x); };
  check<IoError>(std::all_of(sums.sums.begin(), sums.sums.end(), finite), "linear attention",
                 "the saved state has a sum that is not finite");
  check<IoError>(events == 0 || std::all_of(sums.reference.begin(), sums.reference.end(), finite), "linear attention",
                 "the saved state has a reference that is not finite");
}

LinearAttentionCore::State LinearAttentionCore::initial_state() const {
  const std::int64_t d = width / heads;
  return {ops::normalized_linear_attention_state(heads, directions.defined() ? directions.value().dim(0) : d, d)};
}

Var LinearAttentionCore::step(State& state, const Var& q, const Var& k, const Var& v, const Event&) const {
  const Tensor query = q.value().contiguous(), key = k.value().contiguous(), value = v.value().contiguous();
  Tensor row({1, width});
  ops::normalized_linear_attention_step(state.sums, query.span<float>(), key.span<float>(), value.span<float>(),
                                        directions.defined() ? directions.value() : Tensor(), row.mutable_span<float>(),
                                        options());
  return Var(row);
}

}  // namespace tally::nn
