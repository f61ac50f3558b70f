#include "tally/ops/attention/dispatcher_state.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "tally/core/kernels.h"
#include "tally/ops/kernels/dispatcher_plan.h"

namespace tally::ops {
namespace {

constexpr std::string_view kName = "dispatcher_state";
constexpr double kNothing = -std::numeric_limits<double>::infinity();

std::size_t place(std::int64_t i) { return static_cast<std::size_t>(i); }

template <class T>
bool finite(std::span<const T> x) {
  return std::all_of(x.begin(), x.end(), [](T value) { return std::isfinite(value); });
}

void check_state(const DispatcherState& state) {
  const std::int64_t columns = state.heads * state.experts;
  const bool made = columns > 0 && state.sums.size() == place(columns * state.value_width) &&
                    state.weights.size() == place(columns) && state.largest.size() == place(columns);
  check<ShapeError>(made, kName, "needs a state made by dispatcher_state(); got ", state.heads, " heads, ",
                    state.experts, " experts and ", state.sums.size(), " sums");
}

double factor_to(double from, double to) { return from == kNothing ? 0 : std::exp(from - to); }

}  // namespace

DispatcherState dispatcher_state(std::int64_t heads, std::int64_t experts, std::int64_t value_width) {
  check<ValueError>(heads > 0 && experts > 0 && value_width > 0, kName, "needs sizes above 0; got heads ", heads,
                    ", experts ", experts, " and value width ", value_width);
  const std::size_t columns = place(heads * experts);
  return {heads,
          experts,
          value_width,
          std::vector<double>(columns * place(value_width)),
          std::vector<double>(columns),
          std::vector<double>(columns, kNothing),
          0};
}

DispatcherReader::DispatcherReader(const Tensor& expert_queries, const Tensor& key_projection,
                                   const Tensor& value_projection, const DispatcherOptions& options)
    : heads_(options.heads),
      mixed_keys_(key_projection.rank() == 2),
      mixed_values_(value_projection.rank() == 2),
      expert_queries_(expert_queries.to_doubles()),
      key_projection_(key_projection.to_doubles()),
      value_projection_(value_projection.to_doubles()) {
  // The op's own checks, on a call without rows: their widths are what the projections say.
  check<ShapeError>(expert_queries.rank() == 2 && (mixed_keys_ || key_projection.rank() == 3), kName,
                    "needs expert queries [k, heads * d] and key projection [heads * e, heads * r] or [heads, e, r]; "
                    "got ",
                    expert_queries.shape(), " and ", key_projection.shape());
  const std::int64_t blocks = mixed_keys_ ? 1 : heads_;
  const DType dtype = expert_queries.dtype();
  const Tensor keys({0, expert_queries.dim(1)}, dtype), values({0, key_projection.dim(-2) * blocks}, dtype),
      queries({0, key_projection.dim(-1) * blocks}, dtype);
  const std::int64_t output =
      dispatcher_attention({expert_queries, keys, values, queries, key_projection, value_projection}, Offsets(),
                           options)
          .output.dim(1);
  check<ValueError>(finite<double>(key_projection_) && finite<double>(value_projection_), kName,
                    "needs finite projections");
  experts_ = expert_queries.dim(0);
  key_width_ = keys.dim(1) / heads_;
  value_width_ = values.dim(1) / heads_;
  query_width_ = queries.dim(1) / heads_;
  output_width_ = output / heads_;
  gather_scale_ = options.scale == 0 ? 1 / std::sqrt(static_cast<double>(key_width_)) : options.scale;
  read_scale_ = options.scale == 0 ? 1 / std::sqrt(static_cast<double>(query_width_)) : options.scale;
}

template <class T>
void DispatcherReader::step_of(DispatcherState& state, std::span<const T> key, std::span<const T> value,
                               std::span<const T> query, std::span<T> output) const {
  check_state(state);
  const bool fits = state.heads == heads_ && state.experts == experts_ && state.value_width == value_width_ &&
                    key.size() == place(heads_ * key_width_) && value.size() == place(heads_ * value_width_) &&
                    query.size() == place(heads_ * query_width_) && output.size() == place(heads_ * output_width_);
  check<ShapeError>(fits, kName, "needs a state of ", heads_, " heads, ", experts_, " experts and e = ", value_width_,
                    ", a key [", heads_ * key_width_, "], a value [", heads_ * value_width_, "], a query [",
                    heads_ * query_width_, "] and room for [", heads_ * output_width_, "]; got ", state.heads, ", ",
                    state.experts, ", ", state.value_width, ", and ", key.size(), ", ", value.size(), ", ",
                    query.size(), ", ", output.size());
  check<ValueError>(finite(key) && finite(value) && finite(query), kName,
                    "needs a finite key, value and query; got one that is not");
  const std::vector<double> keys(key.begin(), key.end()), values(value.begin(), value.end()),
      queries(query.begin(), query.end());
  for (std::int64_t h = 0; h < heads_; ++h) {
    for (std::int64_t i = 0; i < experts_; ++i) {
      const std::int64_t at = h * experts_ + i;
      const double score =
          gather_scale_ * kernels::dot(keys.data() + h * key_width_,
                                       expert_queries_.data() + (i * heads_ + h) * key_width_, key_width_);
      double& largest = state.largest[place(at)];
      const double now = std::max(largest, score), kept = factor_to(largest, now), weight = std::exp(score - now);
      double* sums = state.sums.data() + at * value_width_;
      if (kept != 1) kernels::scale(sums, kept, value_width_);
      kernels::axpy(sums, weight, values.data() + h * value_width_, value_width_);
      state.weights[place(at)] = state.weights[place(at)] * kept + weight;
      largest = now;
    }
  }
  ++state.events;

  const kernels::ExpertProjection<double> to_queries{key_projection_.data(), heads_, value_width_, query_width_,
                                                     mixed_keys_};
  const kernels::ExpertProjection<double> to_output{value_projection_.data(), heads_, value_width_, output_width_,
                                                    mixed_values_};
  std::vector<double> absorbed(place(value_width_)), shares(place(experts_)), read(place(value_width_)),
      out(place(output_width_));
  for (std::int64_t g = 0; g < heads_; ++g) {
    std::fill(shares.begin(), shares.end(), 0.0);
    for (std::int64_t h = to_queries.first(g); h < to_queries.end(g); ++h) {
      for (std::int64_t c = 0; c < value_width_; ++c) {
        absorbed[place(c)] =
            read_scale_ * kernels::dot(queries.data() + g * query_width_,
                                       to_queries.matrix + to_queries.offset(h, g) + c * to_queries.stride(),
                                       query_width_);
      }
      for (std::int64_t i = 0; i < experts_; ++i) {
        const std::int64_t at = h * experts_ + i;
        shares[place(i)] += kernels::dot(absorbed.data(), state.sums.data() + at * value_width_, value_width_) /
                            state.weights[place(at)];
      }
    }
    const double largest = kernels::max_value(shares.data(), experts_);
    kernels::scale(shares.data(), 1 / kernels::exp_and_sum(shares.data(), shares.data(), 1, largest, experts_),
                   experts_);
    std::fill(out.begin(), out.end(), 0.0);
    for (std::int64_t h = to_output.first(g); h < to_output.end(g); ++h) {
      std::fill(read.begin(), read.end(), 0.0);
      for (std::int64_t i = 0; i < experts_; ++i) {
        const std::int64_t at = h * experts_ + i;
        kernels::axpy(read.data(), shares[place(i)] / state.weights[place(at)], state.sums.data() + at * value_width_,
                      value_width_);
      }
      for (std::int64_t c = 0; c < value_width_; ++c) {
        kernels::axpy(out.data(), read[place(c)], to_output.matrix + to_output.offset(h, g) + c * to_output.stride(),
                      output_width_);
      }
    }
    std::transform(out.begin(), out.end(), output.begin() + g * output_width_,
                   [](double x) { return static_cast<T>(x); });
  }
}

void DispatcherReader::step(DispatcherState& state, std::span<const float> key, std::span<const float> value,
                            std::span<const float> query, std::span<float> output) const {
  step_of(state, key, value, query, output);
}
void DispatcherReader::step(DispatcherState& state, std::span<const double> key, std::span<const double> value,
                            std::span<const double> query, std::span<double> output) const {
  step_of(state, key, value, query, output);
}

DispatcherState merge(const DispatcherState& a, const DispatcherState& b) {
  check_state(a);
  check_state(b);
  check<ShapeError>(a.heads == b.heads && a.experts == b.experts && a.value_width == b.value_width, "merge",
                    "needs states of equal sizes; got heads ", a.heads, " and ", b.heads, ", experts ", a.experts,
                    " and ", b.experts, ", value widths ", a.value_width, " and ", b.value_width);
  DispatcherState merged = a;
  merged.events += b.events;
  for (std::size_t i = 0; i < a.weights.size(); ++i) {
    merged.largest[i] = std::max(a.largest[i], b.largest[i]);
    const double of_a = factor_to(a.largest[i], merged.largest[i]), of_b = factor_to(b.largest[i], merged.largest[i]);
    merged.weights[i] = of_a * a.weights[i] + of_b * b.weights[i];
    double* sums = merged.sums.data() + static_cast<std::int64_t>(i) * a.value_width;
    kernels::scale(sums, of_a, a.value_width);
    kernels::axpy(sums, of_b, b.sums.data() + static_cast<std::int64_t>(i) * a.value_width, a.value_width);
  }
  return merged;
}

}  // namespace tally::ops
