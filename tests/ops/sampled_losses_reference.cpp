#include <cmath>

#include "tests/ops/references.h"

namespace tally::testing {
namespace {

/// Score of a token with an item, by the definition.
double score(const Tensor& x, const Tensor& table, std::int64_t token, std::int64_t item) {
  double sum = 0;
  for (std::int64_t d = 0; d < x.dim(1); ++d) {
    sum += x.data<double>()[token * x.dim(1) + d] * table.data<double>()[item * x.dim(1) + d];
  }
  return sum;
}

std::vector<double> doubles_or(const Tensor& tensor, std::int64_t count, double otherwise) {
  return tensor.defined() ? tensor.to_doubles() : std::vector<double>(static_cast<std::size_t>(count), otherwise);
}

/// log(1 + exp(z)), without overflow.
double softplus(double z) { return z > 30 ? z + std::exp(-z) : std::log1p(std::exp(z)); }

}  // namespace

void add_binary_cross_entropy_references(References& references) {
  references["binary_cross_entropy"] = [](std::span<const Tensor> in,
                                          const ops::OpOptions& options) -> std::vector<Tensor> {
    const std::int64_t tokens = in[0].dim(0), samples = in[3].dim(1);
    const std::vector<double> positives = in[2].to_doubles(), negatives = in[3].to_doubles();
    const std::vector<double> weights = doubles_or(in[4], tokens, 1);
    double loss = 0;
    for (std::int64_t t = 0; t < tokens; ++t) {
      const auto at = static_cast<std::size_t>(t);
      if (positives[at] < 0) continue;
      double token = options.number("positive_power", 1) *
                     softplus(-score(in[0], in[1], t, static_cast<std::int64_t>(positives[at])));
      for (std::int64_t k = 0; k < samples; ++k) {
        token += softplus(
            score(in[0], in[1], t, static_cast<std::int64_t>(negatives[static_cast<std::size_t>(t * samples + k)])));
      }
      loss += weights[at] *
              (options.flag("average_over_samples", false) ? token / static_cast<double>(1 + samples) : token);
    }
    return {Tensor::scalar(loss * options.number("reduction_scale", 1), DType::f64)};
  };
  references["binary_cross_entropy_with_logits"] = [](std::span<const Tensor> in,
                                                      const ops::OpOptions& options) -> std::vector<Tensor> {
    const std::vector<double> z = in[0].to_doubles(), y = in[1].to_doubles();
    double loss = 0;
    for (std::size_t i = 0; i < z.size(); ++i) loss += y[i] * softplus(-z[i]) + (1 - y[i]) * softplus(z[i]);
    return {Tensor::scalar(loss * options.number("reduction_scale", 1), DType::f64)};
  };
}

void add_sampled_softmax_references(References& references) {
  references["sampled_softmax"] = [](std::span<const Tensor> in, const ops::OpOptions& options) -> std::vector<Tensor> {
    const std::int64_t tokens = in[0].dim(0), samples = in[3].dim(-1);
    const bool shared = in[3].rank() == 1;
    const std::vector<double> positives = in[2].to_doubles(), negatives = in[3].to_doubles();
    const std::vector<double> log_q_positives = doubles_or(in[4], tokens, 0);
    const std::vector<double> log_q_negatives = doubles_or(in[5], in[3].numel(), 0);
    const std::vector<double> weights = doubles_or(in[6], tokens, 1);
    double loss = 0;
    for (std::int64_t t = 0; t < tokens; ++t) {
      const auto at = static_cast<std::size_t>(t);
      if (positives[at] < 0) continue;
      std::vector<double> scores{score(in[0], in[1], t, static_cast<std::int64_t>(positives[at])) -
                                 log_q_positives[at]};
      for (std::int64_t k = 0; k < samples; ++k) {
        const auto drawn = static_cast<std::size_t>(shared ? k : t * samples + k);
        if (options.flag("remove_accidental_hits", true) && negatives[drawn] == positives[at]) continue;
        scores.push_back(score(in[0], in[1], t, static_cast<std::int64_t>(negatives[drawn])) - log_q_negatives[drawn]);
      }
      double largest = scores[0], sum = 0;
      for (const double s : scores) largest = std::max(largest, s);
      for (const double s : scores) sum += std::exp(s - largest);
      loss += weights[at] * (largest + std::log(sum) - scores[0]);
    }
    return {Tensor::scalar(loss * options.number("reduction_scale", 1), DType::f64)};
  };
}

}  // namespace tally::testing
