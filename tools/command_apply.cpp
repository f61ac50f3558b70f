#include "tally/core/io/json_fields.h"
#include "tally/core/io/safetensors.h"
#include "tally/ops/check.h"
#include "tools/commands.h"
#include "tools/option_json.h"

namespace tally::tools {
namespace {

using ops::OpEntry;

/// Names of the cotangents: grad_NAME of each output, and grad_output for the only one.
std::vector<std::string> cotangent_names(const OpEntry& entry, std::size_t k) {
  std::vector<std::string> names{"grad_" + entry.outputs[k].name};
  if (entry.outputs.size() == 1) names.emplace_back("grad_output");
  return names;
}

/// Every tensor of the file must have a use.
void check_names(const OpEntry& entry, const TensorFile& file, const std::string& path) {
  std::vector<std::string> known;
  for (const ops::OpInput& input : entry.inputs) known.push_back(input.name);
  for (std::size_t k = 0; k < entry.outputs.size(); ++k) {
    for (const std::string& name : cotangent_names(entry, k)) known.push_back(name);
  }
  for (const auto& [name, tensor] : file.tensors) {
    if (std::find(known.begin(), known.end(), name) != known.end()) continue;
    const std::string nearest = nearest_name(name, known);
    fail<ConfigError>(path, entry.name, " takes no tensor '", name, "'",
                      nearest.empty() ? "; see: tally ops " + entry.name : "; did you mean '" + nearest + "'?");
  }
}

std::vector<Tensor> read_inputs(const OpEntry& entry, const TensorFile& file, const std::string& path) {
  std::vector<Tensor> inputs;
  for (const ops::OpInput& input : entry.inputs) {
    const auto found = file.tensors.find(input.name);
    check<ConfigError>(found != file.tensors.end() || input.optional, path, "holds no tensor '", input.name, "' ",
                       input.shape, ", which ", entry.name, " needs");
    inputs.push_back(found == file.tensors.end() ? Tensor() : found->second);
  }
  return inputs;
}

/// Undefined where the file has none.
std::vector<Tensor> read_cotangents(const OpEntry& entry, const TensorFile& file) {
  std::vector<Tensor> cotangents(entry.outputs.size());
  for (std::size_t k = 0; k < cotangents.size(); ++k) {
    for (const std::string& name : cotangent_names(entry, k)) {
      if (const auto found = file.tensors.find(name); found != file.tensors.end()) cotangents[k] = found->second;
    }
  }
  return cotangents;
}

void apply(const OpEntry& entry, const std::string& input_path, const std::string& options_text,
           const std::string& output_path) {
  const ops::OpOptions options = read_options(entry, options_text);
  const TensorFile file = load_safetensors(input_path);
  check_names(entry, file, input_path);
  const std::vector<Tensor> inputs = read_inputs(entry, file, input_path), cotangents = read_cotangents(entry, file);
  const bool backward = std::any_of(cotangents.begin(), cotangents.end(), [](const Tensor& c) { return c.defined(); });
  std::map<std::string, Tensor> results;
  ops::Evaluation evaluation;
  if (backward) {
    const std::vector<bool> tracked = ops::differentiable_inputs(entry, inputs);
    evaluation = ops::evaluate(entry, inputs, options, tracked, cotangents);
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      if (!tracked[i]) continue;
      const auto& gradient = evaluation.gradients[i];
      results["grad_" + entry.inputs[i].name] =
          gradient ? *gradient : Tensor::zeros(inputs[i].shape(), inputs[i].dtype());
    }
  } else {
    evaluation.outputs = ops::evaluate(entry, inputs, options);
  }
  for (std::size_t k = 0; k < evaluation.outputs.size(); ++k) results[entry.outputs[k].name] = evaluation.outputs[k];
  save_safetensors(output_path, results, {{"op", entry.name}, {"options", to_json(options).dump()}});
}

}  // namespace

void add_apply(CLI::App& app, const CommandContext& context) {
  struct ApplyArguments {
    std::string op, input, options, output;
  };
  auto arguments = std::make_shared<ApplyArguments>();
  CLI::App* command = app.add_subcommand(
      "apply",
      "Run an op on the tensors of a safetensors file, named as its inputs (f32 or f64). With grad_output in the file, "
      "or "
      "grad_NAME for an output, its backward too: the result then holds grad_NAME for each differentiable input");
  command->add_option("op", arguments->op, "Name of the op")->required();
  command->add_option("--input", arguments->input, "safetensors file")->required();
  command->add_option("--options", arguments->options,
                      "JSON object of the op's options, e.g. '{\"transpose_b\": true}'");
  command->add_option("--output", arguments->output, "safetensors file to write")->required();
  command->callback([arguments, context] {
    apply(context.catalog.find(arguments->op), arguments->input, arguments->options, arguments->output);
  });
}

}  // namespace tally::tools
