#include "tally/autograd/checked_call.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace tally::detail {
namespace {

constexpr std::string_view kWhere = "gradient check";
constexpr double kEpsilon = std::numeric_limits<double>::epsilon();

/// The floating outputs of one evaluation, contiguous: what is differentiated.
std::vector<Tensor> floating_values(const std::vector<Var>& outputs) {
  std::vector<Tensor> values;
  for (const Var& output : outputs) {
    if (output.defined() && is_floating(output.dtype())) values.push_back(output.value().contiguous());
  }
  return values;
}

std::vector<Tensor> evaluate(const CheckedFunction& f) {
  const Paused paused;
  std::vector<Tensor> values = floating_values(f());
  for (Tensor& value : values) {
    check<DTypeError>(value.dtype() == DType::f64, kWhere, "needs f64 outputs; got ", value.dtype(), value.shape());
    value = value.clone();  // it may be a view of a leaf, which is about to move
  }
  return values;
}

std::vector<Tensor> draw_cotangents(const std::vector<Tensor>& outputs, RngKey key) {
  std::vector<Tensor> cotangents;
  for (std::size_t k = 0; k < outputs.size(); ++k) {
    Tensor cotangent(outputs[k].shape(), DType::f64);
    fill_normal(key.fold_in("cotangent").fold_in(k), cotangent, 0, 1);
    cotangents.push_back(std::move(cotangent));
  }
  return cotangents;
}

Gradients differentiate(const CheckedFunction& f, const std::vector<Tensor>& cotangents) {
  Tape tape;
  std::vector<Var> outputs;
  {
    const Recording on(tape);
    for (const Var& output : f()) {
      if (output.defined() && is_floating(output.dtype())) outputs.push_back(output);
    }
  }
  return tape.backward(outputs, cotangents);
}

}  // namespace

CheckedCall::CheckedCall(const CheckedFunction& f, const GradientCheckOptions& options)
    : numeric_function_(options.surrogate ? options.surrogate : f), outputs_(evaluate(f)) {
  cotangents_ = draw_cotangents(outputs_, options.key);
  analytic_ = differentiate(f, cotangents_);
  again_ = differentiate(f, cotangents_);
  const std::vector<Tensor> second = evaluate(f);
  repeatable_ = second.size() == outputs_.size();
  for (std::size_t k = 0; repeatable_ && k < second.size(); ++k) repeatable_ = identical(second[k], outputs_[k]);
  base_ = options.surrogate ? evaluate(options.surrogate) : outputs_;
  if (options.surrogate) check_surrogate_value(options);
  for (std::size_t k = 0; k < base_.size(); ++k) {
    for (std::int64_t i = 0; i < base_[k].numel(); ++i) {
      const double size = std::abs(cotangents_[k].data<double>()[i] * base_[k].data<double>()[i]);
      if (std::isfinite(size)) resolution_ += kEpsilon * size;
    }
  }
}

std::optional<Tensor> CheckedCall::gradient_of(const CheckedLeaf& leaf, bool again) const {
  const Gradient* found = (again ? again_ : analytic_).find(leaf.id);
  if (found == nullptr) return std::nullopt;
  const Tensor dense = to_dense(*found).contiguous();
  check<AutogradError>(dense.shape() == leaf.value.shape() && dense.dtype() == leaf.value.dtype(), kWhere, "leaf '",
                       leaf.name, "' of ", leaf.value.dtype(), leaf.value.shape(), " got a gradient of ", dense.dtype(),
                       dense.shape());
  return dense;
}

Change CheckedCall::change() const {
  const std::vector<Tensor> moved = evaluate(numeric_function_);
  check<ShapeError>(moved.size() == base_.size(), kWhere, "needs a function with a fixed number of outputs; got ",
                    base_.size(), ", then ", moved.size());
  Change change;
  for (std::size_t k = 0; k < base_.size(); ++k) {
    check<ShapeError>(moved[k].shape() == base_[k].shape(), kWhere, "needs outputs of a fixed shape; output ", k,
                      " was ", base_[k].shape(), ", then ", moved[k].shape());
    const std::span<const double> to = moved[k].span<double>(), from = base_[k].span<double>();
    const std::span<const double> weight = cotangents_[k].span<double>();
    for (std::size_t i = 0; i < from.size(); ++i) {
      if (to[i] == from[i]) continue;
      change.value += weight[i] * (to[i] - from[i]);
      change.rounding += kEpsilon * std::abs(weight[i]) * std::max(std::abs(to[i]), std::abs(from[i]));
    }
  }
  return change;
}

void CheckedCall::check_surrogate_value(const GradientCheckOptions& options) {
  check<ShapeError>(base_.size() == outputs_.size(), kWhere, "needs a surrogate with ", outputs_.size(),
                    " outputs; got ", base_.size());
  for (std::size_t k = 0; k < base_.size(); ++k) {
    check<ShapeError>(base_[k].shape() == outputs_[k].shape(), kWhere,
                      "needs a surrogate with the function's shapes; output ", k, " is ", outputs_[k].shape(),
                      " and the surrogate's ", base_[k].shape());
    for (std::int64_t i = 0; i < base_[k].numel(); ++i) {
      const double wanted = outputs_[k].data<double>()[i], got = base_[k].data<double>()[i];
      if (!(std::abs(got - wanted) <= options.atol + options.rtol * std::abs(wanted))) surrogate_fits_ = false;
    }
  }
}

}  // namespace tally::detail
