#include "tally/ops/norms/norm_family.h"

#include <algorithm>
#include <vector>

#include "tally/core/parallel.h"
#include "tally/ops/kernels/columns.h"
#include "tally/ops/kernels/norm.h"

namespace tally::ops::detail {
namespace {

/// Rows of one block: whole runs of rows, about 256 KiB in f32.
std::int64_t block_rows(std::int64_t columns) {
  return std::max<std::int64_t>((1 << 16) / columns / kernels::kRowRun, 1) * kernels::kRowRun;
}

void check_inputs(std::string_view op, const NormInputs& in, double epsilon) {
  const auto describe = [&] {
    std::string text = tally::detail::join("x ", in.x.dtype(), in.x.shape());
    if (in.residual.defined()) text += tally::detail::join(", residual ", in.residual.dtype(), in.residual.shape());
    if (in.weight.defined()) text += tally::detail::join(", weight ", in.weight.dtype(), in.weight.shape());
    if (in.bias.defined()) text += tally::detail::join(", bias ", in.bias.dtype(), in.bias.shape());
    return text;
  };
  const Shape& shape = in.x.shape();
  bool types = is_floating(in.x.dtype()), shapes = shape.rank() >= 1 && shape[-1] >= 1;
  for (const Var* row : {&in.weight, &in.bias}) {
    if (!row->defined()) continue;
    types = types && row->dtype() == in.x.dtype();
    shapes = shapes && row->shape() == Shape{shape[-1]};
  }
  if (in.residual.defined()) {
    types = types && in.residual.dtype() == in.x.dtype();
    shapes = shapes && in.residual.shape() == shape;
  }
  if (!types) fail<DTypeError>(op, "needs equal floating types; got ", describe());
  if (!shapes) {
    fail<ShapeError>(op, "needs x [..., D] with D at least 1", in.residual.defined() ? ", a residual of its shape" : "",
                     ", weight [D] and bias [D]; got ", describe());
  }
  check<ValueError>(epsilon >= 0, op, "needs an epsilon of at least 0; got ", epsilon);
}

template <class T>
const T* data_or_null(const Tensor& tensor) {
  return tensor.defined() ? tensor.data<T>() : nullptr;
}

Tensor contiguous_or_none(const Var& var) { return var.defined() ? var.value().contiguous() : Tensor(); }

}  // namespace

NormResult normalize(std::string_view op, NormKind kind, const NormInputs& in, double epsilon,
                     const DropoutOptions& dropout) {
  check_inputs(op, in, epsilon);
  check_dropout(op, in.x.shape(), dropout);
  const Tensor x = in.x.value().contiguous(), residual = contiguous_or_none(in.residual);
  const Tensor weight = contiguous_or_none(in.weight), bias = contiguous_or_none(in.bias);
  const std::int64_t columns = x.dim(-1), rows = x.shape().without(-1).numel();
  NormResult result{Tensor(x.shape(), x.dtype()), residual.defined() ? Tensor(x.shape(), x.dtype()) : Tensor(), {}};
  Tensor statistics({rows, kernels::kNormStatistics}, x.dtype());
  const kernels::DropoutMask mask = kernels::dropout_mask(dropout.rate, dropout.key);
  dispatch_floating(x.dtype(), op, [&]<class T>(T) {
    kernels::NormForward<T> call;
    call.columns = columns;
    call.epsilon = epsilon;
    call.x = x.data<T>();
    call.residual = data_or_null<T>(residual);
    call.mask = dropout.rate > 0 ? &mask : nullptr;
    call.first_row = dropout.first_row;
    call.weight = data_or_null<T>(weight);
    call.bias = data_or_null<T>(bias);
    call.sum = residual.defined() ? result.sum.mutable_data<T>() : nullptr;
    call.y = result.normalized.mutable_data<T>();
    call.statistics = statistics.mutable_data<T>();
    parallel_for(rows, block_rows(columns), [&](std::int64_t begin, std::int64_t end) {
      kernels::normalize(kind == NormKind::layer, call, begin, end);
    });
  });
  const bool rows_differentiated = in.x.tracked() || in.residual.tracked();
  const bool needed = rows_differentiated || in.weight.tracked();
  result.saved = {kind, dropout, Saved(residual.defined() ? result.sum : x, needed), Saved(statistics, needed),
                  Saved(weight, rows_differentiated && weight.defined())};
  return result;
}

void SavedNorm::backward(BackwardContext& g, const NormPlaces& places) const {
  const auto needs = [&](int place) { return place >= 0 && g.needs(place); };
  const Tensor gy = g.cotangent(0);
  const std::int64_t columns = gy.dim(-1), rows = gy.shape().without(-1).numel();
  const std::int64_t grain = block_rows(columns), blocks = block_count(rows, grain);
  const bool dropped = dropout.rate > 0;
  const bool need_x = needs(places.x), need_residual = needs(places.residual);
  const bool need_weight = needs(places.weight), need_bias = needs(places.bias);
  const bool need_rows = need_x || need_residual || need_weight;
  const kernels::DropoutMask mask = kernels::dropout_mask(dropout.rate, dropout.key);
  // Without a mask the gradients of x and the residual are one tensor.
  Tensor gsum = need_residual || (need_x && !dropped) ? Tensor(gy.shape(), gy.dtype()) : Tensor();
  Tensor gx = need_x && dropped ? Tensor(gy.shape(), gy.dtype()) : Tensor();
  std::vector<double> sums(static_cast<std::size_t>(need_weight || need_bias ? 2 * blocks * columns : 0));
  Tensor gweight = need_weight ? Tensor({columns}, gy.dtype()) : Tensor();
  Tensor gbias = need_bias ? Tensor({columns}, gy.dtype()) : Tensor();
  dispatch_floating(gy.dtype(), "norm", [&]<class T>(T) {
    double* weight_sums = need_weight ? sums.data() : nullptr;
    double* bias_sums = need_bias ? sums.data() + blocks * columns : nullptr;
    if (need_rows) {
      kernels::NormBackward<T> call;
      call.columns = columns;
      call.sum = sum.get().data<T>();
      call.statistics = statistics.get().data<T>();
      call.weight = weight.kept() ? weight.get().data<T>() : nullptr;
      call.gy = gy.data<T>();
      call.gsum = places.residual >= 0 && g.has_cotangent(1) ? g.cotangent(1).data<T>() : nullptr;
      call.mask = dropped ? &mask : nullptr;
      call.first_row = dropout.first_row;
      call.gresidual = gsum.defined() ? gsum.mutable_data<T>() : nullptr;
      call.gx = gx.defined() ? gx.mutable_data<T>() : nullptr;
      parallel_for(rows, grain, [&](std::int64_t begin, std::int64_t end) {
        std::vector<T> scratch(static_cast<std::size_t>(2 * columns));
        const std::int64_t place = begin / grain * columns;
        kernels::normalize_backward(kind == NormKind::layer, call, begin, end,
                                    need_weight ? weight_sums + place : nullptr,
                                    need_bias ? bias_sums + place : nullptr, scratch.data());
      });
    } else if (need_bias) {
      parallel_for(rows, grain, [&](std::int64_t begin, std::int64_t end) {
        kernels::add_column_sums(bias_sums + begin / grain * columns, gy.data<T>() + begin * columns, end - begin,
                                 columns, columns);
      });
    }
    if (need_weight) kernels::fold_blocks(gweight.mutable_data<T>(), weight_sums, blocks, columns);
    if (need_bias) kernels::fold_blocks(gbias.mutable_data<T>(), bias_sums, blocks, columns);
  });
  if (need_x) g.give(places.x, dropped ? std::move(gx) : gsum);
  if (need_residual) g.give(places.residual, std::move(gsum));
  if (need_weight) g.give(places.weight, std::move(gweight));
  if (need_bias) g.give(places.bias, std::move(gbias));
}

}  // namespace tally::ops::detail
