// tally convert-weights: weights of another program as a run of tally's.
#include <fmt/format.h>

#include <filesystem>

#include "tally/core/io/directory_lock.h"
#include "tally/core/io/file.h"
#include "tally/core/io/line_reader.h"
#include "tally/core/io/npz.h"
#include "tally/core/io/safetensors.h"
#include "tally/nn/training/checkpoint.h"
#include "tally/recsys/run/convert_weights.h"
#include "tally/recsys/run/trained_model.h"
#include "tools/commands.h"
#include "tools/print.h"

namespace tally::tools {
namespace {

using namespace recsys;
namespace fs = std::filesystem;

struct ConvertOptions {
  std::string weights, map, run, output, items;
};

std::map<std::string, Tensor> read_tensors(const fs::path& path) {
  if (path.extension() == ".npz") return load_npz(path);
  check<ConfigError>(path.extension() == ".safetensors", path.string(),
                     "needs a file of safetensors or npz; docs/tools.md says how PyTorch writes one");
  return load_safetensors(path).tensors;
}

std::vector<std::string> read_ids(const fs::path& path) {
  std::vector<std::string> ids;
  LineReader lines(path);
  for (std::string_view line; lines.next(line);) ids.emplace_back(line);
  check<IoError>(!ids.empty(), path.string(), "has no line; needs the id of each row of the tables of items");
  return ids;
}

void convert(const ConvertOptions& options, const Tables& tables) {
  const RunDirectory from{options.run}, to{options.output};
  TrainedModel trained = open_model(from, tables);
  const std::vector<std::string> rows = options.items.empty() ? std::vector<std::string>() : read_ids(options.items);
  convert_weights(*trained.model, trained.items.ids, read_tensors(options.weights), read_json(options.map), rows);
  make_run_directory(to);
  const DirectoryLock lock = DirectoryLock::inside(to.path);
  // What use of a run reads beside its weights. Figures of the training are those of other weights, and stay behind.
  for (const auto part : {&RunDirectory::config, &RunDirectory::data, &RunDirectory::items, &RunDirectory::users}) {
    if (is_there((from.*part)())) write_file_atomically((to.*part)(), read_file((from.*part)()));
  }
  const Json data = read_json(from.data());
  fs::create_directories(to.best_weights().parent_path());
  nn::save_weights(to.best_weights(), trained.model->state(),
                   checkpoint_identity(trained.config, data.at("content_sha256").as_string(), trained.items.ids));
  print(fmt::format("{}: {} with the weights of {}\n", options.output, trained.model->name(), options.weights));
}

}  // namespace

void add_convert_weights(CLI::App& app, const CommandContext& context) {
  CLI::App* command = app.add_subcommand(
      "convert-weights", "Make a run of another program's weights, beside a run of the same model and items");
  auto options = std::make_shared<ConvertOptions>();
  command->add_option("weights", options->weights, "Tensors by name: .safetensors or .npz")->required();
  command->add_option("--map", options->map, "JSON: names of tensors by path, as examples/weights has them")
      ->required();
  command->add_option("--run", options->run, "A run of the same model and items")->required();
  command->add_option("--output", options->output, "The new run")->required();
  command->add_option("--items", options->items, "Ids of the rows of tables, one a line; without it the run's order");
  command->callback([options, context] {
    convert(*options, context.tables);
    context.exit_code = 0;
  });
}

}  // namespace tally::tools
