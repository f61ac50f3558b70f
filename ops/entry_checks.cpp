#include "tally/ops/entry_checks.h"

#include <algorithm>
#include <bit>
#include <optional>

#include "tally/autograd/tape.h"
#include "tally/core/memory.h"
#include "tally/core/parallel.h"
#include "tally/ops/check.h"

namespace tally::ops {
namespace {

constexpr RngKey kCotangentKey{4711, 7};

Evaluation run(const OpEntry& entry, const std::vector<Tensor>& inputs, const OpOptions& options) {
  const std::vector<Tensor> cotangents = random_cotangents(evaluate(entry, inputs, options), kCotangentKey);
  return evaluate(entry, inputs, options, differentiable_inputs(entry, inputs), cotangents);
}

/// f64, and f32 where the op takes it.
std::vector<DType> types_of(const OpEntry& entry, const OpSample& sample) {
  return f32_refusal(entry, sample).empty() ? std::vector{DType::f64, DType::f32} : std::vector{DType::f64};
}

std::vector<Tensor> copies(const std::vector<Tensor>& tensors) {
  std::vector<Tensor> result;
  for (const Tensor& tensor : tensors) result.push_back(tensor.defined() ? tensor.clone() : tensor);
  return result;
}

void append(Complaints& all, Complaints more) {
  all.insert(all.end(), std::make_move_iterator(more.begin()), std::make_move_iterator(more.end()));
}

bool same_bits(const std::optional<Tensor>& a, const std::optional<Tensor>& b) {
  return a.has_value() == b.has_value() && (!a || identical(*a, *b));
}

std::string quoted(const OpEntry& entry, std::size_t input) { return "'" + entry.inputs[input].name + "'"; }

Complaints compare_bits(const OpEntry& entry, const std::string& what, const Evaluation& got,
                        const Evaluation& expected, const std::string& advice = "") {
  Complaints complaints;
  for (std::size_t k = 0; k < expected.outputs.size(); ++k) {
    if (!identical(got.outputs[k], expected.outputs[k])) {
      complaints.push_back(detail::join(what, ": output ", k, " has other bits", advice));
    }
  }
  for (std::size_t i = 0; i < expected.gradients.size(); ++i) {
    if (!same_bits(got.gradients[i], expected.gradients[i])) {
      complaints.push_back(detail::join(what, ": the gradient of ", quoted(entry, i), " has other bits", advice));
    }
  }
  return complaints;
}

/// Where the op stands on its tape: between leaves and the end, or between other ops.
enum class Place { alone, between_ops };

/// An op that copies: its result is no leaf, and the cotangents that it gives are held by nobody else.
struct CopyRule {
  static constexpr std::string_view name = "copy";
  void backward(BackwardContext& g) const { g.give(0, g.cotangent().clone()); }
};

Var passed_on(const Var& x) { return record(CopyRule{}, {&x}, x.value().clone()); }

/// Forward on a fresh tape, then something in between, then backward. `inputs` may be emptied in between.
template <class Between>
Evaluation interrupted(const OpEntry& entry, const std::vector<Tensor>& inputs, const OpOptions& options,
                       Between&& between, Place place = Place::alone) {
  Tape tape;
  std::vector<Var> vars = as_vars(inputs, differentiable_inputs(entry, inputs));
  std::vector<std::optional<LeafId>> leaves;
  for (const Var& var : vars) leaves.push_back(var.is_leaf() ? std::optional(var.leaf_id()) : std::nullopt);
  std::vector<Var> outputs;
  {
    const Recording on(tape);
    for (Var& var : vars) {
      if (place == Place::between_ops && var.is_leaf()) var = passed_on(var);
    }
    outputs = entry.call(vars, options);
    for (Var& output : outputs) {
      if (place == Place::between_ops && output.defined() && is_floating(output.dtype())) output = passed_on(output);
    }
  }
  Evaluation result;
  for (const Var& output : outputs) result.outputs.push_back(output.value());
  const std::vector<Tensor> cotangents = random_cotangents(result.outputs, kCotangentKey);
  std::vector<Var> ends;
  std::vector<Tensor> seeds;
  for (std::size_t k = 0; k < outputs.size(); ++k) {
    if (!cotangents[k].defined()) continue;
    ends.push_back(outputs[k]);
    seeds.push_back(cotangents[k]);
  }
  vars.clear();  // the caller's inputs are held by nobody else
  outputs.clear();
  between(result.outputs);
  const Gradients gradients = tape.backward(ends, seeds);
  for (const std::optional<LeafId>& leaf : leaves) {
    const Gradient* found = leaf ? gradients.find(*leaf) : nullptr;
    result.gradients.push_back(found == nullptr ? std::nullopt : std::optional(to_dense(*found)));
  }
  return result;
}

/// Every choice of some of the differentiable inputs, not all; of more than four, those of one, of two and of all but
/// one.
std::vector<std::vector<bool>> subsets(const std::vector<bool>& all) {
  std::vector<std::size_t> places;
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (all[i]) places.push_back(i);
  }
  std::vector<std::vector<bool>> chosen;
  const std::size_t count = places.size();
  for (std::uint64_t bits = 1; bits + 1 < std::uint64_t{1} << count; ++bits) {
    const auto size = static_cast<std::size_t>(std::popcount(bits));
    if (count > 4 && size > 2 && size + 1 < count) continue;
    std::vector<bool>& some = chosen.emplace_back(all.size(), false);
    for (std::size_t i = 0; i < count; ++i) some[places[i]] = (bits >> i & 1) != 0;
  }
  return chosen;
}

std::string list_of(const OpEntry& entry, const std::vector<bool>& chosen) {
  std::string text;
  for (std::size_t i = 0; i < chosen.size(); ++i) {
    if (chosen[i]) text += (text.empty() ? "" : ", ") + quoted(entry, i);
  }
  return text;
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

}  // namespace

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
    const std::string after = "after " + what + " was overwritten between forward and backward";
    try {
      Evaluation got = interrupted(entry, inputs, sample.options, between);
      got.outputs = expected.outputs;
      append(complaints, compare_bits(entry, after, got, expected,
                                      ": backward reads it and does not notice; keep it as Saved, and get() it"));
    } catch (const AutogradError& error) {
      // An op composed of others is told by the name of the one that kept the tensor.
      const std::string text = error.what();
      if (!text.starts_with('[') || text.starts_with("[]") || text.find("overwritten") == std::string::npos) {
        complaints.push_back(after + " the error does not name the op: " + text);
      }
    } catch (const std::exception& error) {
      complaints.push_back(after +
                           ", backward reads it and does not notice; keep it as Saved, and get() it: " + error.what());
    }
  };
  for (std::size_t i = 0; i < sample.inputs.size(); ++i) {
    if (!sample.inputs[i].defined()) continue;
    const std::vector<Tensor> inputs = copies(sample.inputs);
    attempt("input " + quoted(entry, i), inputs, [&](std::vector<Tensor>&) {
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

Complaints check_buffers(const OpEntry& entry, const OpSample& sample) {
  Complaints complaints;
  for (const DType dtype : types_of(entry, sample)) {
    const std::vector<Tensor> inputs = converted(sample.inputs, dtype), given = copies(inputs);
    const Evaluation expected = run(entry, copies(inputs), sample.options);

    // What is handed in is as it was, afterwards.
    const std::vector<Tensor> cotangents = random_cotangents(expected.outputs, kCotangentKey),
                              seeds = copies(cotangents);
    const auto compare = [&](const std::string& when) {
      for (std::size_t i = 0; i < given.size(); ++i) {
        if (!given[i].defined() || identical(given[i], inputs[i])) continue;
        complaints.push_back(when + " overwrites its input " + quoted(entry, i));
        Tensor whole = given[i];
        whole.copy_from(inputs[i].contiguous());
      }
    };
    evaluate(entry, given, sample.options);
    compare("forward");
    evaluate(entry, given, sample.options, differentiable_inputs(entry, given), seeds);
    compare("backward");
    for (std::size_t k = 0; k < seeds.size(); ++k) {
      if (seeds[k].defined() && !identical(seeds[k], cotangents[k])) {
        complaints.push_back(detail::join("backward overwrites the cotangent of output ", k,
                                          ", which others may hold; take_cotangent() gives one to overwrite"));
      }
    }

    // The caller lets go of its inputs, and their memory is used for something else.
    std::vector<Tensor> passing = copies(inputs), others;
    try {
      const Evaluation got = interrupted(entry, passing, sample.options, [&](std::vector<Tensor>&) {
        passing.clear();
        for (int round = 0; round < 2; ++round) {
          for (const Tensor& input : inputs) {
            if (!input.defined()) continue;
            others.emplace_back(input.shape(), input.dtype());
            overwrite(others.back());
          }
        }
      });
      append(complaints, compare_bits(entry, "after the caller let go of the inputs and reused their memory", got,
                                      expected, ": backward reads memory that it does not hold; keep the tensor"));
    } catch (const std::exception& error) {
      complaints.push_back(
          std::string("after the caller let go of the inputs backward fails; keep the tensors that it reads: ") +
          error.what());
    }
  }
  return complaints;
}

Complaints check_constants(const OpEntry& entry, const OpSample& sample) {
  Complaints complaints;
  const std::vector<Tensor> before = evaluate(entry, sample.inputs, sample.options);
  for (std::size_t i = 0; i < sample.inputs.size(); ++i) {
    const Tensor& input = sample.inputs[i];
    if (entry.inputs[i].kind != InputKind::constant || !entry.inputs[i].no_gradient.empty()) continue;
    if (!input.defined() || !is_floating(input.dtype()) || input.numel() == 0) continue;
    std::vector<Tensor> moved = sample.inputs;
    moved[i] = input.clone();
    Tensor steps(input.shape(), DType::f64);
    fill_uniform(kCotangentKey.fold_in("constants").fold_in(i), steps, 0.5e-4, 1e-4);
    double* to = moved[i].mutable_data<double>();
    for (std::int64_t j = 0; j < input.numel(); ++j) to[j] += steps.data<double>()[j];
    const std::vector<Tensor> after = evaluate(entry, moved, sample.options);
    for (std::size_t k = 0; k < before.size(); ++k) {
      if (!is_floating(before[k].dtype()) || identical(before[k], after[k])) continue;
      complaints.push_back(
          detail::join("output ", k, " moves with ", quoted(entry, i),
                       ", which is declared constant: declare it differentiable and give its gradient, "
                       "or say in no_gradient why it has none"));
      break;
    }
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
  if (any_tracked(entry.call(as_vars(inputs, all), sample.options))) {
    complaints.emplace_back("without a tape an output is tracked");
  }
  {
    Tape tape;
    const Recording on(tape);
    if (any_tracked(entry.call(as_vars(inputs, none), sample.options)) || tape.size() > 0) {
      complaints.emplace_back("constants are recorded");
    }
  }
  for (const DType dtype : types_of(entry, sample)) {
    const std::vector<Tensor> given = converted(inputs, dtype);
    const std::vector<Tensor> got = evaluate(entry, given, sample.options);
    append(complaints, compare_bits(entry, detail::join("without a tape, in ", dtype), {got, {}},
                                    {run(entry, given, sample.options).outputs, {}}));
  }
  const Evaluation expected = run(entry, inputs, sample.options);
  const std::vector<Tensor> cotangents = random_cotangents(expected.outputs, kCotangentKey);
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (!inputs[i].defined() || entry.inputs[i].kind != InputKind::constant) continue;
    std::vector<bool> more = all;
    more[i] = true;
    const Evaluation got = evaluate(entry, inputs, sample.options, more, cotangents);
    if (got.gradients[i] && !is_zero(*got.gradients[i])) {
      complaints.push_back("the input " + quoted(entry, i) +
                           " is declared constant and gets a gradient: declare it differentiable");
    }
  }
  for (const std::vector<bool>& some : subsets(all)) {
    const std::string only = "when only " + list_of(entry, some) + " is tracked";
    Evaluation got;
    try {
      got = evaluate(entry, inputs, sample.options, some, cotangents);
    } catch (const std::exception& error) {
      complaints.push_back(
          only + " backward fails; keep what a gradient needs whenever that gradient is needed: " + error.what());
      continue;
    }
    for (std::size_t k = 0; k < got.outputs.size(); ++k) {
      if (!identical(got.outputs[k], expected.outputs[k])) {
        complaints.push_back(detail::join("output ", k, " has other bits ", only));
      }
    }
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      if (some[i] && !same_bits(got.gradients[i], expected.gradients[i])) {
        complaints.push_back("the gradient of " + quoted(entry, i) + " has other bits " + only);
      }
    }
  }
  return complaints;
}

Complaints check_cotangents(const OpEntry& entry, const OpSample& sample) {
  Complaints complaints;
  const std::vector<Tensor>& inputs = sample.inputs;
  const std::vector<bool> tracked = differentiable_inputs(entry, inputs);
  const Evaluation expected = run(entry, inputs, sample.options);
  const std::vector<Tensor> cotangents = random_cotangents(expected.outputs, kCotangentKey);
  const auto gradients = [&](const std::vector<Tensor>& seeds) {
    return evaluate(entry, inputs, sample.options, tracked, seeds).gradients;
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
    if (!is_zero(dense(of_zeros[i], i)))
      complaints.push_back(name + " is not zero for cotangents of zero: backward ignores a cotangent");
    Tensor twice = dense(expected.gradients[i], i).clone();
    for (double& value : twice.mutable_span<double>()) value *= 2;
    append(complaints, compare_tensors(name + " for doubled cotangents (backward must be linear in each)",
                                       dense(of_doubled[i], i), twice, 1e-12));
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
      append(complaints,
             compare_tensors(detail::join("the gradient of '", entry.inputs[i].name, "' from output ", k, " alone"),
                             alone, dense(other[i], i), 1e-12));
      const std::vector<double> values = alone.to_doubles();
      for (std::size_t j = 0; j < values.size(); ++j) sums[i][j] += values[j];
    }
  }
  for (std::size_t i = 0; i < inputs.size() && cotangents.size() > 1; ++i) {
    if (!tracked[i]) continue;
    append(complaints,
           compare_tensors("the sum over outputs of the gradients of '" + entry.inputs[i].name + "'",
                           Tensor::from(sums[i], inputs[i].shape()), dense(expected.gradients[i], i), 1e-11));
  }
  return complaints;
}

Complaints check_between_ops(const OpEntry& entry, const OpSample& sample) {
  const Evaluation got = interrupted(
      entry, sample.inputs, sample.options, [](std::vector<Tensor>&) {}, Place::between_ops);
  return compare_bits(entry, "between other recorded ops", got, run(entry, sample.inputs, sample.options),
                      ": inputs need not be leaves, and a cotangent may be the op's own");
}

Complaints check_threads(const OpEntry& entry, const OpSample& sample) {
  Complaints complaints;
  struct Restore {
    int threads = num_threads();
    ~Restore() { set_num_threads(threads); }
  } restore;
  const std::vector<Tensor> inputs = converted(sample.inputs, types_of(entry, sample).back());
  set_num_threads(1);
  const Evaluation expected = run(entry, inputs, sample.options);
  for (const int threads : {2, 8}) {
    set_num_threads(threads);
    append(complaints,
           compare_bits(entry, detail::join("on ", threads, " threads"), run(entry, inputs, sample.options), expected));
  }
  return complaints;
}

Complaints check_views(const OpEntry& entry, const OpSample& sample) {
  Complaints complaints;
  for (const DType dtype : types_of(entry, sample)) {
    const std::vector<Tensor> inputs = converted(sample.inputs, dtype);
    const Evaluation expected = run(entry, inputs, sample.options);
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      std::vector<Tensor> views = inputs;
      views[i] = as_view(inputs[i]);
      append(complaints, compare_bits(entry, detail::join("with a view as ", quoted(entry, i), " in ", dtype),
                                      run(entry, views, sample.options), expected));
    }
  }
  return complaints;
}

}  // namespace tally::ops
