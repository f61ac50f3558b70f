#include "tally/ops/f32_check.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "tally/ops/check.h"

namespace tally::ops {
namespace {

constexpr RngKey kF32CotangentKey{4711, 7};
constexpr double kLargestFloat = std::numeric_limits<float>::max();

double largest_finite(const Tensor& tensor, double bound) {
  double largest = 0;
  for (const double value : tensor.to_doubles()) {
    if (std::isfinite(value) && std::abs(value) <= bound) largest = std::max(largest, std::abs(value));
  }
  return largest;
}

/// `bound`: magnitudes beyond it count as infinite in `expected`.
F32Difference difference(const std::string& what, const Tensor& got, const Tensor& expected, double bound) {
  const std::vector<double> a = got.to_doubles(), b = expected.to_doubles();
  F32Difference worst;
  worst.what = what;
  worst.scale = largest_finite(expected, bound);
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (a[i] == b[i] || (std::isnan(a[i]) && std::isnan(b[i]))) continue;
    if (std::isinf(a[i]) && std::abs(b[i]) > 0.999 * bound && std::signbit(a[i]) == std::signbit(b[i])) continue;
    const double distance = std::abs(a[i] - b[i]), error = std::isfinite(distance) ? distance : HUGE_VAL;
    if (error <= worst.largest) continue;
    worst.largest = error;
    worst.index = static_cast<std::int64_t>(i);
    worst.got = a[i];
    worst.expected = b[i];
  }
  return worst;
}

std::string tell(const F32Difference& found, double allowed) {
  return detail::join(found.what, " differs by ", found.largest, " at ", found.index, " (allowed ", allowed, "): got ",
                      found.got, ", expected ", found.expected);
}

constexpr double kLastBit = 0x1p-24;
/// What is smaller in f64, relative to the terms that it is a sum of, is zero but for rounding.
constexpr double kNothing = 1e-9;

/// Floating tensors with every element off by up to `relative` of itself.
std::vector<Tensor> shaken(std::span<const Tensor> tensors, double relative, RngKey key) {
  std::vector<Tensor> result(tensors.begin(), tensors.end());
  for (std::size_t i = 0; i < result.size(); ++i) {
    if (!result[i].defined() || !is_floating(result[i].dtype())) continue;
    result[i] = result[i].clone();
    Tensor draws(result[i].shape(), DType::f64);
    fill_uniform(key.fold_in(i), draws, -1, 1);
    double* to = result[i].mutable_data<double>();
    for (std::int64_t j = 0; j < draws.numel(); ++j) to[j] *= 1 + relative * draws.data<double>()[j];
  }
  return result;
}

}  // namespace

Complaints compare_tensors(const std::string& what, const Tensor& got, const Tensor& expected, double rtol,
                           double least_scale) {
  if (got.shape() != expected.shape()) {
    return {detail::join(what, " has shape ", got.shape(), "; expected ", expected.shape())};
  }
  if (is_floating(got.dtype()) != is_floating(expected.dtype())) {
    return {detail::join(what, " has type ", got.dtype(), "; expected ", expected.dtype())};
  }
  const F32Difference found = difference(what, got, expected, HUGE_VAL);
  const double allowed = is_floating(got.dtype()) ? rtol * std::max(least_scale, found.scale) : 0;
  return found.largest <= allowed ? Complaints{} : Complaints{tell(found, allowed)};
}

Complaints compare_with_reference(const std::vector<Tensor>& outputs, const std::vector<Tensor>& expected,
                                  double rtol) {
  if (outputs.size() != expected.size()) {
    return {detail::join("there are ", outputs.size(), " outputs and ", expected.size(), " in the reference")};
  }
  Complaints complaints;
  for (std::size_t k = 0; k < outputs.size(); ++k) {
    for (std::string& each : compare_tensors(detail::join("output ", k), outputs[k], expected[k], rtol)) {
      complaints.push_back(std::move(each));
    }
  }
  return complaints;
}

F32Report compare_f32(const OpEntry& entry, const OpSample& sample) {
  F32Report report;
  report.refused = f32_refusal(entry, sample);
  if (!report.refused.empty()) return report;
  const std::vector<Tensor> narrow = converted(sample.inputs, DType::f32), wide = converted(narrow, DType::f64);
  const std::vector<Tensor> cotangents =
      converted(random_cotangents(evaluate(entry, wide, sample.options), kF32CotangentKey), DType::f32);
  const std::vector<Tensor> wide_cotangents = converted(cotangents, DType::f64);
  const std::vector<bool> tracked = differentiable_inputs(entry, narrow);
  const Evaluation expected = evaluate(entry, wide, sample.options, tracked, wide_cotangents);
  const std::vector<Tensor> outputs = evaluate(entry, narrow, sample.options);
  for (std::size_t k = 0; k < outputs.size(); ++k) {
    if (!is_floating(outputs[k].dtype()) || outputs[k].dtype() == DType::f32) continue;
    report.complaints.push_back(
        detail::join("output '", entry.outputs.at(k).name, "' of f32 inputs is ", outputs[k].dtype()));
  }
  if (!report.complaints.empty()) return report;
  const Evaluation got = evaluate(entry, narrow, sample.options, tracked, cotangents);
  // What the last bits of the inputs can do is no mistake of the op.
  const auto shake = [&](double relative) {
    return evaluate(entry, shaken(wide, relative, kF32CotangentKey.fold_in(1)), sample.options, tracked,
                    shaken(wide_cotangents, relative, kF32CotangentKey.fold_in(2)));
  };
  double largest_cotangent = 0;
  for (const Tensor& each : wide_cotangents) {
    if (each.defined()) largest_cotangent = std::max(largest_cotangent, largest_finite(each, HUGE_VAL));
  }
  Evaluation moved, moved_less;
  if (sample.gradient) {
    moved = shake(kLastBit);
    moved_less = shake(kLastBit / 64);
  }
  const auto compare = [&](const std::string& what, const Tensor& a, const Tensor& b, const Tensor* far,
                           const Tensor* near, double terms) {
    if (a.shape() != b.shape() || is_floating(a.dtype()) != is_floating(b.dtype())) {
      report.complaints.push_back(detail::join(what, " is ", a.dtype(), a.shape(), " of f32 inputs and ", b.dtype(),
                                               b.shape(), " of f64 inputs"));
      return;
    }
    F32Difference found = difference(what, a, b, kLargestFloat);
    // Before the step below, which makes much of the last bits of f64.
    if (found.scale <= kNothing * terms) found.scale = terms;
    if (far != nullptr && near != nullptr && is_floating(b.dtype())) {
      // In proportion to the step; a code or another choice that flips is no measure of anything.
      const double shift = difference(what, *far, b, HUGE_VAL).largest;
      if (shift > 8 * difference(what, *near, b, HUGE_VAL).largest)
        found.scale = std::max(found.scale, shift / kLastBit);
    }
    report.differences.push_back(std::move(found));
  };
  for (std::size_t k = 0; k < got.outputs.size(); ++k) {
    const std::string what = "output '" + entry.outputs.at(k).name + "'";
    compare(what, got.outputs[k], expected.outputs[k], sample.gradient ? &moved.outputs[k] : nullptr,
            sample.gradient ? &moved_less.outputs[k] : nullptr, 0);
  }
  for (std::size_t i = 0; i < got.gradients.size(); ++i) {
    const auto &gradient = got.gradients[i], &wanted = expected.gradients[i];
    const std::string what = "the gradient of '" + entry.inputs[i].name + "'";
    if (gradient.has_value() != wanted.has_value()) {
      report.complaints.push_back(what + " is there in one type only");
    } else if (gradient && sample.gradient) {
      const auto of = [&](const Evaluation& each) { return each.gradients[i] ? &*each.gradients[i] : nullptr; };
      compare(what, *gradient, *wanted, of(moved), of(moved_less), largest_cotangent);
    } else if (gradient && all_finite(*wanted) && largest_finite(*wanted, HUGE_VAL) < kLargestFloat &&
               !all_finite(*gradient)) {
      report.complaints.push_back(what + " is not finite in f32 although it is in f64");
    }
  }
  return report;
}

std::string f32_refusal(const OpEntry& entry, const OpSample& sample) {
  try {
    evaluate(entry, converted(sample.inputs, DType::f32), sample.options);
    return "";
  } catch (const DTypeError& error) {
    return error.what();
  }
}

Complaints check_f32(const OpEntry& entry, const OpSample& sample) {
  F32Report report = compare_f32(entry, sample);
  for (const F32Difference& found : report.differences) {
    const double allowed = entry.f32_tolerance * found.scale;
    if (found.largest > allowed) report.complaints.push_back("in f32 " + tell(found, allowed));
  }
  return report.complaints;
}

std::vector<MeasuredTolerance> measured_tolerances(const OpEntry& entry) {
  std::vector<MeasuredTolerance> measured;
  for (const OpSample& sample : entry.samples()) {
    for (const F32Difference& found : compare_f32(entry, sample).differences) {
      const auto same = std::find_if(measured.begin(), measured.end(),
                                     [&](const MeasuredTolerance& each) { return each.what == found.what; });
      if (same == measured.end()) {
        measured.push_back({found.what, found.relative()});
      } else {
        same->relative = std::max(same->relative, found.relative());
      }
    }
  }
  return measured;
}

}  // namespace tally::ops
