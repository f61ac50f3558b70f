#include "tally/ops/attention/causal_dispatcher_attention.h"

#include "tally/ops/attention/dispatcher_call.h"
#include "tally/ops/entries.h"
#include "tally/ops/kernels/causal_dispatcher.h"

namespace tally::ops {
namespace {

constexpr std::string_view kName = "causal_dispatcher_attention";

struct CausalDispatcherRule {
  static constexpr std::string_view name = kName;
  detail::SavedDispatcherCall saved;
  Saved checkpoints;

  void backward(BackwardContext& g) const {
    const detail::DispatcherCall call = saved.get();
    const Tensor& gy = g.cotangent();
    detail::DispatcherGradients gradients(g, call, gy.dtype());
    dispatch_floating(gy.dtype(), name, [&]<class T>(T) {
      kernels::causal_dispatcher_backward(call.plan<T>(), checkpoints.get().data<double>(), gy.data<T>(),
                                          gradients.pointers<T>());
    });
    gradients.give(g);
  }
};

}  // namespace

Var causal_dispatcher_attention(const DispatcherInputs& in, const Offsets& offsets, const DispatcherOptions& options) {
  const detail::DispatcherCall call = detail::check_dispatcher(kName, in, offsets, options);
  Tensor output({call.rows(), call.output_columns()}, in.keys.dtype()), checkpoints;
  const bool keep =
      recording(in.expert_queries, in.keys, in.values, in.queries, in.key_projection, in.value_projection);
  dispatch_floating(output.dtype(), kName, [&]<class T>(T) {
    const kernels::DispatcherPlan<T> plan = call.plan<T>();
    if (keep) {
      checkpoints = Tensor({kernels::checkpoint_count(offsets.bounds()), kernels::checkpoint_size(plan)}, DType::f64);
    }
    kernels::causal_dispatcher_forward(plan, output.mutable_data<T>(),
                                       keep ? checkpoints.mutable_data<double>() : nullptr);
  });
  CausalDispatcherRule rule{detail::SavedDispatcherCall(call), Saved(checkpoints, keep)};
  return record(std::move(rule),
                {&in.expert_queries, &in.keys, &in.values, &in.queries, &in.key_projection, &in.value_projection},
                std::move(output));
}

void entries::add_causal_dispatcher_attention(Catalog& catalog) {
  OpEntry entry = detail::dispatcher_entry(
      std::string(kName), "Dispatcher attention whose rows read what the experts gathered of them and earlier rows.");
  entry.outputs = {{"output", "[T, heads * o]"}};
  entry.call = [](std::span<const Var> in, const OpOptions& options) -> std::vector<Var> {
    return {causal_dispatcher_attention(detail::dispatcher_inputs(in), Offsets(in[6].value()),
                                        detail::dispatcher_options(options))};
  };
  catalog.add(std::move(entry));
}

}  // namespace tally::ops
