#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>

#include "tests/ops/references.h"

namespace tally::testing {
namespace {

/// Collects the elements that go into each result and reduces them with `f`.
Reference reduction(std::function<double(const std::vector<double>&)> f) {
  return [f](std::span<const Tensor> in, const ops::OpOptions& options) -> std::vector<Tensor> {
    const Tensor& x = in[0];
    std::vector<bool> reduced(static_cast<std::size_t>(x.rank()), options.integers("dims", {}).empty());
    for (const std::int64_t dim : options.integers("dims", {})) {
      reduced[static_cast<std::size_t>(dim < 0 ? dim + x.rank() : dim)] = true;
    }
    std::vector<std::int64_t> sizes, shape;
    for (int d = 0; d < x.rank(); ++d) {
      const bool gone = reduced[static_cast<std::size_t>(d)];
      sizes.push_back(gone ? 1 : x.dim(d));
      if (!gone || options.flag("keepdims", false)) shape.push_back(sizes.back());
    }
    const Shape result_shape{std::span<const std::int64_t>(shape)};
    std::vector<std::vector<double>> groups(static_cast<std::size_t>(result_shape.numel()));
    const std::vector<double> values = x.to_doubles();
    for (std::size_t i = 0; i < values.size(); ++i) {
      auto rest = static_cast<std::int64_t>(i);
      std::int64_t group = 0, step = 1;
      for (int d = x.rank() - 1; d >= 0; --d) {
        const std::int64_t position = rest % x.dim(d);
        rest /= x.dim(d);
        if (reduced[static_cast<std::size_t>(d)]) continue;
        group += position * step;
        step *= x.dim(d);
      }
      groups[static_cast<std::size_t>(group)].push_back(values[i]);
    }
    std::vector<double> result;
    for (const std::vector<double>& group : groups) result.push_back(f(group));
    return {Tensor::from(result, result_shape)};
  };
}

/// Where the first element stands that no other along the dimension comes before; NaN comes before every number.
Reference place(std::function<bool(double, double)> before) {
  return [before](std::span<const Tensor> in, const ops::OpOptions& options) -> std::vector<Tensor> {
    const Tensor& x = in[0];
    const std::int64_t dim = options.integer("dim", -1);
    const int axis = static_cast<int>(dim < 0 ? dim + x.rank() : dim);
    Shape shape = x.shape();
    shape.set(axis, 1);
    std::int64_t inner = 1;
    for (int d = axis + 1; d < x.rank(); ++d) inner *= x.dim(d);
    const std::vector<double> values = x.to_doubles();
    std::vector<std::int64_t> where;
    for (std::int64_t i = 0; i < shape.numel(); ++i) {
      std::int64_t best = 0;
      const auto value = [&](std::int64_t j) {
        return values[static_cast<std::size_t>((i / inner * x.dim(axis) + j) * inner + i % inner)];
      };
      for (std::int64_t j = 1; j < x.dim(axis); ++j) {
        if (std::isnan(value(best))) break;
        if (std::isnan(value(j)) || before(value(j), value(best))) best = j;
      }
      where.push_back(best);
    }
    return {Tensor::from(where, options.flag("keepdims", false) ? shape : shape.without(axis))};
  };
}

double total(const std::vector<double>& values) { return std::accumulate(values.begin(), values.end(), 0.0); }

}  // namespace

void add_reduce_references(References& references) {
  references["sum"] = reduction(total);
  references["mean"] = reduction([](const std::vector<double>& v) { return total(v) / static_cast<double>(v.size()); });
  references["max"] = reduction([](const std::vector<double>& v) { return *std::max_element(v.begin(), v.end()); });
  references["min"] = reduction([](const std::vector<double>& v) { return *std::min_element(v.begin(), v.end()); });
  references["argmax"] = place(std::greater<>());
  references["argmin"] = place(std::less<>());
  references["cumulative_sum"] = [](std::span<const Tensor> in, const ops::OpOptions& options) -> std::vector<Tensor> {
    const Tensor& x = in[0];
    const auto dim = static_cast<int>(options.integer("dim", 0));
    std::vector<double> values = x.to_doubles();
    std::int64_t step = 1;
    for (int d = dim < 0 ? dim + x.rank() + 1 : dim + 1; d < x.rank(); ++d) step *= x.dim(d);
    for (std::size_t i = 0; i < values.size(); ++i) {
      const bool first = static_cast<std::int64_t>(i) / step % x.dim(dim) == 0;
      if (!first) values[i] += values[i - static_cast<std::size_t>(step)];
    }
    return {Tensor::from(values, x.shape())};
  };
  references["log_sum_exp"] = [](std::span<const Tensor> in, ops::OpOptions options) {
    options.set("dims", options.integers("dims", {-1}));
    return reduction([](const std::vector<double>& values) {
      // In long double, whose exponents reach far enough for samples below 1e4; beyond, the largest decides alone.
      const double largest = *std::max_element(values.begin(), values.end());
      long double sum = 0;
      for (const double value : values) sum += std::exp(static_cast<long double>(value) - largest);
      return static_cast<double>(largest + std::log(sum));
    })(in, options);
  };
  references["top_k"] = [](std::span<const Tensor> in, const ops::OpOptions& options) -> std::vector<Tensor> {
    const Tensor& x = in[0];
    const auto dim = static_cast<int>(options.integer("dim", -1));
    const auto k = static_cast<std::size_t>(options.integer("k", 1)), n = static_cast<std::size_t>(x.dim(dim));
    const std::vector<double> values = x.to_doubles();
    std::size_t inner = 1;  // elements from one of a column to its next
    for (int d = (dim < 0 ? dim + x.rank() : dim) + 1; d < x.rank(); ++d) inner *= static_cast<std::size_t>(x.dim(d));
    Shape shape = x.shape();
    shape.set(dim, static_cast<std::int64_t>(k));
    std::vector<double> best(static_cast<std::size_t>(shape.numel()));
    std::vector<std::int64_t> where(best.size());
    for (std::size_t column = 0; n > 0 && column < values.size() / n; ++column) {
      const std::size_t outer = column / inner, place = column % inner;
      const auto value = [&](std::size_t i) { return values[(outer * n + i) * inner + place]; };
      std::vector<std::size_t> order(n);
      std::iota(order.begin(), order.end(), std::size_t{0});
      std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return value(a) > value(b); });
      for (std::size_t i = 0; i < k; ++i) {
        best[(outer * k + i) * inner + place] = value(order[i]);
        where[(outer * k + i) * inner + place] = static_cast<std::int64_t>(order[i]);
      }
    }
    return {Tensor::from(best, shape), Tensor::from(where, shape)};
  };
}

}  // namespace tally::testing
