#include <algorithm>
#include <set>

#include "tally/core/simd.h"
#include "tally/ops/entry_checks.h"
#include "tally/ops/sample_coverage.h"

namespace tally::ops {
namespace {

/// An exception of a check is a complaint as well.
template <class Check>
Complaints guarded(Check&& check) {
  try {
    return check();
  } catch (const std::exception& error) {
    return {std::string("it throws: ") + error.what()};
  }
}

struct Target {
  explicit Target(const std::string& name) { set_simd_target(name); }
  ~Target() { set_simd_target(before); }
  Target(const Target&) = delete;
  Target& operator=(const Target&) = delete;
  std::string before = simd_target();
};

}  // namespace

Complaints check_reference(const OpEntry& entry, const OpSample& sample) {
  if (!entry.reference) return {};
  return compare_with_reference(evaluate(entry, sample.inputs, sample.options),
                                entry.reference(sample.inputs, sample.options));
}

Complaints check_coverage(const OpEntry& entry) {
  Complaints complaints;
  for (const std::string& pair : pair_coverage(entry).missing) {
    complaints.push_back("no sample checks the gradient for " + pair);
  }
  std::set<std::string> refused;  // levels of calls that must be refused, with a bar in between
  for (const OpError& error : entry.errors ? entry.errors() : std::vector<OpError>{}) {
    const std::vector<std::string> levels = levels_of(entry, {error.name, error.inputs, error.options});
    for (const std::string& a : levels) {
      for (const std::string& b : levels) refused.insert(a + '|' + b);
    }
  }
  for (const auto& [a, b] : entry.apart) {
    if (!refused.contains(a + '|' + b)) {
      complaints.push_back("it declares " + a + " and " + b + " apart, and none of its errors has both");
    }
  }
  return complaints;
}

Complaints check_injected_bug(const OpEntry& entry) {
  const EntryReport report = check_entry(entry, {.max_elements = 4, .injected_bug = 1.001});
  std::set<std::string> found;
  for (const SampleReport& sample : report.samples) {
    for (const LeafReport& leaf : sample.gradients.leaves) {
      if (leaf.verdict == GradientVerdict::fail) found.insert(leaf.name);
    }
  }
  Complaints complaints;
  for (const OpInput& input : entry.inputs) {
    if (input.kind == InputKind::differentiable && !found.contains(input.name)) {
      complaints.push_back("a gradient of '" + input.name + "' 0.1 % too large is not found: no sample has one to see");
    }
  }
  return complaints;
}

std::span<const SampleCheck> sample_checks() {
  static constexpr SampleCheck kChecks[] = {
      {"reference", check_reference},
      {"f32", check_f32, true},
      {"constants", check_constants},
      {"tracking", check_tracking},
      {"cotangents", check_cotangents, false, true},
      {"between ops", check_between_ops},
      {"buffers", check_buffers},
      {"versions", check_versions},
      {"views", check_views},
      {"leaks", check_leaks},
      {"threads", check_threads},
  };
  return kChecks;
}

EntryFindings check_all(const OpEntry& entry, const GradientCheckOptions& options) {
  EntryFindings result;
  result.op = entry.name;
  const auto note_to = [&](std::vector<Finding>& place, const char* check, const std::string& sample,
                           const Complaints& complaints) {
    ++result.checks;
    for (const std::string& complaint : complaints) place.push_back({check, sample, complaint});
  };
  const auto note = [&](const char* check, const std::string& sample, const Complaints& complaints) {
    note_to(result.findings, check, sample, complaints);
  };
  const auto note_gap = [&](const char* check, const Complaints& complaints) {
    note_to(result.gaps, check, "", complaints);
  };
  std::string refusal;
  for (const OpSample& sample : entry.samples()) {
    ++result.samples;
    guarded([&] {
      if (refusal.empty()) refusal = f32_refusal(entry, sample);
      return Complaints{};
    });
    for (const SampleCheck& each : sample_checks()) {
      if (each.needs_gradient && !sample.gradient) continue;
      const std::vector<std::string> targets = each.every_target ? simd_targets() : std::vector{simd_target()};
      for (const std::string& name : targets) {
        const Target target(name);
        OpSample copy = sample;  // an op that overwrites its inputs must not spoil the next check
        for (Tensor& input : copy.inputs) input = input.defined() ? input.clone() : input;
        Complaints complaints = guarded([&] { return each.check(entry, copy); });
        for (std::string& complaint : complaints) {
          if (each.every_target) complaint += " (SIMD " + name + ")";
        }
        note(each.name, describe(sample), complaints);
      }
    }
  }
  for (const OpError& error : entry.errors ? entry.errors() : std::vector<OpError>{}) {
    note("errors", error.name, guarded([&] { return check_error(entry, error); }));
  }
  if (!refusal.empty()) note_gap("f32", {"the op takes no f32: " + refusal});
  note_gap("documentation", guarded([&] { return check_documentation(entry); }));
  note_gap("coverage", guarded([&] { return check_coverage(entry); }));
  result.gradients = check_entry(entry, options);
  ++result.checks;
  if (result.gradients.verdict == EntryVerdict::pass) {
    note_gap("injected bug", guarded([&] { return check_injected_bug(entry); }));
  }
  return result;
}

}  // namespace tally::ops
