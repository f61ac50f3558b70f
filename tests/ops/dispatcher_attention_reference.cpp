#include <algorithm>
#include <cmath>

#include "tests/ops/references.h"

namespace tally::testing {
namespace {

using Matrix = std::vector<std::vector<double>>;

Matrix matrix_of(const Tensor& x, std::int64_t rows, std::int64_t columns) {
  const std::vector<double> values = x.to_doubles();
  Matrix result(static_cast<std::size_t>(rows), std::vector<double>(static_cast<std::size_t>(columns)));
  for (std::size_t i = 0; i < result.size(); ++i) {
    for (std::size_t j = 0; j < result[i].size(); ++j) result[i][j] = values[i * static_cast<std::size_t>(columns) + j];
  }
  return result;
}

Matrix product(const Matrix& a, const Matrix& b) {
  Matrix result(a.size(), std::vector<double>(b.empty() ? 0 : b[0].size()));
  for (std::size_t i = 0; i < a.size(); ++i) {
    for (std::size_t l = 0; l < b.size(); ++l) {
      for (std::size_t j = 0; j < b[l].size(); ++j) result[i][j] += a[i][l] * b[l][j];
    }
  }
  return result;
}

/// The projection as one matrix: blocks on the diagonal where heads have their own.
Matrix projection_of(const Tensor& x, std::int64_t heads) {
  if (x.rank() == 2) return matrix_of(x, x.dim(0), x.dim(1));
  const std::vector<double> values = x.to_doubles();
  const auto from = static_cast<std::size_t>(x.dim(1)), to = static_cast<std::size_t>(x.dim(2));
  Matrix result(static_cast<std::size_t>(heads) * from, std::vector<double>(static_cast<std::size_t>(heads) * to));
  for (std::size_t h = 0; h < static_cast<std::size_t>(heads); ++h) {
    for (std::size_t i = 0; i < from; ++i) {
      for (std::size_t j = 0; j < to; ++j) result[h * from + i][h * to + j] = values[(h * from + i) * to + j];
    }
  }
  return result;
}

/// Softmax attention of rows of q over rows of k, head by head.
Matrix attend(const Matrix& q, const Matrix& k, const Matrix& v, std::size_t heads, double scale) {
  if (k.empty()) return {};
  const std::size_t d = k[0].size() / heads, e = v[0].size() / heads;
  if (scale == 0) scale = 1 / std::sqrt(static_cast<double>(d));
  Matrix result(q.size(), std::vector<double>(v[0].size()));
  for (std::size_t i = 0; i < q.size(); ++i) {
    for (std::size_t h = 0; h < heads; ++h) {
      std::vector<double> scores(k.size());
      for (std::size_t j = 0; j < k.size(); ++j) {
        for (std::size_t c = h * d; c < (h + 1) * d; ++c) scores[j] += scale * q[i][c] * k[j][c];
      }
      const double largest = *std::max_element(scores.begin(), scores.end());
      double sum = 0;
      for (double& score : scores) sum += score = std::exp(score - largest);
      for (std::size_t j = 0; j < k.size(); ++j) {
        for (std::size_t c = h * e; c < (h + 1) * e; ++c) result[i][c] += scores[j] / sum * v[j][c];
      }
    }
  }
  return result;
}

/// The layer on one sequence, or on each of its prefixes (`causal`): rows, and the experts of the whole.
struct Layer {
  Matrix rows, experts;
};

struct Inputs {
  Matrix keys, values, queries, key_projection, value_projection;
  std::size_t heads;
  double scale;
};

Layer layer(const Matrix& expert_queries, const Inputs& in, std::size_t begin, std::size_t end, bool causal) {
  const auto rows = [](const Matrix& x, std::size_t from, std::size_t to) {
    return Matrix(x.begin() + static_cast<std::ptrdiff_t>(from), x.begin() + static_cast<std::ptrdiff_t>(to));
  };
  Layer result;
  for (std::size_t t = causal ? begin + 1 : end; t <= end; ++t) {
    result.experts = attend(expert_queries, rows(in.keys, begin, t), rows(in.values, begin, t), in.heads, in.scale);
    if (begin == end) break;
    const Matrix read = attend(rows(in.queries, causal ? t - 1 : begin, t), product(result.experts, in.key_projection),
                               product(result.experts, in.value_projection), in.heads, in.scale);
    result.rows.insert(result.rows.end(), read.begin(), read.end());
  }
  return result;
}

Layer reference(std::span<const Tensor> in, const ops::OpOptions& options, bool causal) {
  const std::int64_t heads = options.integer("heads", 1);
  const Inputs inputs{matrix_of(in[1], in[1].dim(0), in[1].dim(1)),
                      matrix_of(in[2], in[2].dim(0), in[2].dim(1)),
                      matrix_of(in[3], in[3].dim(0), in[3].dim(1)),
                      projection_of(in[4], heads),
                      projection_of(in[5], heads),
                      static_cast<std::size_t>(heads),
                      options.number("scale", 0)};
  const std::int64_t experts = in[0].dim(-2), columns = in[0].dim(-1);
  const Matrix all_experts = matrix_of(in[0], columns == 0 ? 0 : in[0].numel() / columns, columns);
  const std::vector<double> bounds = in[6].to_doubles();
  Layer result;
  for (std::size_t s = 0; s + 1 < bounds.size(); ++s) {
    const auto first = static_cast<std::ptrdiff_t>(in[0].rank() == 3 ? s : 0) * experts;
    const Matrix experts_of_sequence(all_experts.begin() + first, all_experts.begin() + first + experts);
    Layer part = layer(experts_of_sequence, inputs, static_cast<std::size_t>(bounds[s]),
                       static_cast<std::size_t>(bounds[s + 1]), causal);
    if (part.experts.empty())
      part.experts.assign(experts_of_sequence.size(), std::vector<double>(static_cast<std::size_t>(in[2].dim(1))));
    result.rows.insert(result.rows.end(), part.rows.begin(), part.rows.end());
    result.experts.insert(result.experts.end(), part.experts.begin(), part.experts.end());
  }
  return result;
}

Tensor tensor_of(const Matrix& x, const Shape& shape) {
  std::vector<double> flat;
  for (const std::vector<double>& row : x) flat.insert(flat.end(), row.begin(), row.end());
  return Tensor::from(flat, shape);
}

std::int64_t output_columns(std::span<const Tensor> in, const ops::OpOptions& options) {
  return in[5].dim(-1) * (in[5].rank() == 3 ? options.integer("heads", 1) : 1);
}

}  // namespace

void add_dispatcher_attention_references(References& references) {
  references["dispatcher_attention"] = [](std::span<const Tensor> in,
                                          const ops::OpOptions& options) -> std::vector<Tensor> {
    const Layer result = reference(in, options, false);
    return {tensor_of(result.rows, {in[1].dim(0), output_columns(in, options)}),
            tensor_of(result.experts, {in[6].numel() - 1, in[0].dim(-2), in[2].dim(1)})};
  };
  // The same layer on every prefix.
  references["causal_dispatcher_attention"] = [](std::span<const Tensor> in,
                                                 const ops::OpOptions& options) -> std::vector<Tensor> {
    return {tensor_of(reference(in, options, true).rows, {in[1].dim(0), output_columns(in, options)})};
  };
}

}  // namespace tally::testing
