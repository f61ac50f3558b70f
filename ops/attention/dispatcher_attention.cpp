#include "tally/ops/attention/dispatcher_attention.h"

#include "tally/ops/attention/dispatcher_call.h"
#include "tally/ops/entries.h"
#include "tally/ops/kernels/dispatcher_attention.h"

namespace tally::ops {
namespace {

constexpr std::string_view kName = "dispatcher_attention";

struct DispatcherRule {
  static constexpr std::string_view name = kName;
  detail::SavedDispatcherCall saved;
  Saved output, experts, read, gathered;

  void backward(BackwardContext& g) const {
    const detail::DispatcherCall call = saved.get();
    const DType dtype = output.get().dtype();
    detail::DispatcherGradients gradients(g, call, dtype);
    dispatch_floating(dtype, name, [&]<class T>(T) {
      const kernels::DispatcherBackward<T> data{output.get().data<T>(),    experts.get().data<T>(),
                                                read.get().data<double>(), gathered.get().data<double>(),
                                                g.cotangent(0).data<T>(),  g.cotangent(1).data<T>()};
      kernels::dispatcher_backward(call.plan<T>(), data, gradients.pointers<T>());
    });
    gradients.give(g);
  }
};

}  // namespace

DispatcherOutput dispatcher_attention(const DispatcherInputs& in, const Offsets& offsets,
                                      const DispatcherOptions& options) {
  const detail::DispatcherCall call = detail::check_dispatcher(kName, in, offsets, options);
  const DType dtype = in.keys.dtype();
  Tensor output({call.rows(), call.output_columns()}, dtype), read({call.rows(), call.heads}, DType::f64);
  Tensor experts({offsets.count(), call.experts(), call.expert_columns()}, dtype);
  Tensor gathered({offsets.count(), call.experts(), call.heads}, DType::f64);
  dispatch_floating(dtype, kName, [&]<class T>(T) {
    kernels::dispatcher_forward(call.plan<T>(), output.mutable_data<T>(), experts.mutable_data<T>(),
                                read.mutable_data<double>(), gathered.mutable_data<double>());
  });
  const Var* inputs[] = {&in.expert_queries, &in.keys,           &in.values,
                         &in.queries,        &in.key_projection, &in.value_projection};
  DispatcherRule rule{detail::SavedDispatcherCall(call), Saved(output), Saved(experts), Saved(read), Saved(gathered)};
  std::vector<Var> outputs = record(std::move(rule), inputs, {std::move(output), std::move(experts)});
  return {std::move(outputs[0]), std::move(outputs[1])};
}

void entries::add_dispatcher_attention(Catalog& catalog) {
  OpEntry entry = detail::dispatcher_entry(
      std::string(kName), "Dispatcher attention (ELASTIC): experts gather their sequence, and its rows read them.");
  entry.outputs = {{"output", "[T, heads * o]"}, {"experts", "[N, k, heads * e]"}};
  entry.call = [](std::span<const Var> in, const OpOptions& options) -> std::vector<Var> {
    DispatcherOutput result = dispatcher_attention(detail::dispatcher_inputs(in), Offsets(in[6].value()),
                                                   detail::dispatcher_options(options));
    return {std::move(result.output), std::move(result.experts)};
  };
  catalog.add(std::move(entry));
}

}  // namespace tally::ops
