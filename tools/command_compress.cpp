// tally compress: a trained LISA model in the form that is served, beside the model it came from.
#include <fmt/format.h>

#include <filesystem>

#include "tally/core/io/file.h"
#include "tally/core/report/table.h"
#include "tally/recsys/models/lisa_serving.h"
#include "tally/recsys/models/neural_ranker.h"
#include "tally/recsys/models/sequence_model_of.h"
#include "tally/recsys/run/run_evaluation.h"
#include "tally/recsys/run/trained_model.h"
#include "tally/recsys/serving/served_directory.h"
#include "tools/commands.h"
#include "tools/print.h"

namespace tally::tools {
namespace {

using namespace recsys;

const Lisa& lisa_of(const SequenceModel& model) {
  const auto* lisa = dynamic_cast<const SequenceModelOf<Lisa>*>(&model);
  check<ConfigError>(lisa != nullptr, "compress", "needs a run of LISA, whose items have codes; got one of ",
                     model.name());
  check<ConfigError>(
      !lisa->module().full_targets, "compress",
      "needs hard codes as targets (lisa_variant base or mini, quantized: all); this model scores the full "
      "embeddings, so there is nothing to leave out");
  return lisa->module();
}

std::int64_t bytes_of_weights(const SequenceModel& model) {
  std::int64_t bytes = 0;
  for (const Tensor& tensor : model.weights()) bytes += static_cast<std::int64_t>(tensor.bytes());
  return bytes;
}

std::string table_of(const LisaServingSize& size, std::int64_t weights) {
  Table table({{"part", false}, {"bytes"}, {"of 4 N D"}});
  const auto add = [&](const char* part, std::int64_t bytes) {
    table.add_row({part, std::to_string(bytes),
                   fmt::format("{:.1f} %", 100.0 * static_cast<double>(bytes) /
                                               static_cast<double>(std::max<std::int64_t>(1, size.embedding_table)))});
  };
  add("codes of items", size.codes);
  add("codebooks", size.codebooks);
  add("tables and values of attention", size.tables);
  add("positions", size.positions);
  add("norms, feed-forward, quantizers of later blocks", size.layers);
  add("all", size.total());
  add("embedding table, 4 N D (left out)", size.embedding_table);
  add("all weights of the trained model", weights);
  return table.to_markdown();
}

/// Targets that do not rank alike.
std::int64_t count_moved(const Evaluation& a, const Evaluation& b) {
  std::int64_t moved = 0;
  for (std::size_t i = 0; i < a.ranks.size(); ++i) moved += a.ranks[i] == b.ranks[i] ? 0 : 1;
  return moved;
}

/// The run with its data, or without where these are elsewhere, and what is missing then.
struct CompressedRun {
  TrainedModel trained;
  std::optional<RunData> data;
  std::string missing;
};

CompressedRun open_to_compress(const RunDirectory& directory, const Tables& tables) {
  const std::string data = read_run_config(directory, tables).data.path;
  std::error_code none;
  if (!std::filesystem::exists(data, none))
    return {open_model(directory, tables), {}, "not evaluated: " + data + " is not there"};
  OpenedRun run = open_run(directory, tables);
  return {std::move(run.trained), std::move(run.data), {}};
}

void compress(const std::string& run_directory, const std::filesystem::path& output, const Tables& tables) {
  const RunDirectory directory{run_directory};
  const CompressedRun run = open_to_compress(directory, tables);
  const SequenceModel& trained = *run.trained.model;
  ServedDirectory files(output);
  files.write(LisaServing::from(lisa_of(trained)), run.trained, directory);

  // What is evaluated is what was written.
  const LisaServing served = files.read_model();
  const LisaServingSize size = served.size();
  Json report = Json::object({{"bytes", Json::object({{"codes", size.codes},
                                                      {"codebooks", size.codebooks},
                                                      {"tables", size.tables},
                                                      {"positions", size.positions},
                                                      {"layers", size.layers},
                                                      {"total", size.total()},
                                                      {"embedding_table", size.embedding_table},
                                                      {"trained_model", bytes_of_weights(trained)}})}});
  std::string evaluated = run.missing;
  if (run.data) {
    const Split& split = *run.data->split;
    const std::vector<Target> targets = evaluated_targets(run.trained.config, split, Part::test);
    const auto tested = [&](const Ranker& ranker) {
      return evaluate(ranker, split, Part::test, targets, evaluation_options(run.trained.config));
    };
    const std::vector<Evaluation> evaluations{tested(make_ranker(trained)), tested(Ranker(served))};
    const std::int64_t moved = count_moved(evaluations[0], evaluations[1]);
    report.set("targets_of_another_rank", moved);
    report.set("test", Json::array({to_json(evaluations[0]), to_json(evaluations[1])}));
    evaluated =
        metrics_table(evaluations) + evaluations[0].protocol +
        fmt::format("\n{} of {} targets have another rank than the trained model gives them", moved, targets.size());
  }
  files.commit(report);

  print(detail::join(table_of(size, bytes_of_weights(trained)),
                     fmt::format("\n{} items of width {}: the embedding table has {:.1f} times the bytes of codes and "
                                 "codebooks;\nthe trained model has {:.1f} times the bytes of this one.\n\n{}\n{}\n",
                                 served.num_items(), served.width(),
                                 static_cast<double>(size.embedding_table) / static_cast<double>(size.items()),
                                 static_cast<double>(bytes_of_weights(trained)) / static_cast<double>(size.total()),
                                 evaluated, output.string())));
}

}  // namespace

void add_compress(CLI::App& app, const CommandContext& context) {
  auto run = std::make_shared<std::string>();
  auto output = std::make_shared<std::string>();
  CLI::App* command = app.add_subcommand(
      "compress", "Write a trained LISA model without its embedding table, and evaluate it beside the model");
  command->add_option("run", *run, "Run directory")->required();
  command
      ->add_option("--output", *output,
                   "Directory for model.safetensors, items.tsv, the users that the run kept, and compression.json")
      ->required();
  command->callback([=] {
    compress(*run, *output, context.tables);
    context.exit_code = 0;
  });
}

}  // namespace tally::tools
