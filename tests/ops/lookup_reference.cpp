#include <algorithm>
#include <cmath>

#include "tests/ops/references.h"

namespace tally::testing {
namespace {

/// The first row of the document that row `place` belongs to.
std::size_t document_begin(const std::vector<double>& bounds, double place) {
  std::size_t begin = 0;
  for (std::size_t d = 0; d + 1 < bounds.size(); ++d) {
    if (bounds[d] <= place && place < bounds[d + 1]) begin = static_cast<std::size_t>(bounds[d]);
  }
  return begin;
}

}  // namespace

void add_lookup_references(References& references) {
  references["softmax_lookup"] = [](std::span<const Tensor> in, const ops::OpOptions& options) -> std::vector<Tensor> {
    const std::vector<double> q = in[0].to_doubles(), keys = in[1].to_doubles(), values = in[2].to_doubles(),
                              places = in[3].to_doubles(), bounds = in[4].to_doubles();
    const auto width = static_cast<std::size_t>(in[0].dim(1)), columns = static_cast<std::size_t>(in[2].dim(1));
    const double scale = options.number("scale", 1);
    std::vector<double> out(places.size() * columns);
    for (std::size_t j = 0; j < places.size(); ++j) {
      const std::size_t begin = document_begin(bounds, places[j]), last = static_cast<std::size_t>(places[j]);
      std::vector<double> scores;
      for (std::size_t t = begin; t <= last; ++t) {
        double score = 0;
        for (std::size_t c = 0; c < width; ++c) score += scale * q[j * width + c] * keys[t * width + c];
        scores.push_back(score);
      }
      const double largest = *std::max_element(scores.begin(), scores.end());
      double sum = 0;
      for (const double score : scores) sum += std::exp(score - largest);
      for (std::size_t t = begin; t <= last; ++t) {
        const double weight = std::exp(scores[t - begin] - largest) / sum;
        for (std::size_t c = 0; c < columns; ++c) out[j * columns + c] += weight * values[t * columns + c];
      }
    }
    return {Tensor::from(out, {in[0].dim(0), in[2].dim(1)})};
  };
  // For every lookup, every row it sees, by the product of the decays in between.
  references["causal_lookup"] = [](std::span<const Tensor> in, const ops::OpOptions&) -> std::vector<Tensor> {
    const std::vector<double> q = in[0].to_doubles(), k = in[1].to_doubles(), v = in[2].to_doubles(),
                              places = in[5].to_doubles(), bounds = in[6].to_doubles();
    const std::vector<double> log_decay = in[3].defined() ? in[3].to_doubles() : std::vector<double>();
    const std::vector<double> gain = in[4].defined() ? in[4].to_doubles() : std::vector<double>();
    const auto width = static_cast<std::size_t>(in[0].dim(1)), columns = static_cast<std::size_t>(in[2].dim(1));
    std::vector<double> out(places.size() * columns);
    for (std::size_t j = 0; j < places.size(); ++j) {
      const std::size_t begin = document_begin(bounds, places[j]), last = static_cast<std::size_t>(places[j]);
      for (std::size_t t = begin; t <= last; ++t) {
        double weight = gain.empty() ? 1 : gain[t], product = 0;
        for (std::size_t u = t + 1; u <= last && !log_decay.empty(); ++u) weight *= std::exp(log_decay[u]);
        for (std::size_t c = 0; c < width; ++c) product += q[j * width + c] * k[t * width + c];
        for (std::size_t c = 0; c < columns; ++c) out[j * columns + c] += weight * product * v[t * columns + c];
      }
    }
    return {Tensor::from(out, {in[0].dim(0), in[2].dim(1)})};
  };
  // The recurrence itself, row by row, with whole matrices.
  references["outer_sums"] = [](std::span<const Tensor> in, const ops::OpOptions&) -> std::vector<Tensor> {
    const std::vector<double> f = in[0].to_doubles(), bounds = in[4].to_doubles();
    const auto optional = [&](std::size_t i) { return in[i].defined() ? in[i].to_doubles() : std::vector<double>(); };
    const std::vector<double> log_decay = optional(1), gain = optional(2), initial = optional(3);
    const auto width = static_cast<std::size_t>(in[0].dim(1)), packed = width * (width + 1) / 2;
    std::vector<double> out;
    for (std::size_t d = 0; d + 1 < bounds.size(); ++d) {
      std::vector<double> c(packed);
      for (std::size_t i = 0; i < packed && !initial.empty(); ++i) c[i] = initial[d * packed + i];
      for (auto t = static_cast<std::size_t>(bounds[d]); t < static_cast<std::size_t>(bounds[d + 1]); ++t) {
        std::size_t at = 0;
        for (std::size_t i = 0; i < width; ++i) {
          for (std::size_t j = 0; j <= i; ++j, ++at) {
            if (!log_decay.empty()) c[at] *= std::exp(log_decay[t]);
            c[at] += (gain.empty() ? 1 : gain[t]) * f[t * width + i] * f[t * width + j];
          }
        }
      }
      out.insert(out.end(), c.begin(), c.end());
    }
    return {Tensor::from(out, {in[4].dim(0) - 1, static_cast<std::int64_t>(packed)})};
  };
  references["symmetric_lookup"] = [](std::span<const Tensor> in, const ops::OpOptions&) -> std::vector<Tensor> {
    const std::vector<double> packed = in[0].to_doubles(), q = in[1].to_doubles(), bounds = in[2].to_doubles();
    const auto width = static_cast<std::size_t>(in[1].dim(1)), size = width * (width + 1) / 2;
    std::vector<double> out(q.size());
    for (std::size_t d = 0; d + 1 < bounds.size(); ++d) {
      for (auto row = static_cast<std::size_t>(bounds[d]); row < static_cast<std::size_t>(bounds[d + 1]); ++row) {
        for (std::size_t i = 0; i < width; ++i) {
          for (std::size_t j = 0; j < width; ++j) {
            const std::size_t high = std::max(i, j), low = std::min(i, j);
            out[row * width + i] += packed[d * size + high * (high + 1) / 2 + low] * q[row * width + j];
          }
        }
      }
    }
    return {Tensor::from(out, in[1].shape())};
  };
}

}  // namespace tally::testing
