#include <algorithm>

#include "tests/ops/references.h"

namespace tally::testing {
namespace {

using Index = std::vector<std::int64_t>;

/// An operand by NumPy's rules: a vector as a row or a column, batch dimensions of size 1 repeated.
struct Operand {
  Operand(const Tensor& x, bool first, bool transposed)
      : sizes(x.shape().begin(), x.shape().end()), flipped(transposed) {
    if (sizes.size() == 1) sizes.insert(first ? sizes.begin() : sizes.end(), 1);
    values = x.to_doubles();
  }
  std::size_t batch_rank() const { return sizes.size() - 2; }
  std::int64_t rows() const { return sizes[sizes.size() - (flipped ? 1 : 2)]; }
  std::int64_t columns() const { return sizes[sizes.size() - (flipped ? 2 : 1)]; }
  double at(const Index& batch, std::int64_t row, std::int64_t column) const {
    std::int64_t position = 0;
    for (std::size_t d = 0; d < batch_rank(); ++d) {
      position = position * sizes[d] + (sizes[d] == 1 ? 0 : batch[batch.size() - batch_rank() + d]);
    }
    if (flipped) std::swap(row, column);
    position = (position * sizes[sizes.size() - 2] + row) * sizes.back() + column;
    return values[static_cast<std::size_t>(position)];
  }

  Index sizes;
  bool flipped;
  std::vector<double> values;
};

}  // namespace

void add_matmul_references(References& references) {
  references["matmul"] = [](std::span<const Tensor> in, const ops::OpOptions& options) -> std::vector<Tensor> {
    const Operand a(in[0], true, options.flag("transpose_a", false)),
        b(in[1], false, options.flag("transpose_b", false));
    Index batch(std::max(a.batch_rank(), b.batch_rank()), 1);
    for (const Operand* each : {&a, &b}) {
      for (std::size_t d = 0; d < each->batch_rank(); ++d) {
        std::int64_t& size = batch[batch.size() - each->batch_rank() + d];
        if (each->sizes[d] != 1) size = each->sizes[d];
      }
    }
    Index shape = batch;
    if (in[0].rank() > 1) shape.push_back(a.rows());
    if (in[1].rank() > 1) shape.push_back(b.columns());
    std::vector<double> c;
    const std::int64_t count = Shape(std::span<const std::int64_t>(batch)).numel();
    for (std::int64_t s = 0; s < count; ++s) {
      Index place(batch.size());
      std::int64_t rest = s;
      for (std::size_t d = batch.size(); d-- > 0;) {
        place[d] = rest % batch[d];
        rest /= batch[d];
      }
      for (std::int64_t i = 0; i < a.rows(); ++i) {
        for (std::int64_t j = 0; j < b.columns(); ++j) {
          double sum = 0;
          for (std::int64_t l = 0; l < a.columns(); ++l) sum += a.at(place, i, l) * b.at(place, l, j);
          c.push_back(sum);
        }
      }
    }
    return {Tensor::from(c, Shape(std::span<const std::int64_t>(shape)))};
  };
}

}  // namespace tally::testing
