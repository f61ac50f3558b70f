#include "tests/support/entry_checks.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "tally/autograd/tape.h"
#include "tally/core/memory.h"
#include "tally/core/parallel.h"
#include "tally/ops/check.h"

namespace tally::testing {
namespace {

using ops::differentiable_inputs;
using ops::Evaluation;
using ops::InputKind;
using ops::OpEntry;
using ops::OpSample;

constexpr RngKey kCotangentKey{4711, 7};
constexpr double kLargestFloat = std::numeric_limits<float>::max();

Evaluation run(const OpEntry& entry, const std::vector<Tensor>& inputs, const ops::OpOptions& options) {
  const std::vector<Tensor> cotangents = ops::random_cotangents(ops::evaluate(entry, inputs, options), kCotangentKey);
  return ops::evaluate(entry, inputs, options, differentiable_inputs(entry, inputs), cotangents);
}

std::vector<Tensor> copies(const std::vector<Tensor>& tensors) {
  std::vector<Tensor> result;
  for (const Tensor& tensor : tensors) result.push_back(tensor.defined() ? tensor.clone() : tensor);
  return result;
}

/// Largest difference relative to `scale`; infinity where one is finite and the other is not.
struct Difference {
  double largest = 0;
  std::int64_t index = 0;
  double got = 0, wanted = 0;

  void see(std::int64_t i, double value, double expected, double error) {
    if (error <= largest) return;
    largest = error;
    index = i;
    got = value;
    wanted = expected;
  }
};

/// `bound`: magnitudes beyond it count as infinite in `expected`.
double largest_finite(const std::vector<double>& values, double bound) {
  double largest = 0;
  for (const double value : values) {
    if (std::isfinite(value) && std::abs(value) <= bound) largest = std::max(largest, std::abs(value));
  }
  return largest;
}

Difference difference(const Tensor& got, const Tensor& expected, double bound) {
  const std::vector<double> a = got.to_doubles(), b = expected.to_doubles();
  Difference worst;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const auto index = static_cast<std::int64_t>(i);
    if (a[i] == b[i] || (std::isnan(a[i]) && std::isnan(b[i]))) continue;
    if (std::isinf(a[i]) && std::abs(b[i]) > 0.999 * bound && std::signbit(a[i]) == std::signbit(b[i])) continue;
    const double error = std::abs(a[i] - b[i]);
    worst.see(index, a[i], b[i], std::isfinite(error) ? error : HUGE_VAL);
  }
  return worst;
}

Complaints compare(const std::string& what, const Tensor& got, const Tensor& expected, double rtol, double bound) {
  if (got.shape() != expected.shape()) {
    return {detail::join(what, " has shape ", got.shape(), "; expected ", expected.shape())};
  }
  if (is_floating(got.dtype()) != is_floating(expected.dtype())) {
    return {detail::join(what, " has type ", got.dtype(), "; expected ", expected.dtype())};
  }
  const double scale = std::max(1.0, largest_finite(expected.to_doubles(), bound));
  const double allowed = is_floating(got.dtype()) ? rtol * scale : 0;
  const Difference worst = difference(got, expected, bound);
  if (worst.largest <= allowed) return {};
  return {detail::join(what, " differs by ", worst.largest, " at ", worst.index, " (allowed ", allowed, "): got ",
                       worst.got, ", expected ", worst.wanted)};
}

void append(Complaints& all, Complaints more) {
  all.insert(all.end(), std::make_move_iterator(more.begin()), std::make_move_iterator(more.end()));
}

Complaints compare_bits(const std::string& what, const Evaluation& got, const Evaluation& expected) {
  Complaints complaints;
  for (std::size_t k = 0; k < expected.outputs.size(); ++k) {
    if (!identical(got.outputs[k], expected.outputs[k])) {
      complaints.push_back(detail::join(what, ": output ", k, " has other bits"));
    }
  }
  for (std::size_t i = 0; i < expected.gradients.size(); ++i) {
    const auto &a = got.gradients[i], &b = expected.gradients[i];
    if (a.has_value() != b.has_value() || (a && !identical(*a, *b))) {
      complaints.push_back(detail::join(what, ": the gradient of input ", i, " has other bits"));
    }
  }
  return complaints;
}

/// Forward on a fresh tape, then something in between, then backward.
template <class Between>
Evaluation interrupted(const OpEntry& entry, const std::vector<Tensor>& inputs, const ops::OpOptions& options,
                       Between&& between) {
  Tape tape;
  const std::vector<Var> vars = ops::as_vars(inputs, differentiable_inputs(entry, inputs));
  std::vector<Var> outputs;
  {
    const Recording on(tape);
    outputs = entry.call(vars, options);
  }
  Evaluation result;
  for (const Var& output : outputs) result.outputs.push_back(output.value());
  const std::vector<Tensor> cotangents = ops::random_cotangents(result.outputs, kCotangentKey);
  std::vector<Var> ends;
  std::vector<Tensor> seeds;
  for (std::size_t k = 0; k < outputs.size(); ++k) {
    if (!cotangents[k].defined()) continue;
    ends.push_back(outputs[k]);
    seeds.push_back(cotangents[k]);
  }
  between(result.outputs);
  const Gradients gradients = tape.backward(ends, seeds);
  for (const Var& var : vars) {
    const Gradient* found = var.is_leaf() ? gradients.find(var.leaf_id()) : nullptr;
    result.gradients.push_back(found == nullptr ? std::nullopt : std::optional(to_dense(*found)));
  }
  return result;
}

/// Other values, valid ones for integers: zero is an index, a mask and a bound.
void overwrite(Tensor& tensor) { tensor.fill(is_floating(tensor.dtype()) ? 0.25 : 0); }

bool is_zero(const Tensor& tensor) {
  const std::vector<double> values = tensor.to_doubles();
  return std::all_of(values.begin(), values.end(), [](double value) { return value == 0; });
}

/// Views of the same values: with the first two dimensions stored the other way round, or beginning inside a larger
/// tensor.
Tensor as_view(const Tensor& tensor) {
  if (!tensor.defined() || tensor.rank() == 0 || tensor.numel() == 0) return tensor;
  if (tensor.rank() >= 2) return tensor.transpose(0, 1).clone().transpose(0, 1);
  Tensor larger(Shape{tensor.dim(0) + 1}, tensor.dtype());
  larger.fill(0);
  std::copy_n(tensor.raw_data(), tensor.bytes(), larger.mutable_raw_data() + size_of(tensor.dtype()));
  return larger.slice(0, 1, tensor.dim(0) + 1);
}

bool same_value(const ops::OptionValue& a, const ops::OptionValue& b) {
  return a.index() == b.index() && ops::describe(a) == ops::describe(b);
}

}  // namespace

Complaints compare_with_reference(const std::vector<Tensor>& outputs, const std::vector<Tensor>& expected,
                                  double rtol) {
  if (outputs.size() != expected.size()) {
    return {detail::join("there are ", outputs.size(), " outputs and ", expected.size(), " in the reference")};
  }
  Complaints complaints;
  for (std::size_t k = 0; k < outputs.size(); ++k) {
    append(complaints, compare(detail::join("output ", k), outputs[k], expected[k], rtol, HUGE_VAL));
  }
  return complaints;
}

Complaints check_f32(const OpEntry& entry, const OpSample& sample) {
  const std::vector<Tensor> narrow = ops::converted(sample.inputs, DType::f32);
  const std::vector<Tensor> wide = ops::converted(narrow, DType::f64);
  const std::vector<Tensor> wide_outputs = ops::evaluate(entry, wide, sample.options);
  const std::vector<Tensor> cotangents =
      ops::converted(ops::random_cotangents(wide_outputs, kCotangentKey), DType::f32);
  const std::vector<bool> tracked = differentiable_inputs(entry, narrow);
  const Evaluation got = ops::evaluate(entry, narrow, sample.options, tracked, cotangents);
  const Evaluation expected =
      ops::evaluate(entry, wide, sample.options, tracked, ops::converted(cotangents, DType::f64));
  Complaints complaints;
  for (std::size_t k = 0; k < got.outputs.size(); ++k) {
    if (is_floating(expected.outputs[k].dtype()) && got.outputs[k].dtype() != DType::f32) {
      complaints.push_back(detail::join("output ", k, " of f32 inputs is ", got.outputs[k].dtype()));
    }
    append(complaints, compare(detail::join("output ", k), got.outputs[k], expected.outputs[k], entry.f32_tolerance,
                               kLargestFloat));
  }
  for (std::size_t i = 0; i < got.gradients.size(); ++i) {
    const auto &gradient = got.gradients[i], &wanted = expected.gradients[i];
    const std::string what = "the gradient of '" + entry.inputs[i].name + "'";
    if (gradient.has_value() != wanted.has_value()) {
      complaints.push_back(what + " is there in one type only");
    } else if (gradient && sample.gradient) {
      append(complaints, compare(what, *gradient, *wanted, entry.f32_tolerance, kLargestFloat));
    } else if (gradient && all_finite(*wanted) && largest_finite(wanted->to_doubles(), HUGE_VAL) < kLargestFloat &&
               !all_finite(*gradient)) {
      complaints.push_back(what + " is not finite in f32 although it is in f64");
    }
  }
  return complaints;
}

Complaints check_leaks(const OpEntry& entry, const OpSample& sample) {
  run(entry, sample.inputs, sample.options);  // tables that are made once stay
  const std::int64_t before = memory_stats().active_bytes;
  run(entry, sample.inputs, sample.options);
  const std::int64_t after = memory_stats().active_bytes;
  if (after == before) return {};
  return {detail::join(after - before, " bytes are still held after backward")};
}

Complaints check_versions(const OpEntry& entry, const OpSample& sample) {
  Complaints complaints;
  const Evaluation expected = run(entry, sample.inputs, sample.options);
  const auto attempt = [&](const std::string& what, const std::vector<Tensor>& inputs, auto&& between) {
    try {
      Evaluation got = interrupted(entry, inputs, sample.options, between);
      got.outputs = expected.outputs;
      append(complaints, compare_bits("after " + what + " was overwritten", got, expected));
    } catch (const AutogradError& error) {
      const std::string text = error.what();
      if (text.find(entry.name) == std::string::npos || text.find("overwritten") == std::string::npos) {
        complaints.push_back("the error after " + what + " was overwritten does not name the op: " + text);
      }
    }
  };
  for (std::size_t i = 0; i < sample.inputs.size(); ++i) {
    if (!sample.inputs[i].defined()) continue;
    const std::vector<Tensor> inputs = copies(sample.inputs);
    attempt("input '" + entry.inputs[i].name + "'", inputs, [&](std::vector<Tensor>&) {
      Tensor input = inputs[i];
      overwrite(input);
    });
  }
  for (std::size_t k = 0; k < expected.outputs.size(); ++k) {
    attempt(detail::join("output ", k), copies(sample.inputs), [&](std::vector<Tensor>& outputs) {
      if (outputs[k].is_contiguous()) overwrite(outputs[k]);
    });
  }
  return complaints;
}

Complaints check_tracking(const OpEntry& entry, const OpSample& sample) {
  Complaints complaints;
  const std::vector<Tensor>& inputs = sample.inputs;
  // An op may return an input itself (dropout at rate 0): a leaf is no record of anything.
  const auto any_tracked = [](const std::vector<Var>& outputs) {
    return std::any_of(outputs.begin(), outputs.end(),
                       [](const Var& output) { return output.tracked() && !output.is_leaf(); });
  };
  const std::vector<bool> all = differentiable_inputs(entry, inputs), none(inputs.size(), false);
  if (any_tracked(entry.call(ops::as_vars(inputs, all), sample.options))) {
    complaints.emplace_back("without a tape an output is tracked");
  }
  {
    Tape tape;
    const Recording on(tape);
    if (any_tracked(entry.call(ops::as_vars(inputs, none), sample.options)) || tape.size() > 0) {
      complaints.emplace_back("constants are recorded");
    }
  }
  const Evaluation expected = run(entry, inputs, sample.options);
  const std::vector<Tensor> cotangents = ops::random_cotangents(expected.outputs, kCotangentKey);
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (!all[i]) {
      if (!inputs[i].defined() || entry.inputs[i].kind != InputKind::constant) continue;
      std::vector<bool> more = all;
      more[i] = true;
      const Evaluation got = ops::evaluate(entry, inputs, sample.options, more, cotangents);
      if (got.gradients[i] && !is_zero(*got.gradients[i])) {
        complaints.push_back("the constant input '" + entry.inputs[i].name + "' gets a gradient");
      }
      continue;
    }
    std::vector<bool> alone = none;
    alone[i] = true;
    const Evaluation got = ops::evaluate(entry, inputs, sample.options, alone, cotangents);
    for (std::size_t k = 0; k < got.outputs.size(); ++k) {
      if (!identical(got.outputs[k], expected.outputs[k])) {
        complaints.push_back(
            detail::join("output ", k, " has other bits when only '", entry.inputs[i].name, "' is tracked"));
      }
    }
    const auto &one = got.gradients[i], &with_others = expected.gradients[i];
    if (one.has_value() != with_others.has_value() || (one && !identical(*one, *with_others))) {
      complaints.push_back("the gradient of '" + entry.inputs[i].name + "' has other bits when only it is tracked");
    }
  }
  return complaints;
}

Complaints check_cotangents(const OpEntry& entry, const OpSample& sample) {
  Complaints complaints;
  const std::vector<Tensor>& inputs = sample.inputs;
  const std::vector<bool> tracked = differentiable_inputs(entry, inputs);
  const Evaluation expected = run(entry, inputs, sample.options);
  const std::vector<Tensor> cotangents = ops::random_cotangents(expected.outputs, kCotangentKey);
  const auto gradients = [&](const std::vector<Tensor>& seeds) {
    return ops::evaluate(entry, inputs, sample.options, tracked, seeds).gradients;
  };
  const auto dense = [&](const std::optional<Tensor>& gradient, std::size_t i) {
    return gradient ? *gradient : Tensor::zeros(inputs[i].shape(), inputs[i].dtype());
  };

  std::vector<Tensor> zeros, doubled;
  for (const Tensor& cotangent : cotangents) {
    zeros.push_back(cotangent.defined() ? Tensor::zeros(cotangent.shape(), cotangent.dtype()) : Tensor());
    doubled.push_back(cotangent.defined() ? cotangent.clone() : Tensor());
    if (cotangent.defined()) {
      for (double& value : doubled.back().mutable_span<double>()) value *= 2;
    }
  }
  const auto of_zeros = gradients(zeros), of_doubled = gradients(doubled);
  std::vector<std::vector<double>> sums(inputs.size());
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (!tracked[i]) continue;
    const std::string name = "the gradient of '" + entry.inputs[i].name + "'";
    if (!is_zero(dense(of_zeros[i], i))) complaints.push_back(name + " is not zero for cotangents of zero");
    Tensor twice = dense(expected.gradients[i], i).clone();
    for (double& value : twice.mutable_span<double>()) value *= 2;
    append(complaints, compare(name + " for doubled cotangents", dense(of_doubled[i], i), twice, 1e-12, HUGE_VAL));
    sums[i].assign(static_cast<std::size_t>(inputs[i].numel()), 0);
  }
  for (std::size_t k = 0; k < cotangents.size() && cotangents.size() > 1; ++k) {
    if (!cotangents[k].defined()) continue;
    std::vector<Tensor> absent(cotangents.size()), explicit_zeros = zeros;
    absent[k] = explicit_zeros[k] = cotangents[k];
    const auto one = gradients(absent), other = gradients(explicit_zeros);
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      if (!tracked[i]) continue;
      const Tensor alone = dense(one[i], i);
      append(complaints, compare(detail::join("the gradient of '", entry.inputs[i].name, "' from output ", k, " alone"),
                                 alone, dense(other[i], i), 1e-12, HUGE_VAL));
      const std::vector<double> values = alone.to_doubles();
      for (std::size_t j = 0; j < values.size(); ++j) sums[i][j] += values[j];
    }
  }
  for (std::size_t i = 0; i < inputs.size() && cotangents.size() > 1; ++i) {
    if (!tracked[i]) continue;
    append(complaints,
           compare("the sum over outputs of the gradients of '" + entry.inputs[i].name + "'",
                   Tensor::from(sums[i], inputs[i].shape()), dense(expected.gradients[i], i), 1e-11, HUGE_VAL));
  }
  return complaints;
}

Complaints check_threads(const OpEntry& entry, const OpSample& sample) {
  Complaints complaints;
  struct Restore {
    int threads = num_threads();
    ~Restore() { set_num_threads(threads); }
  } restore;
  const std::vector<Tensor> inputs = ops::converted(sample.inputs, DType::f32);
  set_num_threads(1);
  const Evaluation expected = run(entry, inputs, sample.options);
  for (const int threads : {2, 8}) {
    set_num_threads(threads);
    append(complaints,
           compare_bits(detail::join("on ", threads, " threads"), run(entry, inputs, sample.options), expected));
  }
  return complaints;
}

Complaints check_views(const OpEntry& entry, const OpSample& sample) {
  Complaints complaints;
  for (const DType dtype : {DType::f64, DType::f32}) {
    const std::vector<Tensor> inputs = ops::converted(sample.inputs, dtype);
    const Evaluation expected = run(entry, inputs, sample.options);
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      std::vector<Tensor> views = inputs;
      views[i] = as_view(inputs[i]);
      append(complaints, compare_bits(detail::join("with a view as '", entry.inputs[i].name, "' in ", dtype),
                                      run(entry, views, sample.options), expected));
    }
  }
  return complaints;
}

Complaints check_error(const OpEntry& entry, const ops::OpError& error) {
  try {
    ops::evaluate(entry, error.inputs, error.options);
  } catch (const Error& thrown) {
    const std::string text = thrown.what();
    Complaints complaints;
    if (text.find(error.message) == std::string::npos) {
      complaints.push_back("the error does not say '" + error.message + "': " + text);
    }
    if (error.message.empty()) complaints.emplace_back("the entry does not say what the error tells");
    if (!text.starts_with('[')) complaints.push_back("the error does not begin with where it arose: " + text);
    return complaints;
  } catch (const std::exception& other) {
    return {std::string("the exception is no tally::Error: ") + other.what()};
  }
  return {"the call is not refused"};
}

Complaints check_documentation(const OpEntry& entry) {
  Complaints complaints;
  const auto demand = [&](bool ok, const std::string& complaint) {
    if (!ok) complaints.push_back(complaint);
  };
  demand(!entry.summary.empty() && entry.summary.ends_with('.'), "the summary is not a sentence");
  demand(!entry.inputs.empty(), "it has no inputs");
  std::set<std::string> names;
  for (const ops::OpInput& input : entry.inputs) {
    demand(names.insert(input.name).second, "two inputs are named '" + input.name + "'");
    demand(!input.name.empty() && !input.shape.empty(), "input '" + input.name + "' has no name or no shape");
  }
  for (const ops::OpOutput& output : entry.outputs) {
    demand(!output.name.empty() && !output.shape.empty(), "output '" + output.name + "' has no name or no shape");
  }
  const std::vector<OpSample> samples = entry.samples();
  std::set<std::string> options;
  for (const ops::OpOption& option : entry.options) {
    demand(options.insert(option.name).second, "two options are named '" + option.name + "'");
    demand(!option.doc.empty(), "option '" + option.name + "' is not documented");
    const bool exercised = std::any_of(samples.begin(), samples.end(), [&](const OpSample& sample) {
      const auto found = sample.options.values().find(option.name);
      return found != sample.options.values().end() && !same_value(found->second, option.otherwise);
    });
    demand(exercised, "no sample sets option '" + option.name + "' to another value than its default");
  }
  for (std::size_t i = 0; i < entry.inputs.size(); ++i) {
    if (!entry.inputs[i].optional) continue;
    const auto given = [&](const OpSample& sample) { return sample.inputs[i].defined(); };
    demand(std::any_of(samples.begin(), samples.end(), given) && !std::all_of(samples.begin(), samples.end(), given),
           "the samples do not both give and leave out the optional '" + entry.inputs[i].name + "'");
  }
  const auto known = [&](const ops::OpOptions& given, const std::string& where) {
    for (const auto& [name, value] : given.values()) {
      demand(options.contains(name), where + " sets an option '" + name + "' that the entry does not list");
    }
  };
  for (const OpSample& sample : samples) {
    known(sample.options, "sample '" + sample.name + "'");
    for (std::size_t i = 0; i < entry.inputs.size(); ++i) {
      const Tensor& input = sample.inputs[i];
      demand(input.defined() || entry.inputs[i].optional,
             "sample '" + sample.name + "' leaves out '" + entry.inputs[i].name + "'");
      if (!input.defined()) continue;
      const bool integer = entry.inputs[i].kind == InputKind::integer;
      demand(integer ? !is_floating(input.dtype()) : input.dtype() == DType::f64,
             "sample '" + sample.name + "' gives '" + entry.inputs[i].name + "' as " +
                 std::string(name_of(input.dtype())));
    }
  }
  if (entry.errors) {
    for (const ops::OpError& error : entry.errors()) {
      demand(error.inputs.size() == entry.inputs.size(), "error '" + error.name + "' does not give every input");
    }
  }
  demand(static_cast<bool>(entry.errors) && !entry.errors().empty(), "no call that must be refused is listed");
  return complaints;
}

}  // namespace tally::testing
