// tally compress: a trained LISA model in the form that is served, beside the model it came from.
#include <fmt/format.h>

#include <filesystem>
#include <iostream>

#include "tally/core/atomic_directory.h"
#include "tally/core/version.h"
#include "tally/recsys/models/lisa_serving.h"
#include "tally/recsys/models/neural_ranker.h"
#include "tally/recsys/run/run_evaluation.h"
#include "tally/recsys/run/train_run.h"
#include "tally/recsys/study/table.h"
#include "tools/commands.h"
#include "tools/recommendation_rows.h"
#include "tools/served_files.h"

namespace tally::tools {
namespace {

using namespace recsys;

using namespace served_files;

const Lisa& lisa_of(const OpenedRun& run) {
  const auto* lisa = dynamic_cast<const SequenceModelOf<Lisa>*>(run.model.get());
  check<ConfigError>(lisa != nullptr, "compress", "needs a run of LISA, whose items have codes; got one of ",
                     run.model->name());
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

void compress(const std::string& run_directory, const std::filesystem::path& output) {
  const OpenedRun run = open_run({run_directory});
  const LisaServing made = LisaServing::from(lisa_of(run));
  check<ConfigError>(!std::filesystem::exists(output) || std::filesystem::exists(output / kReport), output.string(),
                     "is there already, and no compressed model");
  AtomicDirectory directory(output);
  made.save(directory.file(kModel), {{"tally", version()}});
  std::string items, titles;
  for (std::int32_t i = 0; i < static_cast<std::int32_t>(made.num_items()); ++i) {
    const std::string_view id = run.data.interactions->items.name(i);
    items += std::string(id) + '\n';
    titles += in_one_cell(run.data.label(i)) + '\n';
  }
  directory.write(kItems, items);
  if (!run.data.titles.empty()) directory.write(kTitles, titles);

  // What is evaluated is what was written.
  const LisaServing served = LisaServing::load(directory.file(kModel));
  const LisaServingSize size = served.size();
  const std::vector<Target> targets = evaluated_targets(run.config, *run.data.split, Part::test);
  const auto tested = [&](const Ranker& ranker) {
    return evaluate(ranker, *run.data.split, Part::test, targets, evaluation_options(run.config));
  };
  const std::vector<Evaluation> evaluations{tested(make_ranker(*run.model)), tested(Ranker(served))};
  const std::int64_t moved = count_moved(evaluations[0], evaluations[1]);
  directory.write(kReport, Json::object({{"bytes", Json::object({{"codes", size.codes},
                                                                 {"codebooks", size.codebooks},
                                                                 {"tables", size.tables},
                                                                 {"positions", size.positions},
                                                                 {"layers", size.layers},
                                                                 {"total", size.total()},
                                                                 {"embedding_table", size.embedding_table},
                                                                 {"trained_model", bytes_of_weights(*run.model)}})},
                                         {"targets_of_another_rank", moved},
                                         {"test", Json::array({to_json(evaluations[0]), to_json(evaluations[1])})}})
                                   .dump(2) +
                               "\n");
  directory.commit(Json::object({{kUserColumn, run.config.data.user_column},
                                 {kItemColumn, run.config.data.item_column},
                                 {kFlushDenormals, run.config.train.flush_denormals}}));

  std::cout << table_of(size, bytes_of_weights(*run.model))
            << fmt::format(
                   "\n{} items of width {}: the embedding table has {:.1f} times the bytes of codes and "
                   "codebooks;\nthe trained model has {:.1f} times the bytes of this one.\n\n",
                   served.num_items(), served.width(),
                   static_cast<double>(size.embedding_table) / static_cast<double>(size.items()),
                   static_cast<double>(bytes_of_weights(*run.model)) / static_cast<double>(size.total()))
            << metrics_table(evaluations) << evaluations[0].protocol
            << fmt::format("\n{} of {} targets have another rank than the trained model gives them\n{}\n", moved,
                           targets.size(), output.string());
}

}  // namespace

void add_compress(CLI::App& app, int& exit_code) {
  auto run = std::make_shared<std::string>();
  auto output = std::make_shared<std::string>();
  CLI::App* command = app.add_subcommand(
      "compress", "Write a trained LISA model without its embedding table, and evaluate it beside the model");
  command->add_option("run", *run, "Run directory")->required();
  command
      ->add_option("--output", *output, "Directory for model.safetensors, items.txt, titles.txt and compression.json")
      ->required();
  command->callback([=, &exit_code] {
    compress(*run, *output);
    exit_code = 0;
  });
}

}  // namespace tally::tools
