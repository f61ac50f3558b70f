#include <fmt/format.h>

#include "tally/core/simd.h"
#include "tally/ops/check.h"
#include "tally/ops/f32_check.h"
#include "tools/commands.h"
#include "tools/print.h"

namespace tally::tools {
namespace {

const char* describe(ops::InputKind kind) {
  switch (kind) {
    case ops::InputKind::differentiable:
      return "f32 or f64, differentiated";
    case ops::InputKind::constant:
      return "f32 or f64, constant";
    case ops::InputKind::integer:
      break;
  }
  return "integers";
}

std::string type_of(const ops::OptionValue& value) {
  static constexpr const char* kNames[] = {"true or false", "integer", "number", "string", "list of integers"};
  return kNames[value.index()];
}

std::string signature(const ops::OpEntry& entry) {
  std::string text = entry.name + "(";
  for (std::size_t i = 0; i < entry.inputs.size(); ++i) {
    text += (i > 0 ? ", " : "") + entry.inputs[i].name + (entry.inputs[i].optional ? "?" : "");
  }
  text += ") -> ";
  for (std::size_t k = 0; k < entry.outputs.size(); ++k) text += (k > 0 ? ", " : "") + entry.outputs[k].name;
  return text;
}

/// "  name  what" with the names in one column.
void print_item(const std::string& name, const std::string& text) { print(fmt::format("  {:<18} {}\n", name, text)); }

void print_entry(const ops::OpEntry& entry) {
  print(detail::join(signature(entry), "\n\n", entry.summary, "\n\nInputs\n"));
  for (const ops::OpInput& input : entry.inputs) {
    print_item(input.name, input.shape + ", " + describe(input.kind) + (input.optional ? ", may be absent" : "") +
                               (input.doc.empty() ? "" : ": " + input.doc));
  }
  print("\nOutputs\n");
  for (const ops::OpOutput& output : entry.outputs) print_item(output.name, output.shape);
  if (!entry.options.empty()) print("\nOptions\n");
  for (const ops::OpOption& option : entry.options) {
    print_item(option.name,
               type_of(option.otherwise) + ", default " + ops::describe(option.otherwise) + ": " + option.doc);
  }
  print(detail::join(
      '\n', (entry.kinks ? "Has kinks. " : ""),
      (entry.surrogate ? "Straight-through: differentiated as its surrogate. " : ""),
      fmt::format("f32 against f64 over the samples, relative to the largest of each (at most {:g}), measured on {}:\n",
                  entry.f32_tolerance, simd_target())));
  for (const ops::MeasuredTolerance& each : ops::measured_tolerances(entry)) {
    print_item(fmt::format("{:.2g}", each.relative), each.what);
  }
}

}  // namespace

void add_ops(CLI::App& app, const CommandContext& context) {
  auto names = std::make_shared<std::vector<std::string>>();
  CLI::App* command = app.add_subcommand("ops", "List the ops, or document some: inputs, outputs, options");
  command->add_option("op", *names, "Ops to document");
  command->callback([names, context] {
    if (names->empty()) {
      for (const ops::OpEntry& entry : context.catalog.entries()) print_item(entry.name, entry.summary);
      return;
    }
    const char* separator = "";
    for (const ops::OpEntry* entry : chosen_ops(context.catalog, *names, false)) {
      print(separator);
      print_entry(*entry);
      separator = "\n";
    }
  });
}

}  // namespace tally::tools
