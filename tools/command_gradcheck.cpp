#include <iostream>

#include "tally/core/io/file.h"
#include "tally/ops/check.h"
#include "tally/recsys/config/config.h"
#include "tally/recsys/run/check_model.h"
#include "tools/commands.h"
#include "tools/gradient_report.h"
#include "tools/print.h"

namespace tally::tools {
namespace {

struct GradcheckArguments {
  std::vector<std::string> ops;
  std::string model;
  bool all = false, inject_bug = false, every_sample = false;
  std::string json;
  std::uint64_t seed = GradientCheckOptions{}.key.seed;
  std::int64_t max_elements = GradientCheckOptions{}.max_elements;
  std::optional<double> rtol, atol;
};

/// Of a whole model when the command line says nothing else. Units with kinks inside (relu) allow only the narrow step,
/// whose rounding alone is about 1e-8.
constexpr double kModelRtol = 1e-5, kModelAtol = 1e-7;

void check_arguments(const GradcheckArguments& arguments) {
  check<ConfigError>(arguments.max_elements >= 1, "--max-elements", "needs at least 1; got ", arguments.max_elements);
  constexpr double kMost = GradientCheckOptions::kLargestTolerance;
  const double rtol = arguments.rtol.value_or(0), atol = arguments.atol.value_or(kMost);
  check<ConfigError>(rtol >= 0 && rtol <= kMost && atol > 0 && atol <= kMost, "--rtol, --atol", "need an rtol in [0, ",
                     kMost, "] and an atol in (0, ", kMost, "]: with more a gradient 0.1 % too large would pass; got ",
                     arguments.rtol ? detail::join("rtol ", rtol) : "", arguments.rtol && arguments.atol ? " and " : "",
                     arguments.atol ? detail::join("atol ", atol) : "");
}

GradientCheckOptions check_options(const GradcheckArguments& arguments, bool model) {
  GradientCheckOptions options;
  options.key.seed = arguments.seed;
  options.max_elements = arguments.max_elements;
  options.rtol = arguments.rtol.value_or(model ? kModelRtol : options.rtol);
  options.atol = arguments.atol.value_or(model ? kModelAtol : options.atol);
  if (arguments.inject_bug) options.injected_bug = 1.001;
  return options;
}

/// The check of a whole model, in the form of an op's.
ops::EntryReport check_model(const std::string& config, const GradientCheckOptions& options,
                             const recsys::Tables& tables) {
  const recsys::RunConfig run = recsys::load_config(config, {}, tables);
  ops::SampleReport sample;
  sample.sample = "small batch";
  sample.gradients = recsys::check_model_gradients(run.model, run.train.loss, options);
  ops::EntryReport report;
  report.op = "model " + run.model.name() + ", loss " + run.train.loss.name();
  report.verdict = sample.gradients.passed()         ? ops::EntryVerdict::pass
                   : sample.gradients.inconclusive() ? ops::EntryVerdict::inconclusive
                                                     : ops::EntryVerdict::fail;
  report.samples.push_back(std::move(sample));
  return report;
}

int gradcheck(const GradcheckArguments& arguments, const ops::Catalog& catalog, const recsys::Tables& tables) {
  check_arguments(arguments);
  std::vector<const ops::OpEntry*> chosen;
  if (arguments.model.empty() || arguments.all || !arguments.ops.empty()) {
    chosen = chosen_ops(catalog, arguments.ops, arguments.all);
  }
  check<ConfigError>(!chosen.empty() || !arguments.model.empty(), "gradcheck",
                     "needs the names of ops, --all, or --model; see: tally ops");
  const GradientCheckOptions options = check_options(arguments, chosen.empty());
  print_gradient_header(std::cout, options);
  std::vector<ops::EntryReport> reports;
  for (const ops::OpEntry* entry : chosen) {
    reports.push_back(ops::check_entry(*entry, options));
    print_gradient_report(std::cout, reports.back(), arguments.every_sample);
  }
  if (!arguments.model.empty()) {
    const GradientCheckOptions of_model = check_options(arguments, true);
    if (!chosen.empty()) print(detail::join("\nmodel: rtol ", of_model.rtol, ", atol ", of_model.atol, '\n'));
    reports.push_back(check_model(arguments.model, of_model, tables));
    print_gradient_report(std::cout, reports.back(), arguments.every_sample);
  }
  if (!arguments.json.empty()) write_file_atomically(arguments.json, to_json(reports, options).dump(2) + "\n");
  print(detail::join('\n', summarise(reports), '\n'));
  return exit_code_of(reports);
}

}  // namespace

void add_gradcheck(CLI::App& app, const CommandContext& context) {
  auto arguments = std::make_shared<GradcheckArguments>();
  CLI::App* command = app.add_subcommand(
      "gradcheck",
      "Compare the backward of ops with numeric derivatives. Exit code 0: all pass, 1: one fails, 2: wrong "
      "command line, 3: none fails but one cannot be measured");
  command->add_option("op", arguments->ops, "Ops to check");
  command->add_option("--model", arguments->model,
                      "Check every parameter of the model of this config file, by its training loss");
  command->add_flag("--all", arguments->all, "Check every op");
  command->add_flag("--inject-bug", arguments->inject_bug, "Multiply analytic gradients by 1.001: the check must fail");
  command->add_flag("--samples", arguments->every_sample, "Print every sample, not only the worst");
  command->add_option("--json", arguments->json, "Write everything to this file");
  command->add_option("--seed", arguments->seed, "Of the random cotangents and sampled elements")
      ->capture_default_str();
  command->add_option("--max-elements", arguments->max_elements, "Elements checked of each input")
      ->capture_default_str();
  command->add_option("--rtol", arguments->rtol, "Relative tolerance, at most 1e-4 [1e-6; of a model 1e-5]");
  command->add_option("--atol", arguments->atol, "Absolute tolerance, at most 1e-4 [1e-9; of a model 1e-7]");
  command->callback(
      [arguments, context] { context.exit_code = gradcheck(*arguments, context.catalog, context.tables); });
}

}  // namespace tally::tools
