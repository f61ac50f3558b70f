#include "tally/ops/lookup/causal_lookup.h"

#include <array>

#include "tally/autograd/tape.h"
#include "tally/ops/attention/attention_options.h"
#include "tally/ops/input_gradients.h"
#include "tally/ops/kernels/causal_lookup.h"
#include "tally/ops/lookup/lookup_call.h"

namespace tally::ops {
namespace {

constexpr std::string_view kName = "causal_lookup";

/// Places of the inputs.
constexpr int kQueries = 0, kKeys = 1, kValues = 2, kLogDecay = 3, kGain = 4, kInputs = 5;

/// `inputs`: undefined where absent.
template <class T>
kernels::CausalLookupPlan<T> plan_of(const detail::SortedLookups& lookups, const Offsets& offsets,
                                     const std::array<Tensor, kInputs>& inputs) {
  const auto rows = [&](int i) {
    const Tensor& x = inputs[static_cast<std::size_t>(i)];
    return kernels::MatrixRows<const T>{x.strided_data<T>(), x.stride(0)};
  };
  return {lookups.over(offsets),
          inputs[kQueries].dim(1),
          inputs[kValues].dim(1),
          rows(kQueries),
          rows(kKeys),
          rows(kValues),
          inputs[kLogDecay].defined() ? inputs[kLogDecay].data<T>() : nullptr,
          inputs[kGain].defined() ? inputs[kGain].data<T>() : nullptr};
}

struct CausalLookupRule {
  static constexpr std::string_view name = kName;
  detail::SortedLookups lookups;
  Offsets offsets;
  Saved bounds;  // of the offsets: refuses ones that were overwritten
  std::array<Saved, kInputs> saved;
  bool shared;  // k and v are one: so is their gradient

  void backward(BackwardContext& g) const {
    bounds.get();
    const Tensor& gy = g.cotangent();
    std::array<Tensor, kInputs> inputs;
    auto gradients = detail::input_gradients(g, saved);
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      if (saved[i].kept()) inputs[i] = saved[i].get();
    }
    dispatch_floating(gy.dtype(), name, [&]<class T>(T) {
      T* const of_keys = gradients.zeros_of<T>(kKeys);
      T* const of_values = shared ? of_keys : gradients.zeros_of<T>(kValues);
      kernels::causal_lookup_backward(
          plan_of<T>(lookups, offsets, inputs),
          kernels::CausalLookupBackward<T>{gy.data<T>(), gradients.zeros_of<T>(kQueries), of_keys, of_values,
                                           gradients.zeros_of<T>(kLogDecay), gradients.zeros_of<T>(kGain)});
    });
    gradients.give();
  }
};

}  // namespace

Var causal_lookup(const Var& q, const Var& k, const Var& v, const Var& log_decay, const Var& gain, const Tensor& places,
                  const Offsets& offsets) {
  detail::check_one_type(kName, {{"q", &q}, {"k", &k}, {"v", &v}, {"log_decay", &log_decay}, {"gain", &gain}});
  const Shape &sq = q.shape(), &sk = k.shape(), &sv = v.shape();
  check<ShapeError>(
      sq.rank() == 2 && sk.rank() == 2 && sv.rank() == 2 && sk[1] == sq[1] && sv[0] == sk[0] && sq[1] > 0 && sv[1] > 0,
      kName, "needs q [M, K], k [T, K] and v [T, V] with columns; got q ", sq, ", k ", sk, " and v ", sv);
  offsets.check_rows(sk[0], kName);
  const std::array<Tensor, kInputs> inputs{
      detail::with_dense_rows(q.value()), detail::with_dense_rows(k.value()), detail::with_dense_rows(v.value()),
      detail::checked_log_decay(kName, log_decay, sk[0]), detail::checked_gain(kName, gain, sk[0])};
  const detail::SortedLookups lookups(kName, places, sq[0], sk[0]);
  detail::check_finite_rows(kName, "k", inputs[kKeys]);
  detail::check_finite_rows(kName, "v", inputs[kValues]);
  Tensor output({sq[0], sv[1]}, q.dtype());
  dispatch_floating(q.dtype(), kName, [&]<class T>(T) {
    kernels::causal_lookup_forward(plan_of<T>(lookups, offsets, inputs), output.mutable_data<T>());
  });
  // The family of the paper has k = v = f: a gradient for each would be as much memory again.
  const bool shared = &k == &v;
  CausalLookupRule rule{lookups, offsets, Saved(offsets.tensor()), {}, shared};
  for (std::size_t i = 0; i < inputs.size(); ++i) rule.saved[i] = Saved(inputs[i], inputs[i].defined());
  const Var none;
  return record(std::move(rule), {&q, &k, shared ? &none : &v, &log_decay, &gain}, std::move(output));
}

}  // namespace tally::ops
