#include "tally/ops/losses/sampled_scores.h"

#include <algorithm>

#include "tally/core/parallel.h"
#include "tally/ops/kernels/table_rows.h"

namespace tally::ops {
namespace {

// Scores of one block, and tokens at most.
constexpr std::int64_t kBlockScores = 4096;
constexpr std::int64_t kBlockTokens = 256;
// Elements of table rows that one block of the gradient sums.
constexpr std::int64_t kBlockElements = 1 << 14;

/// The uses of a table's rows, sorted by row and, within a row, in order of use.
struct Uses {
  std::vector<std::int64_t> rows;   // each row used, ascending
  std::vector<std::int64_t> first;  // where its uses begin in `order`; one more at the end
  std::vector<std::int64_t> order;  // positions in ids

  Uses(const Tensor& ids, std::int64_t items) {
    const auto id = ids.span<std::int64_t>();
    std::vector<std::int64_t> next(static_cast<std::size_t>(items + 1));
    for (const std::int64_t row : id) ++next[static_cast<std::size_t>(row + 1)];
    std::int64_t begin = 0;
    for (std::int64_t row = 0; row < items; ++row) {
      const std::int64_t uses = next[static_cast<std::size_t>(row + 1)];
      next[static_cast<std::size_t>(row)] = begin;
      if (uses > 0) {
        rows.push_back(row);
        first.push_back(begin);
      }
      begin += uses;
    }
    first.push_back(begin);
    order.resize(id.size());
    for (std::size_t i = 0; i < id.size(); ++i) {
      order[static_cast<std::size_t>(next[static_cast<std::size_t>(id[i])]++)] = static_cast<std::int64_t>(i);
    }
  }
};

}  // namespace

RowGrad SampledScores::table_gradient(const Tensor& x, const Shape& table) const {
  const Uses uses(ids, table[0]);
  const auto distinct = static_cast<std::int64_t>(uses.rows.size());
  const std::int64_t width = table[1], samples = ids.dim(1);
  RowGrad gradient{Tensor::from(uses.rows, {distinct}), Tensor::zeros({distinct, width}, x.dtype()), table};
  const Tensor source = x.contiguous();
  dispatch_floating(x.dtype(), "sampled scores", [&]<class T>(T) {
    const T *slope = slopes.data<T>(), *px = source.data<T>();
    T* out = gradient.values.mutable_data<T>();
    const std::int64_t grain = std::max<std::int64_t>(1, kBlockElements / std::max<std::int64_t>(width, 1));
    parallel_for(distinct, grain, [&](std::int64_t begin, std::int64_t end) {
      const std::int64_t from = uses.first[static_cast<std::size_t>(begin)];
      const std::int64_t to = uses.first[static_cast<std::size_t>(end)];
      std::vector<T> factors(static_cast<std::size_t>(to - from));
      std::vector<std::int64_t> of(factors.size());
      for (std::size_t i = 0; i < of.size(); ++i) {
        const std::int64_t use = uses.order[static_cast<std::size_t>(from) + i];
        factors[i] = slope[use];
        of[i] = tokens[static_cast<std::size_t>(use / samples)];
      }
      for (std::int64_t k = begin; k < end; ++k) {
        const std::int64_t first = uses.first[static_cast<std::size_t>(k)];
        const std::int64_t count = uses.first[static_cast<std::size_t>(k + 1)] - first;
        kernels::add_weighted_rows(out + k * width, factors.data() + first - from, px, of.data() + first - from, count,
                                   width);
      }
    });
  });
  return gradient;
}

Tensor positives_and_negatives(const LossTokens& counted, const Tensor& negatives) {
  const std::int64_t samples = negatives.dim(1);
  Tensor ids({counted.count(), 1 + samples}, DType::i64);
  std::int64_t* out = ids.mutable_data<std::int64_t>();
  const std::int64_t* negative = negatives.data<std::int64_t>();
  for (std::int64_t c = 0; c < counted.count(); ++c) {
    *out++ = counted.targets[static_cast<std::size_t>(c)];
    out = std::copy_n(negative + counted.tokens[static_cast<std::size_t>(c)] * samples, samples, out);
  }
  return ids;
}

template <class T>
double sum_sampled_losses(const Tensor& x, const Tensor& table, SampledScores& scores, Tensor& dx,
                          const SampledLoss<T>& loss) {
  const Tensor source = x.contiguous(), items = table.contiguous();
  const T *px = source.data<T>(), *pe = items.data<T>();
  const std::int64_t* id = scores.ids.data<std::int64_t>();
  T* slopes = scores.slopes.defined() ? scores.slopes.mutable_data<T>() : nullptr;
  T* pdx = dx.defined() ? dx.mutable_data<T>() : nullptr;
  const std::int64_t counted = scores.ids.dim(0), samples = scores.ids.dim(1), width = x.dim(1);
  const std::int64_t grain = std::clamp<std::int64_t>(kBlockScores / samples, 1, kBlockTokens);
  return parallel_reduce(
      counted, grain, 0.0,
      [&](std::int64_t begin, std::int64_t end) {
        std::vector<T> scratch(slopes == nullptr ? static_cast<std::size_t>((end - begin) * samples) : 0);
        T* block = slopes == nullptr ? scratch.data() : slopes + begin * samples;
        const auto row = [&](std::int64_t c) { return scores.tokens[static_cast<std::size_t>(c)] * width; };
        for (std::int64_t c = begin; c < end; ++c) {
          kernels::dot_rows(block + (c - begin) * samples, px + row(c), pe, id + c * samples, samples, width);
        }
        const double sum = loss(begin, end - begin, block, slopes != nullptr || pdx != nullptr);
        for (std::int64_t c = begin; pdx != nullptr && c < end; ++c) {
          kernels::add_weighted_rows(pdx + row(c), block + (c - begin) * samples, pe, id + c * samples, samples, width);
        }
        return sum;
      },
      [](double a, double b) { return a + b; });
}

template double sum_sampled_losses<float>(const Tensor&, const Tensor&, SampledScores&, Tensor&,
                                          const SampledLoss<float>&);
template double sum_sampled_losses<double>(const Tensor&, const Tensor&, SampledScores&, Tensor&,
                                           const SampledLoss<double>&);

}  // namespace tally::ops
