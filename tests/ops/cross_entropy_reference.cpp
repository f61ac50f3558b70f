#include <algorithm>
#include <cmath>

#include "tests/ops/references.h"

namespace tally::testing {
namespace {

/// Losses of targets [N, ...] by scores [N, C, ...], place by place; `softmax` says whether the scores are logits.
std::vector<Tensor> losses(std::span<const Tensor> in, const ops::OpOptions& options, bool softmax) {
  const std::vector<double> scores = in[0].to_doubles(), targets = in[1].to_doubles();
  const auto classes = static_cast<std::size_t>(in[0].dim(1));
  std::size_t inner = 1;
  for (int d = 2; d < in[0].rank(); ++d) inner *= static_cast<std::size_t>(in[0].dim(d));
  const auto ignored = static_cast<double>(options.integer("ignore_index", -1));
  std::vector<double> each(targets.size());
  long double total = 0, weights = 0;
  for (std::size_t t = 0; t < targets.size(); ++t) {
    if (targets[t] == ignored) continue;
    const auto score = [&](std::size_t c) { return scores[(t / inner * classes + c) * inner + t % inner]; };
    long double normaliser = 0;
    if (softmax) {
      long double largest = score(0), sum = 0;
      for (std::size_t c = 1; c < classes; ++c) largest = std::max<long double>(largest, score(c));
      for (std::size_t c = 0; c < classes; ++c) sum += std::exp(score(c) - largest);
      normaliser = largest + std::log(sum);
    }
    const auto target = static_cast<std::size_t>(targets[t]);
    const long double weight = in[2].defined() ? in[2].to_doubles()[target] : 1;
    const long double loss = weight * (normaliser - score(target));
    each[t] = static_cast<double>(loss);
    total += loss;
    weights += weight;
  }
  const std::string reduction = options.text("reduction", "mean");
  if (reduction == "none") return {Tensor::from(each, in[1].shape())};
  if (reduction == "mean" && weights != 0) total /= weights;
  return {Tensor::scalar(static_cast<double>(total), DType::f64)};
}

}  // namespace

void add_cross_entropy_references(References& references) {
  references["cross_entropy"] = [](std::span<const Tensor> in, const ops::OpOptions& options) {
    return losses(in, options, true);
  };
  references["negative_log_likelihood"] = [](std::span<const Tensor> in, const ops::OpOptions& options) {
    return losses(in, options, false);
  };
}

}  // namespace tally::testing
