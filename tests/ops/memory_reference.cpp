#include <algorithm>
#include <cmath>
#include <numeric>

#include "tests/ops/references.h"

namespace tally::testing {
namespace {

/// Scores and slots by looking at every slot.
struct Choice {
  std::vector<double> scores;
  std::vector<std::int64_t> slots;
};

Choice choose(const Tensor& queries, const Tensor& keys, const ops::OpOptions& options) {
  const std::vector<double> q = queries.to_doubles(), c = keys.to_doubles();
  const auto heads = static_cast<std::size_t>(options.integer("heads", 1)),
             chosen = static_cast<std::size_t>(options.integer("slots", 32));
  const auto n = static_cast<std::size_t>(keys.dim(2)), w = static_cast<std::size_t>(keys.dim(3));
  Choice choice;
  for (std::size_t part = 0; part < static_cast<std::size_t>(queries.dim(0)) * heads; ++part) {
    std::vector<double> of[2];
    std::vector<std::size_t> rank[2];
    for (std::size_t half = 0; half < 2; ++half) {
      const std::size_t table = part % heads * 2 + half;
      for (std::size_t i = 0; i < n; ++i) {
        double score = 0;
        for (std::size_t j = 0; j < w; ++j) score += q[(part * 2 + half) * w + j] * c[(table * n + i) * w + j];
        of[half].push_back(score);
      }
      std::vector<std::size_t> order(n);
      std::iota(order.begin(), order.end(), std::size_t{0});
      std::stable_sort(order.begin(), order.end(),
                       [&](std::size_t a, std::size_t b) { return of[half][a] > of[half][b]; });
      rank[half].resize(n);
      for (std::size_t i = 0; i < n; ++i) rank[half][order[i]] = i;
    }
    std::vector<std::size_t> slots(n * n);
    std::iota(slots.begin(), slots.end(), std::size_t{0});
    const auto score = [&](std::size_t slot) { return of[0][slot / n] + of[1][slot % n]; };
    std::sort(slots.begin(), slots.end(), [&](std::size_t x, std::size_t y) {
      if (score(x) != score(y)) return score(x) > score(y);
      if (x / n != y / n) return rank[0][x / n] < rank[0][y / n];
      return rank[1][x % n] < rank[1][y % n];
    });
    for (std::size_t j = 0; j < chosen; ++j) {
      choice.scores.push_back(score(slots[j]));
      choice.slots.push_back(static_cast<std::int64_t>(slots[j]));
    }
  }
  return choice;
}

Shape shape_of_choice(const Tensor& queries, const ops::OpOptions& options) {
  return {queries.dim(0), options.integer("heads", 1), options.integer("slots", 32)};
}

}  // namespace

void add_memory_references(References& references) {
  references["product_keys"] = [](std::span<const Tensor> in, const ops::OpOptions& options) -> std::vector<Tensor> {
    const Choice choice = choose(in[0], in[1], options);
    const Shape shape = shape_of_choice(in[0], options);
    return {Tensor::from(choice.scores, shape), Tensor::from(choice.slots, shape)};
  };
  references["embedding_bag"] = [](std::span<const Tensor> in, const ops::OpOptions&) -> std::vector<Tensor> {
    const std::vector<double> table = in[0].to_doubles(), index = in[1].to_doubles(), weights = in[2].to_doubles();
    const auto width = static_cast<std::size_t>(in[0].dim(1)), size = static_cast<std::size_t>(in[1].dim(1));
    std::vector<double> out(static_cast<std::size_t>(in[1].dim(0)) * width);
    for (std::size_t p = 0; p < index.size(); ++p) {
      for (std::size_t c = 0; c < width; ++c)
        out[p / size * width + c] += weights[p] * table[static_cast<std::size_t>(index[p]) * width + c];
    }
    return {Tensor::from(out, {in[1].dim(0), in[0].dim(1)})};
  };
  references["product_key_memory"] = [](std::span<const Tensor> in,
                                        const ops::OpOptions& options) -> std::vector<Tensor> {
    const Choice choice = choose(in[0], in[1], options);
    const std::vector<double> values = in[2].to_doubles();
    const std::vector<double> gate = in[3].defined() ? in[3].to_doubles() : std::vector<double>();
    const auto width = static_cast<std::size_t>(in[2].dim(1)),
               chosen = static_cast<std::size_t>(options.integer("slots", 32)),
               all = chosen * static_cast<std::size_t>(options.integer("heads", 1));
    std::vector<double> weights = choice.scores;
    const std::string kind = options.text("weights", "softmax"), gates = options.text("gate", "none");
    for (std::size_t p = 0; p < weights.size(); p += chosen) {
      double sum = 0;
      for (std::size_t j = p; j < p + chosen; ++j) sum += std::exp(choice.scores[j]);
      for (std::size_t j = p; j < p + chosen; ++j) {
        if (kind == "sigmoid") {
          weights[j] = 1 / (1 + std::exp(-choice.scores[j]));
        } else {
          weights[j] = std::exp(choice.scores[j]) / sum * (kind == "softmax" ? 1 : static_cast<double>(chosen));
        }
      }
    }
    const bool separate = options.text("output", "pooled") == "rows";
    const std::int64_t rows = in[0].dim(0);
    std::vector<double> out((separate ? weights.size() : static_cast<std::size_t>(rows)) * width);
    for (std::size_t p = 0; p < weights.size(); ++p) {
      for (std::size_t c = 0; c < width; ++c) {
        double factor = weights[p];
        if (gates == "scalar") factor /= 1 + std::exp(-gate[p / all]);
        if (gates == "swilu") {
          const double logit = gate[p / all * width + c];
          factor *= logit / (1 + std::exp(-logit));
        }
        out[(separate ? p : p / all) * width + c] +=
            factor * values[static_cast<std::size_t>(choice.slots[p]) * width + c];
      }
    }
    const Shape shape = shape_of_choice(in[0], options);
    return {separate ? Tensor::from(out, {rows, static_cast<std::int64_t>(all), in[2].dim(1)})
                     : Tensor::from(out, {rows, in[2].dim(1)}),
            Tensor::from(weights, shape), Tensor::from(choice.slots, shape)};
  };
}

}  // namespace tally::testing
