// tally bench step: where the time of a training step goes.
#include "tally/core/io/file.h"
#include "tally/core/io/json.h"
#include "tally/core/parallel.h"
#include "tools/commands.h"
#include "tools/print.h"
#include "tools/step_benchmark.h"

namespace tally::tools {
namespace {

struct BenchStepArguments {
  std::string config, json, tensors;
  std::vector<std::string> compare;
  DrawnHistories drawn;
  StepOptions options{.threads = num_threads()};
};

/// What is measured without a config: SASRec of two blocks and two heads on full windows of 200.
Json default_config() {
  return parse_json(R"({"model": {"name": "sasrec", "hidden_size": 64, "n_layers": 2, "n_heads": 2,
                        "hidden_dropout_prob": 0.2, "attn_dropout_prob": 0.2, "MAX_ITEM_LIST_LENGTH": 200},
                        "train": {"loss_type": "CE", "train_batch_size": 128}})",
                    "bench step");
}

void bench_step(const BenchStepArguments& arguments, const std::vector<std::string>& overrides,
                const recsys::Tables& tables) {
  if (!arguments.compare.empty()) {
    print(compare_steps(arguments.compare[0], arguments.compare[1]));
    return;
  }
  Json json = arguments.config.empty() ? default_config() : read_json(arguments.config);
  std::optional<DrawnHistories> drawn;
  if (json.find("data") == nullptr) {
    drawn = arguments.drawn;
    json.set_at("data.path", "drawn.tsv");
  }
  const recsys::RunConfig config =
      recsys::load_config(json, std::filesystem::path(arguments.config).parent_path(), overrides, tables);
  if (!arguments.tensors.empty()) write_step(config, drawn, arguments.tensors);
  const StepFigures figures = measure_step(config, drawn, arguments.options);
  print(step_table(figures));
  if (!arguments.json.empty()) write_file_atomically(arguments.json, figures.to_json().dump(2) + "\n");
}

}  // namespace

void add_bench_step(CLI::App& app, const CommandContext& context) {
  auto arguments = std::make_shared<BenchStepArguments>();
  CLI::App* command = app.get_subcommand("bench")->add_subcommand(
      "step", "A training step: time, products and bytes of each op, allocations, and what more threads would gain");
  command->add_option("config", arguments->config,
                      "Config of the training, on drawn histories where it has no `data`; then --key=value for its "
                      "keys (default: SASRec)");
  command->add_option("--items", arguments->drawn.items, "Of drawn histories")->capture_default_str();
  command->add_option("--length", arguments->drawn.length, "Events of a drawn history; 0: the window and one more")
      ->capture_default_str();
  command->add_option("--threads", arguments->options.threads, "Threads to use")->capture_default_str();
  command->add_option("--rounds", arguments->options.rounds, "Timings of each")->capture_default_str();
  command->add_option("--json", arguments->json, "Write the figures to this file");
  command->add_option("--tensors", arguments->tensors,
                      "Write weights, batch, loss and gradients of the step to this safetensors file");
  command->add_option("--compare", arguments->compare, "Two such files: print them beside each other, measure nothing")
      ->expected(2);
  command->allow_extras();
  command->callback([=] { bench_step(*arguments, overrides_of(*command), context.tables); });
}

}  // namespace tally::tools
