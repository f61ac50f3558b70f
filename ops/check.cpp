#include "tally/ops/check.h"

#include <algorithm>

#include "tally/autograd/tape.h"
#include "tally/core/parallel.h"
#include "tally/ops/entry_checks.h"

namespace tally::ops {
namespace {

void check_count(const OpEntry& entry, std::span<const Tensor> inputs) {
  check<ConfigError>(inputs.size() == entry.inputs.size(), entry.name, "needs ", entry.inputs.size(), " inputs; got ",
                     inputs.size());
}

std::vector<Tensor> values_of(const std::vector<Var>& outputs) {
  std::vector<Tensor> values;
  for (const Var& output : outputs) values.push_back(output.value());
  return values;
}

bool compared_something(const EntryReport& report) {
  for (const SampleReport& sample : report.samples) {
    for (const LeafReport& leaf : sample.gradients.leaves) {
      if (leaf.checked > leaf.kinks) return true;
    }
  }
  return false;
}

bool has_kinks(const EntryReport& report) {
  for (const SampleReport& sample : report.samples) {
    for (const LeafReport& leaf : sample.gradients.leaves) {
      if (leaf.kinks > 0) return true;
    }
  }
  return false;
}

EntryVerdict conclude(const EntryReport& report) {
  bool inconclusive = false;
  for (const SampleReport& sample : report.samples) {
    if (!sample.error.empty() || !sample.complaints.empty() || sample.gradients.failed()) return EntryVerdict::fail;
    inconclusive = inconclusive || sample.gradients.inconclusive();
  }
  return inconclusive ? EntryVerdict::inconclusive : EntryVerdict::pass;
}

}  // namespace

std::vector<bool> differentiable_inputs(const OpEntry& entry, std::span<const Tensor> inputs) {
  check_count(entry, inputs);
  std::vector<bool> tracked;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    tracked.push_back(inputs[i].defined() && entry.inputs[i].kind == InputKind::differentiable);
  }
  return tracked;
}

std::vector<Var> as_vars(std::span<const Tensor> inputs, const std::vector<bool>& tracked) {
  std::vector<Var> vars;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (!inputs[i].defined()) {
      vars.emplace_back();
    } else {
      vars.push_back(tracked[i] ? Var::leaf(inputs[i]) : Var(inputs[i]));
    }
  }
  return vars;
}

Evaluation evaluate(const OpEntry& entry, std::span<const Tensor> inputs, const OpOptions& options,
                    const std::vector<bool>& tracked, std::span<const Tensor> cotangents) {
  check_count(entry, inputs);
  Tape tape;
  const std::vector<Var> vars = as_vars(inputs, tracked);
  std::vector<Var> outputs;
  {
    const Recording on(tape);
    outputs = entry.call(vars, options);
  }
  check<ConfigError>(cotangents.size() == outputs.size(), entry.name, "needs ", outputs.size(), " cotangents; got ",
                     cotangents.size());
  std::vector<Var> ends;
  std::vector<Tensor> seeds;
  for (std::size_t k = 0; k < outputs.size(); ++k) {
    if (!cotangents[k].defined()) continue;
    ends.push_back(outputs[k]);
    seeds.push_back(cotangents[k]);
  }
  const Gradients gradients = tape.backward(ends, seeds);
  Evaluation result{values_of(outputs), {}};
  for (const Var& var : vars) {
    const Gradient* found = var.is_leaf() ? gradients.find(var.leaf_id()) : nullptr;
    result.gradients.push_back(found == nullptr ? std::nullopt : std::optional(to_dense(*found)));
  }
  return result;
}

std::vector<Tensor> evaluate(const OpEntry& entry, std::span<const Tensor> inputs, const OpOptions& options) {
  check_count(entry, inputs);
  const Paused paused;
  return values_of(entry.call(as_vars(inputs, std::vector<bool>(inputs.size(), false)), options));
}

std::vector<Tensor> random_cotangents(std::span<const Tensor> outputs, RngKey key) {
  std::vector<Tensor> cotangents;
  for (std::size_t k = 0; k < outputs.size(); ++k) {
    Tensor cotangent;
    if (outputs[k].defined() && is_floating(outputs[k].dtype())) {
      cotangent = Tensor(outputs[k].shape(), outputs[k].dtype());
      fill_normal(key.fold_in(k), cotangent, 0, 1);
    }
    cotangents.push_back(std::move(cotangent));
  }
  return cotangents;
}

std::vector<Tensor> converted(std::span<const Tensor> inputs, DType dtype) {
  std::vector<Tensor> result;
  for (const Tensor& input : inputs) {
    result.push_back(input.defined() && is_floating(input.dtype()) ? input.to(dtype) : input);
  }
  return result;
}

std::string describe(const OptionValue& value) {
  if (const auto* flag = std::get_if<bool>(&value)) return *flag ? "true" : "false";
  if (const auto* text = std::get_if<std::string>(&value)) return '"' + *text + '"';
  if (const auto* whole = std::get_if<std::int64_t>(&value)) return std::to_string(*whole);
  if (const auto* number = std::get_if<double>(&value)) return detail::join(*number);
  std::string all;
  for (const std::int64_t each : std::get<std::vector<std::int64_t>>(value)) {
    all += (all.empty() ? "" : ", ") + std::to_string(each);
  }
  return '[' + all + ']';
}

std::string describe(const OpSample& sample) {
  std::string text = sample.name;
  const char* separator = " {";
  for (const auto& [name, value] : sample.options.values()) {
    text += separator + name + "=" + describe(value);
    separator = ", ";
  }
  return sample.options.values().empty() ? text : text + "}";
}

GradientReport check_sample(const OpEntry& entry, const OpSample& sample, const GradientCheckOptions& options) {
  // Thousands of calls on a few elements each: waking threads would take longer than they save, and the bits are the
  // same.
  const SerialScope serial;
  std::vector<Tensor> inputs;
  for (const Tensor& input : sample.inputs) inputs.push_back(input.defined() ? input.clone() : input);
  inputs = converted(inputs, DType::f64);
  const std::vector<Var> vars = as_vars(inputs, differentiable_inputs(entry, inputs));
  std::vector<CheckedLeaf> leaves;
  for (std::size_t i = 0; i < vars.size(); ++i) {
    if (vars[i].is_leaf()) leaves.push_back({entry.inputs[i].name, inputs[i], vars[i].leaf_id()});
  }
  GradientCheckOptions adjusted = options;
  adjusted.key = options.key.fold_in(entry.name);
  adjusted.at_kinks = sample.at_kinks;
  if (entry.surrogate) {
    std::vector<Tensor> base;  // stays where it is while the check moves the inputs
    for (const Tensor& input : inputs) base.push_back(input.defined() ? input.clone() : input);
    const auto frozen = entry.surrogate(base, sample.options);
    adjusted.surrogate = [frozen, vars] { return frozen(vars); };
  }
  GradientReport report = check_gradients([&] { return entry.call(vars, sample.options); }, leaves, adjusted);
  for (std::size_t i = 0; i < vars.size(); ++i) {
    if (!vars[i].defined() || vars[i].is_leaf()) continue;
    LeafReport& constant = report.leaves.emplace_back();
    constant.name = entry.inputs[i].name;
    constant.shape = vars[i].shape();
    constant.total = vars[i].numel();
    constant.verdict = GradientVerdict::not_differentiable;
  }
  return report;
}

EntryReport check_entry(const OpEntry& entry, const GradientCheckOptions& options) {
  check_tolerances(options);
  EntryReport report;
  report.op = entry.name;
  const bool differentiable = std::any_of(entry.inputs.begin(), entry.inputs.end(),
                                          [](const OpInput& input) { return input.kind == InputKind::differentiable; });
  for (const OpSample& sample : entry.samples()) {
    SampleReport& place = report.samples.emplace_back();
    place.sample = describe(sample);
    if (!sample.gradient) place.skipped = "not differentiable at this point, or too extreme to measure";
    try {
      for (const auto check : {check_constants, check_f32}) {
        for (std::string& complaint : check(entry, sample)) place.complaints.push_back(std::move(complaint));
      }
      if (sample.gradient && differentiable) place.gradients = check_sample(entry, sample, options);
    } catch (const std::exception& error) {
      place.error = error.what();
    }
  }
  report.verdict = conclude(report);
  if (!differentiable && report.verdict == EntryVerdict::pass) {
    report.complaint = "has no differentiable input";
    report.verdict = EntryVerdict::skip;
    return report;
  }
  if (report.verdict != EntryVerdict::fail && !entry.kinks && has_kinks(report)) {
    report.complaint = "elements lie on kinks, and the entry declares none";
    report.verdict = EntryVerdict::fail;
  } else if (report.verdict == EntryVerdict::pass && !compared_something(report)) {
    report.complaint = "no element of any sample could be compared";
    report.verdict = EntryVerdict::fail;
  }
  return report;
}

}  // namespace tally::ops
