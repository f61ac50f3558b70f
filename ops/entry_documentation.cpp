#include <algorithm>
#include <set>

#include "tally/ops/check.h"
#include "tally/ops/entry_checks.h"

// The checks of an entry as a whole: what it says, and which calls it refuses.

namespace tally::ops {
namespace {

bool same_value(const OptionValue& a, const OptionValue& b) {
  return a.index() == b.index() && describe(a) == describe(b);
}

}  // namespace

Complaints check_error(const OpEntry& entry, const OpError& error) {
  try {
    evaluate(entry, error.inputs, error.options);
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
  for (const OpInput& input : entry.inputs) {
    demand(names.insert(input.name).second, "two inputs are named '" + input.name + "'");
    demand(!input.name.empty() && !input.shape.empty(), "input '" + input.name + "' has no name or no shape");
  }
  for (const OpOutput& output : entry.outputs) {
    demand(!output.name.empty() && !output.shape.empty(), "output '" + output.name + "' has no name or no shape");
  }
  const std::vector<OpSample> samples = entry.samples();
  std::set<std::string> options;
  for (const OpOption& option : entry.options) {
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
  const auto known = [&](const OpOptions& given, const std::string& where) {
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
    for (const OpError& error : entry.errors()) {
      demand(error.inputs.size() == entry.inputs.size(), "error '" + error.name + "' does not give every input");
    }
  }
  demand(static_cast<bool>(entry.errors) && !entry.errors().empty(), "no call that must be refused is listed");
  return complaints;
}

}  // namespace tally::ops
