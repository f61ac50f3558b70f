#include "tally/ops/attention/softmax_attention.h"

#include <cmath>

#include "tally/autograd/tape.h"
#include "tally/ops/attention/attention_options.h"
#include "tally/ops/entries.h"
#include "tally/ops/input_gradients.h"
#include "tally/ops/kernels/softmax_attention.h"

namespace tally::ops {
namespace {

template <class T>
kernels::MatrixRows<const T> rows_of(const Tensor& x) {
  return {x.strided_data<T>(), x.stride(0)};
}

struct SoftmaxAttentionRule {
  static constexpr std::string_view name = "softmax_attention";
  kernels::AttentionPlan plan;  // its bounds point into offsets
  Offsets offsets;
  Saved bounds;  // of the offsets: refuses ones that were overwritten
  Saved q, k, v, output, log_sum_exp;

  void backward(BackwardContext& g) const {
    bounds.get();
    const Tensor& gy = g.cotangent();
    const bool scores = g.needs(0) || g.needs(1);
    auto gradients = detail::input_gradients(g, q, k, v);
    dispatch_floating(gy.dtype(), name, [&]<class T>(T) {
      kernels::AttentionBackward<T> data;
      data.q = rows_of<T>(q.get());
      data.k = rows_of<T>(k.get());
      data.v = rows_of<T>(v.get());
      data.output = scores ? output.get().data<T>() : nullptr;
      data.log_sum_exp = log_sum_exp.get().data<double>();
      data.gradient_output = gy.data<T>();
      data.gradient_q = gradients.of<T>(0);
      data.gradient_k = gradients.of<T>(1);
      data.gradient_v = gradients.of<T>(2);
      kernels::attention_backward(plan, data);
    });
    gradients.give();
  }
};

kernels::AttentionPlan plan_of(const detail::AttentionSizes& sizes, const Offsets& offsets,
                               const AttentionOptions& options) {
  kernels::AttentionPlan plan;
  plan.bounds = offsets.bounds();
  plan.heads = sizes.heads;
  plan.width = sizes.width;
  plan.value_width = sizes.value_width;
  plan.scale = sizes.scale;
  plan.causal = options.mask == AttentionMask::causal;
  // A window that shows everything is none.
  plan.window = options.window <= offsets.longest() ? options.window : 0;
  if (options.dropout.rate > 0) plan.dropout = kernels::dropout_mask(options.dropout.rate, options.dropout.key);
  plan.first_row = options.dropout.first_row;
  return plan;
}

}  // namespace

Var softmax_attention(const Var& q, const Var& k, const Var& v, const Offsets& offsets,
                      const AttentionOptions& options) {
  const detail::AttentionSizes sizes = detail::check_attention("softmax_attention", q, k, v, offsets, options);
  const kernels::AttentionPlan plan = plan_of(sizes, offsets, options);
  const Tensor qt = detail::with_dense_rows(q.value()), kt = detail::with_dense_rows(k.value()),
               vt = detail::with_dense_rows(v.value());
  Tensor output({q.dim(0), sizes.heads * sizes.value_width}, q.dtype()),
      log_sum_exp({q.dim(0), sizes.heads}, DType::f64);
  dispatch_floating(q.dtype(), "softmax_attention", [&]<class T>(T) {
    kernels::attention_forward(plan, rows_of<T>(qt), rows_of<T>(kt), rows_of<T>(vt), output.mutable_data<T>(),
                               log_sum_exp.mutable_data<double>());
  });
  const bool scores = q.tracked() || k.tracked();
  SoftmaxAttentionRule rule{plan,      offsets,   Saved(offsets.tensor()), Saved(qt),
                            Saved(kt), Saved(vt), Saved(output, scores),   Saved(log_sum_exp)};
  return record(std::move(rule), {&q, &k, &v}, std::move(output));
}

void entries::add_softmax_attention(Catalog& catalog) {
  catalog.add(detail::attention_entry(
      "softmax_attention",
      "Softmax attention over packed sequences: softmax(scale q k^T) v per head, without storing the scores.",
      softmax_attention));
}

}  // namespace tally::ops
