#include <algorithm>
#include <cmath>
#include <limits>

#include "tests/ops/references.h"

namespace tally::testing {
namespace {

constexpr double kHidden = -std::numeric_limits<double>::infinity();

/// A table over (sequence, head, query, key), where a size of 1 stands for all.
double table_at(const Tensor& table, const std::vector<double>& values, std::size_t n, std::size_t h, std::size_t i,
                std::size_t j) {
  std::size_t at = 0;
  const std::size_t place[4] = {n, h, i, j};
  for (int d = 0; d < 4; ++d) {
    const auto size = static_cast<std::size_t>(table.dim(d));
    at = at * size + (size == 1 ? 0 : place[d]);
  }
  return values[at];
}

/// Scores at a stage (0 products, 1 capped, 2 biased, 3 probabilities), and what they make of values, if any.
std::vector<Tensor> general_attention(const Tensor& q_rows, const Tensor& k_rows, const Tensor* v_rows,
                                      std::span<const Tensor> more, const ops::OpOptions& options, int stage) {
  const std::vector<double> q = q_rows.to_doubles(), k = k_rows.to_doubles(),
                            v = v_rows != nullptr ? v_rows->to_doubles() : std::vector<double>{};
  const std::vector<double> bounds = more[0].to_doubles(), key_bounds = more[1].to_doubles();
  const Tensor &bias = more[2], &visible = more[3], &starts = more[4];
  const auto numbers = [](const Tensor& x) { return x.defined() ? x.to_doubles() : std::vector<double>{}; };
  const std::vector<double> biases = numbers(bias), shown = numbers(visible), first = numbers(starts);
  const auto heads = static_cast<std::size_t>(options.integer("heads", 1));
  const auto of_keys = static_cast<std::size_t>(options.integer("key_heads", 0));
  const std::size_t key_heads = of_keys == 0 ? heads : of_keys;
  const auto columns = static_cast<std::size_t>(q_rows.dim(1)), key_columns = static_cast<std::size_t>(k_rows.dim(1)),
             value_columns = static_cast<std::size_t>(v_rows != nullptr ? v_rows->dim(1) : 0);
  const std::size_t d = columns / heads, e = value_columns / key_heads;
  const double scale =
      options.number("scale", 0) != 0 ? options.number("scale", 0) : 1 / std::sqrt(static_cast<double>(d));
  const double cap = options.number("soft_cap", 0);
  const auto left = static_cast<double>(options.integer("left_window", -1)),
             right = static_cast<double>(options.integer("right_window", -1));
  const bool causal = options.text("mask", "causal") == "causal";

  std::vector<double> scores, out(static_cast<std::size_t>(q_rows.dim(0)) * heads * e, 0.0);
  for (std::size_t n = 0; n + 1 < bounds.size(); ++n) {
    const auto begin = static_cast<std::size_t>(bounds[n]), end = static_cast<std::size_t>(bounds[n + 1]),
               key_begin = static_cast<std::size_t>(key_bounds[n]),
               key_end = static_cast<std::size_t>(key_bounds[n + 1]);
    for (std::size_t h = 0; h < heads; ++h) {
      const std::size_t key_head = h / (heads / key_heads);
      for (std::size_t i = 0; i < end - begin; ++i) {
        const double place = static_cast<double>(i) + (starts.defined() ? first[n] : 0);
        std::vector<double> row(key_end - key_begin);
        for (std::size_t j = 0; j < row.size(); ++j) {
          for (std::size_t c = 0; c < d; ++c)
            row[j] += q[(begin + i) * columns + h * d + c] * k[(key_begin + j) * key_columns + key_head * d + c];
          row[j] *= scale;
          if (stage >= 1 && cap > 0) row[j] = cap * std::tanh(row[j] / cap);
          if (stage < 2) continue;
          if (bias.defined()) row[j] += table_at(bias, biases, n, h, i, j);
          const double key = static_cast<double>(j);
          const bool seen = (!causal || key <= place) && (left < 0 || key >= place - left) &&
                            (right < 0 || key <= place + right) &&
                            (!visible.defined() || table_at(visible, shown, n, h, i, j) != 0);
          if (!seen) row[j] = kHidden;
        }
        const double largest = row.empty() ? kHidden : *std::max_element(row.begin(), row.end());
        if (stage == 3) {
          double sum = 0;
          for (double& each : row) sum += each = largest == kHidden ? 0 : std::exp(each - largest);
          for (double& each : row) each = sum == 0 ? 0 : each / sum;
        }
        for (std::size_t j = 0; j < row.size(); ++j) {
          for (std::size_t c = 0; c < e; ++c) {
            out[((begin + i) * heads + h) * e + c] += row[j] * v[(key_begin + j) * value_columns + key_head * e + c];
          }
        }
        scores.insert(scores.end(), row.begin(), row.end());
      }
    }
  }
  if (v_rows == nullptr) return {Tensor::from(scores, {static_cast<std::int64_t>(scores.size())})};
  return {Tensor::from(out, {q_rows.dim(0), static_cast<std::int64_t>(heads * e)})};
}

}  // namespace

void add_scaled_dot_product_references(References& references) {
  references["scaled_dot_product_attention"] = [](std::span<const Tensor> in, const ops::OpOptions& options) {
    return general_attention(in[0], in[1], &in[2], in.subspan(3), options, 3);
  };
  references["attention_scores"] = [](std::span<const Tensor> in, const ops::OpOptions& options) {
    const std::string stage = options.text("stage", "probabilities");
    const int steps = stage == "products" ? 0 : stage == "capped" ? 1 : stage == "biased" ? 2 : 3;
    return general_attention(in[0], in[1], nullptr, in.subspan(2), options, steps);
  };
}

}  // namespace tally::testing
