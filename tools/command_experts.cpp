// tally experts: how a trained ELASTIC reads its experts.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "tally/core/io/directory_lock.h"
#include "tally/core/io/file.h"
#include "tally/core/report/plot.h"
#include "tally/core/report/table.h"
#include "tally/nn/attention/dispatcher.h"
#include "tally/recsys/models/expert_use.h"
#include "tally/recsys/models/sequence_model_of.h"
#include "tally/recsys/run/run_evaluation.h"
#include "tally/recsys/run/trained_model.h"
#include "tools/commands.h"
#include "tools/print.h"

namespace tally::tools {
namespace {

using namespace recsys;

const Elastic& elastic_of(const OpenedRun& run, const std::string& directory) {
  const auto* const model = dynamic_cast<const SequenceModelOf<Elastic>*>(run.trained.model.get());
  check<ConfigError>(model != nullptr, directory, "needs a run of model elastic; got one of ",
                     run.trained.model->name());
  const nn::Attention& attention = model->module().blocks.at(0).attention;
  check<ConfigError>(attention.as<nn::DispatcherKind>() != nullptr, directory,
                     "needs a run with attention dispatcher; got ", attention.name());
  return model->module();
}

/// The last part of a path, whether it ends with a slash or not.
std::string name_of(const std::filesystem::path& directory) {
  const std::filesystem::path whole = std::filesystem::absolute(directory).lexically_normal();
  return (whole.has_filename() ? whole : whole.parent_path()).filename().string();
}

std::string layers_table(const ExpertUse& use) {
  Table table({{"layer"},
               {"experts"},
               {"least share"},
               {"largest share"},
               {"entropy of shares"},
               {"entropy of a read"},
               {"cosine of experts"},
               {"cosine of what they gathered"}});
  for (std::size_t b = 0; b < use.layers.size(); ++b) {
    const LayerExpertUse& layer = use.layers[b];
    const auto [least, largest] = std::minmax_element(layer.shares.begin(), layer.shares.end());
    table.add_row({std::to_string(b + 1), std::to_string(layer.shares.size()), format_fixed(*least, 4),
                   format_fixed(*largest, 4), format_fixed(layer.entropy, 3), format_fixed(layer.entropy_of_reads, 3),
                   format_fixed(layer.cosine, 3), format_fixed(layer.cosine_gathered, 3)});
  }
  return table.to_markdown();
}

std::string chosen_table(const ExpertUse& use, const std::vector<Measure>& measures) {
  Table table({{"what", false}, {"figure"}});
  for (std::size_t m = 0; m < use.chosen.size(); ++m) {
    const ChosenRows& chosen = use.chosen[m];
    const std::string of = use.chosen.size() == 1 ? "" : fmt::format(" of layer {}", m + 1);
    table.add_row({"rows to choose from" + of, std::to_string(chosen.rows)});
    table.add_row({"share of them chosen for these histories" + of, format_fixed(chosen.read, 4)});
    table.add_row({fmt::format("KL from these choices to uniform ones{}, at most {:.3f}", of,
                               std::log(static_cast<double>(chosen.rows))),
                   format_fixed(chosen.divergence, 3)});
  }
  for (const Measure& measure : measures) table.add_row({"training: " + measure.name, format_fixed(measure.value, 4)});
  return table.to_markdown();
}

std::string shares_csv(const ExpertUse& use) {
  Table table({{"layer"}, {"expert"}, {"share"}});
  for (std::size_t b = 0; b < use.layers.size(); ++b) {
    for (std::size_t e = 0; e < use.layers[b].shares.size(); ++e) {
      table.add_row({std::to_string(b + 1), std::to_string(e + 1), format_exact(use.layers[b].shares[e])});
    }
  }
  return table.to_csv();
}

Plot shares_plot(const ExpertUse& use, const std::string& who) {
  Plot plot{.title = "What " + who + " read",
            .x = {.label = use.chosen.empty() ? "expert" : "expert, in the order that they were chosen in"},
            .y = {.label = "mean share"},
            .kind = PlotKind::bars};
  for (std::size_t b = 0; b < use.layers.size(); ++b) {
    PlotSeries series{.name = fmt::format("layer {}", b + 1), .points = {}};
    const std::vector<double>& shares = use.layers[b].shares;
    for (std::size_t e = 0; e < shares.size(); ++e) {
      series.points.push_back({.x = static_cast<double>(e), .y = shares[e]});
      if (b == 0) plot.categories.push_back(std::to_string(e + 1));
    }
    plot.series.push_back(std::move(series));
  }
  plot.width = std::max(plot.width, 24.0 * static_cast<double>(plot.categories.size()));  // names are not slanted
  return plot;
}

void report_experts(const std::string& directory, const std::string& output, const Tables& tables) {
  const RunDirectory run{directory};
  const OpenedRun opened = open_run(run, tables);
  const Elastic& model = elastic_of(opened, directory);
  const std::filesystem::path to = output.empty() ? run.path : std::filesystem::path(output);
  std::optional<DirectoryLock> lock;
  if (output.empty()) {
    lock = DirectoryLock::inside(run.path);
  } else {
    std::filesystem::create_directories(to);
  }
  const Split& split = *opened.data.split;
  const bool validated = !split.targets(Part::validation).empty();
  const std::vector<Target> targets =
      evaluated_targets(opened.trained.config, split, validated ? Part::validation : Part::test);
  const ExpertUse use = expert_use(model, pack_histories(split, targets));
  const std::string who =
      fmt::format("the last rows of {} histories of the {}", use.histories, validated ? "validation" : "test");
  std::string text = fmt::format(
      "# Experts of {}\n\nWhat {} read, by the best weights. Shares are means over histories and heads; entropies are "
      "over "
      "the "
      "log of the number of experts.\n\n{}",
      name_of(run.path), who, layers_table(use));
  if (!use.chosen.empty()) {
    text += "\n## What is chosen from\n\n" + chosen_table(use, opened.trained.model->measures());
  }
  write_file_atomically(to / "experts.md", text);
  write_file_atomically(to / "experts.csv", shares_csv(use));
  write_plot(to / "experts.svg", shares_plot(use, who));
  print(detail::join(text, '\n', (to / "experts.md").string(), '\n'));
}

}  // namespace

void add_experts(CLI::App& app, const CommandContext& context) {
  auto directory = std::make_shared<std::string>();
  auto output = std::make_shared<std::string>();
  CLI::App* command =
      app.add_subcommand("experts", "Write how a run of elastic reads its experts: experts.md, .csv and .svg");
  command->add_option("run", *directory, "Run directory")->required();
  command->add_option("--output", *output, "Directory to write into in its place");
  command->callback([=] {
    report_experts(*directory, *output, context.tables);
    context.exit_code = 0;
  });
}

}  // namespace tally::tools
