#include "tally/ops/attention/dispatcher_call.h"

#include <cmath>

#include "tally/ops/attention/attention_options.h"
#include "tally/ops/kernels/codewords.h"
#include "tally/ops/kernels/dispatcher_plan.h"

namespace tally::ops::detail {
namespace {

// Places of the inputs.
constexpr int kExpertQueries = 0, kKeys = 1, kValues = 2, kQueries = 3, kKeyProjection = 4, kValueProjection = 5;

template <class T>
kernels::MatrixRows<const T> rows_of(const Tensor& x) {
  return {x.strided_data<T>(), x.stride(0)};
}

void check_finite(std::string_view op, const Tensor& x, std::string_view what) {
  const std::int64_t columns = x.dim(-1), rows = columns == 0 ? 0 : x.numel() / columns;
  const std::int64_t row = dispatch_floating(x.dtype(), op, [&]<class T>(T) {
    return kernels::first_row_not_finite(x.strided_data<T>(), rows, columns, x.stride(-2));
  });
  check<ValueError>(row < 0, op, "needs finite ", what, "; got one that is not in row ", row);
}

bool projects(const Shape& projection, std::int64_t heads, std::int64_t from) {
  if (projection.rank() == 2) return projection[0] == from && projection[1] > 0 && projection[1] % heads == 0;
  return projection.rank() == 3 && projection[0] == heads && projection[1] * heads == from && projection[2] > 0;
}

}  // namespace

template <class T>
kernels::DispatcherPlan<T> DispatcherCall::plan() const {
  kernels::DispatcherPlan<T> plan;
  plan.bounds = offsets.bounds();
  plan.heads = heads;
  plan.experts = experts();
  plan.key_width = inputs[kKeys].dim(1) / heads;
  plan.value_width = expert_columns() / heads;
  plan.query_width = inputs[kQueries].dim(1) / heads;
  plan.output_width = output_columns() / heads;
  const auto scale_of = [&](std::int64_t width) {
    return scale == 0 ? 1 / std::sqrt(static_cast<double>(width)) : scale;
  };
  plan.gather_scale = scale_of(plan.key_width);
  plan.read_scale = scale_of(plan.query_width);
  plan.shared = inputs[kExpertQueries].rank() == 2;
  plan.mixed_keys = inputs[kKeyProjection].rank() == 2;
  plan.mixed_values = inputs[kValueProjection].rank() == 2;
  plan.expert_queries = inputs[kExpertQueries].data<T>();
  plan.keys = rows_of<T>(inputs[kKeys]);
  plan.values = rows_of<T>(inputs[kValues]);
  plan.queries = rows_of<T>(inputs[kQueries]);
  plan.key_projection = inputs[kKeyProjection].data<T>();
  plan.value_projection = inputs[kValueProjection].data<T>();
  return plan;
}

template kernels::DispatcherPlan<float> DispatcherCall::plan() const;
template kernels::DispatcherPlan<double> DispatcherCall::plan() const;

DispatcherCall check_dispatcher(std::string_view op, const DispatcherInputs& in, const Offsets& offsets,
                                const DispatcherOptions& options) {
  const Var* all[] = {&in.expert_queries, &in.keys, &in.values, &in.queries, &in.key_projection, &in.value_projection};
  for (const Var* each : all) {
    check<DTypeError>(is_floating(each->dtype()) && each->dtype() == in.keys.dtype(), op,
                      "needs all inputs of one floating type; got ", each->dtype(), " beside ", in.keys.dtype());
  }
  const Shape &experts = in.expert_queries.shape(), &keys = in.keys.shape(), &values = in.values.shape(),
              &queries = in.queries.shape();
  check<ValueError>(options.heads >= 1, op, "needs at least one head; got ", options.heads);
  check<ValueError>(std::isfinite(options.scale), op, "needs a finite scale; got ", options.scale);
  check<ShapeError>(
      keys.rank() == 2 && values.rank() == 2 && queries.rank() == 2 && values[0] == keys[0] && queries[0] == keys[0],
      op, "needs keys [T, heads * d], values [T, heads * e] and queries [T, heads * r]; got ", keys, ", ", values,
      " and ", queries);
  const auto shared_out = [&](std::int64_t columns) { return columns > 0 && columns % options.heads == 0; };
  check<ShapeError>(shared_out(keys[1]) && shared_out(values[1]) && shared_out(queries[1]), op,
                    "needs columns that its ", options.heads, " heads share evenly; got keys ", keys, ", values ",
                    values, " and queries ", queries);
  offsets.check_rows(keys[0], op);
  const bool fits = (experts.rank() == 2 || (experts.rank() == 3 && experts[0] == offsets.count())) &&
                    experts[experts.rank() - 1] == keys[1];
  check<ShapeError>(fits, op, "needs expert queries [k, ", keys[1], "] or [", offsets.count(), ", k, ", keys[1],
                    "]; got ", experts);
  check<ValueError>(experts[-2] >= 1, op, "needs at least one expert; got expert queries ", experts);
  const Shape &key_projection = in.key_projection.shape(), &value_projection = in.value_projection.shape();
  const bool reads = projects(key_projection, options.heads, values[1]) &&
                     key_projection[-1] * (key_projection.rank() == 3 ? options.heads : 1) == queries[1];
  check<ShapeError>(reads, op, "needs a key projection [", values[1], ", ", queries[1], "] or [", options.heads, ", ",
                    values[1] / options.heads, ", ", queries[1] / options.heads, "]; got ", key_projection);
  check<ShapeError>(projects(value_projection, options.heads, values[1]), op, "needs a value projection [", values[1],
                    ", heads * o] or [", options.heads, ", ", values[1] / options.heads, ", o]; got ",
                    value_projection);
  DispatcherCall call;
  for (int i = 0; i < kDispatcherInputs; ++i) {
    const bool rows = i == kKeys || i == kValues || i == kQueries;
    call.inputs[static_cast<std::size_t>(i)] = rows ? with_dense_rows(all[i]->value()) : all[i]->value().contiguous();
  }
  call.offsets = offsets;
  call.heads = options.heads;
  call.scale = options.scale;
  check_finite(op, call.inputs[kExpertQueries], "expert queries");
  check_finite(op, call.inputs[kQueries], "queries");
  return call;
}

SavedDispatcherCall::SavedDispatcherCall(const DispatcherCall& call)
    : offsets_(call.offsets), bounds_(call.offsets.tensor()), heads_(call.heads), scale_(call.scale) {
  for (std::size_t i = 0; i < inputs_.size(); ++i) inputs_[i] = Saved(call.inputs[i]);
}

DispatcherCall SavedDispatcherCall::get() const {
  bounds_.get();
  DispatcherCall call;
  for (std::size_t i = 0; i < inputs_.size(); ++i) call.inputs[i] = inputs_[i].get();
  call.offsets = offsets_;
  call.heads = heads_;
  call.scale = scale_;
  return call;
}

DispatcherGradients::DispatcherGradients(const BackwardContext& g, const DispatcherCall& call, DType dtype) {
  for (int i = 0; i < kDispatcherInputs; ++i) {
    const auto at = static_cast<std::size_t>(i);
    if (g.needs(i)) gradients_[at] = Tensor(call.inputs[at].shape(), dtype);
  }
}

template <class T>
kernels::DispatcherGradient<T> DispatcherGradients::pointers() {
  const auto to = [&](int i) -> T* {
    Tensor& gradient = gradients_[static_cast<std::size_t>(i)];
    return gradient.defined() ? gradient.mutable_data<T>() : nullptr;
  };
  return {to(kExpertQueries), to(kKeys), to(kValues), to(kQueries), to(kKeyProjection), to(kValueProjection)};
}

template kernels::DispatcherGradient<float> DispatcherGradients::pointers();
template kernels::DispatcherGradient<double> DispatcherGradients::pointers();

void DispatcherGradients::give(BackwardContext& g) {
  for (int i = 0; i < kDispatcherInputs; ++i) {
    Tensor& gradient = gradients_[static_cast<std::size_t>(i)];
    if (gradient.defined()) g.give(i, std::move(gradient));
  }
}

}  // namespace tally::ops::detail
