#include "tests/ops/references.h"

namespace tally::testing {
namespace {

using Index = std::vector<std::int64_t>;

Index index_of(std::int64_t position, const Shape& shape) {
  Index index(static_cast<std::size_t>(shape.rank()));
  for (std::size_t d = index.size(); d-- > 0;) {
    const std::int64_t size = shape[static_cast<int>(d)];
    index[d] = position % size;
    position /= size;
  }
  return index;
}

std::int64_t position_of(const Index& index, const Shape& shape) {
  std::int64_t position = 0;
  for (std::size_t d = 0; d < index.size(); ++d) position = position * shape[static_cast<int>(d)] + index[d];
  return position;
}

/// The tensor of a shape whose element at each index is source(index).
template <class Source>
Tensor filled(const Shape& shape, Source&& source) {
  std::vector<double> values;
  for (std::int64_t i = 0; i < shape.numel(); ++i) values.push_back(source(index_of(i, shape)));
  return Tensor::from(values, shape);
}

double at(const Tensor& tensor, const Index& index) {
  return tensor.to_doubles()[static_cast<std::size_t>(position_of(index, tensor.shape()))];
}

Shape shape_option(const ops::OpOptions& options) {
  const Index sizes = options.integers("shape", {});
  return Shape(std::span<const std::int64_t>(sizes));
}

std::size_t dim_option(const ops::OpOptions& options, const std::string& name, const Tensor& x) {
  const std::int64_t dim = options.integer(name, 0);
  return static_cast<std::size_t>(dim < 0 ? dim + x.rank() : dim);
}

Index dims_option(const ops::OpOptions& options, const std::string& name, const Tensor& x) {
  Index dims = options.integers(name, {});
  for (std::int64_t& dim : dims) dim += dim < 0 ? x.rank() : 0;
  return dims;
}

void add_arranging_references(References& references) {
  references["permute"] = [](std::span<const Tensor> in, const ops::OpOptions& options) -> std::vector<Tensor> {
    const Index dims = dims_option(options, "dims", in[0]);
    Shape shape = in[0].shape();
    for (std::size_t d = 0; d < dims.size(); ++d) {
      shape.set(static_cast<int>(d), in[0].dim(static_cast<int>(dims[d])));
    }
    return {filled(shape, [&](const Index& index) {
      Index from(index.size());
      for (std::size_t d = 0; d < dims.size(); ++d) from[static_cast<std::size_t>(dims[d])] = index[d];
      return at(in[0], from);
    })};
  };
  references["reverse"] = [](std::span<const Tensor> in, const ops::OpOptions& options) -> std::vector<Tensor> {
    return {filled(in[0].shape(), [&](Index index) {
      for (const std::int64_t d : dims_option(options, "dims", in[0])) {
        std::int64_t& place = index[static_cast<std::size_t>(d)];
        place = in[0].dim(static_cast<int>(d)) - 1 - place;
      }
      return at(in[0], index);
    })};
  };
  references["pad"] = [](std::span<const Tensor> in, const ops::OpOptions& options) -> std::vector<Tensor> {
    const Index before = options.integers("before", {}), after = options.integers("after", {});
    Shape shape = in[0].shape();
    for (std::size_t d = 0; d < before.size(); ++d) {
      shape.set(static_cast<int>(d), before[d] + shape[static_cast<int>(d)] + after[d]);
    }
    return {filled(shape, [&](Index index) {
      for (std::size_t d = 0; d < before.size(); ++d) {
        index[d] -= before[d];
        if (index[d] < 0 || index[d] >= in[0].dim(static_cast<int>(d))) return options.number("value", 0);
      }
      return at(in[0], index);
    })};
  };
  references["stack"] = [](std::span<const Tensor> in, const ops::OpOptions& options) -> std::vector<Tensor> {
    const std::int64_t dim = options.integer("dim", 0);
    const auto axis = static_cast<std::ptrdiff_t>(dim < 0 ? dim + in[0].rank() + 1 : dim);
    Index sizes(in[0].shape().begin(), in[0].shape().end());
    sizes.insert(sizes.begin() + axis, in[1].defined() ? 2 : 1);
    return {filled(Shape(std::span<const std::int64_t>(sizes)), [&](Index index) {
      const auto which = static_cast<std::size_t>(index[static_cast<std::size_t>(axis)]);
      index.erase(index.begin() + axis);
      return at(in[which], index);
    })};
  };
  references["split"] = [](std::span<const Tensor> in, const ops::OpOptions& options) -> std::vector<Tensor> {
    const std::size_t dim = dim_option(options, "dim", in[0]);
    std::vector<Tensor> pieces;
    std::int64_t begin = 0;
    for (const std::int64_t size : options.integers("sizes", {})) {
      Shape shape = in[0].shape();
      shape.set(static_cast<int>(dim), size);
      pieces.push_back(filled(shape, [&](Index index) {
        index[dim] += begin;
        return at(in[0], index);
      }));
      begin += size;
    }
    return pieces;
  };
}

void add_indexing_references(References& references) {
  references["gather_along"] = [](std::span<const Tensor> in, const ops::OpOptions& options) -> std::vector<Tensor> {
    const std::size_t dim = dim_option(options, "dim", in[0]);
    return {filled(in[1].shape(), [&](Index index) {
      index[dim] = static_cast<std::int64_t>(at(in[1], index));
      return at(in[0], index);
    })};
  };
  references["scatter_add"] = [](std::span<const Tensor> in, const ops::OpOptions& options) -> std::vector<Tensor> {
    const std::size_t dim = dim_option(options, "dim", in[0]);
    std::vector<double> values = in[0].to_doubles();
    for (std::int64_t i = 0; i < in[1].numel(); ++i) {
      Index index = index_of(i, in[1].shape());
      const double added = at(in[2], index);
      index[dim] = static_cast<std::int64_t>(at(in[1], index));
      values[static_cast<std::size_t>(position_of(index, in[0].shape()))] += added;
    }
    return {Tensor::from(values, in[0].shape())};
  };
  references["one_hot"] = [](std::span<const Tensor> in, const ops::OpOptions& options) -> std::vector<Tensor> {
    const Tensor marks = filled(in[0].shape().with_appended(options.integer("classes", 0)), [&](const Index& index) {
      return static_cast<double>(index.back()) == at(in[0], Index(index.begin(), index.end() - 1)) ? 1.0 : 0.0;
    });
    return {marks.to(DType::i64)};
  };
}

}  // namespace

void add_shape_references(References& references) {
  add_arranging_references(references);
  add_indexing_references(references);
  references["reshape"] = [](std::span<const Tensor> in, const ops::OpOptions& options) -> std::vector<Tensor> {
    return {Tensor::from(in[0].to_doubles(), shape_option(options))};
  };
  references["transpose"] = [](std::span<const Tensor> in, const ops::OpOptions& options) -> std::vector<Tensor> {
    const std::size_t a = dim_option(options, "a", in[0]), b = dim_option(options, "b", in[0]);
    Shape shape = in[0].shape();
    shape.set(static_cast<int>(a), in[0].dim(static_cast<int>(b)));
    shape.set(static_cast<int>(b), in[0].dim(static_cast<int>(a)));
    return {filled(shape, [&](Index index) {
      std::swap(index[a], index[b]);
      return at(in[0], index);
    })};
  };
  references["slice"] = [](std::span<const Tensor> in, const ops::OpOptions& options) -> std::vector<Tensor> {
    const std::size_t dim = dim_option(options, "dim", in[0]);
    const std::int64_t begin = options.integer("begin", 0);
    Shape shape = in[0].shape();
    shape.set(static_cast<int>(dim), options.integer("end", 0) - begin);
    return {filled(shape, [&](Index index) {
      index[dim] += begin;
      return at(in[0], index);
    })};
  };
  references["concat"] = [](std::span<const Tensor> in, const ops::OpOptions& options) -> std::vector<Tensor> {
    const std::size_t dim = dim_option(options, "dim", in[0]);
    Shape shape = in[0].shape();
    std::int64_t total = 0;
    for (const Tensor& input : in) total += input.defined() ? input.dim(static_cast<int>(dim)) : 0;
    shape.set(static_cast<int>(dim), total);
    return {filled(shape, [&](Index index) {
      std::vector<Tensor> given(in.begin(), in.end());
      std::erase_if(given, [](const Tensor& input) { return !input.defined(); });
      std::size_t k = 0;
      while (index[dim] >= given[k].dim(static_cast<int>(dim))) index[dim] -= given[k++].dim(static_cast<int>(dim));
      return at(given[k], index);
    })};
  };
  references["expand"] = [](std::span<const Tensor> in, const ops::OpOptions& options) -> std::vector<Tensor> {
    return {filled(shape_option(options), [&](const Index& index) {
      Index from(index.end() - in[0].rank(), index.end());
      for (std::size_t d = 0; d < from.size(); ++d) {
        if (in[0].dim(static_cast<int>(d)) == 1) from[d] = 0;
      }
      return at(in[0], from);
    })};
  };
  references["gather"] = [](std::span<const Tensor> in, const ops::OpOptions&) -> std::vector<Tensor> {
    Index sizes(in[1].shape().begin(), in[1].shape().end());
    const auto rank = static_cast<std::ptrdiff_t>(sizes.size());
    sizes.insert(sizes.end(), in[0].shape().begin() + 1, in[0].shape().end());
    return {filled(Shape(std::span<const std::int64_t>(sizes)), [&](const Index& index) {
      Index from{static_cast<std::int64_t>(at(in[1], Index(index.begin(), index.begin() + rank)))};
      from.insert(from.end(), index.begin() + rank, index.end());
      return at(in[0], from);
    })};
  };
  references["index_add"] = [](std::span<const Tensor> in, const ops::OpOptions&) -> std::vector<Tensor> {
    std::vector<double> values = in[0].to_doubles();
    const std::vector<double> added = in[2].to_doubles(), rows = in[1].to_doubles();
    const std::size_t width = rows.empty() ? 0 : added.size() / rows.size();
    for (std::size_t i = 0; i < rows.size(); ++i) {
      for (std::size_t j = 0; j < width; ++j)
        values[static_cast<std::size_t>(rows[i]) * width + j] += added[i * width + j];
    }
    return {Tensor::from(values, in[0].shape())};
  };
}

}  // namespace tally::testing
