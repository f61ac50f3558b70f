#include "tools/recommender.h"

#include "tally/core/atomic_directory.h"
#include "tally/core/json_fields.h"
#include "tally/core/line_reader.h"
#include "tally/core/parallel.h"
#include "tally/recsys/models/lisa_serving.h"
#include "tally/recsys/models/neural_ranker.h"
#include "tally/recsys/run/train_run.h"
#include "tools/served_files.h"

namespace tally::tools {
namespace {

using namespace recsys;

Recommender from_run(const std::filesystem::path& directory) {
  const auto run = std::make_shared<const OpenedRun>(open_run({directory}));
  const Ranker ranker = make_ranker(*run->model);
  return {
      .source = run->config.data.path,
      .items = run->data.interactions->items,
      .titles = run->data.titles,
      .user_column = run->config.data.user_column,
      .item_column = run->config.data.item_column,
      .ranker = Ranker::from_function(ranker.name(), ranker.num_items(),
                                      [run, ranker](const Sequences& histories) { return ranker.score(histories); }),
      .recurrent = [run] { return run->model->recurrent(); }};
}

/// Calls take(i, line) for the lines of a file, of which there must be one for each item.
template <class Take>
void read_lines(const std::filesystem::path& path, std::int64_t items, const Take& take) {
  LineReader reader(path);
  std::int32_t count = 0;
  for (std::string_view line; reader.next(line); ++count) {
    check<IoError>(count < items, path.string(), "has more lines than the model has items, ", items);
    take(count, line);
  }
  check<IoError>(count == items, path.string(), "needs a line for each of the model's ", items, " items; got ", count);
}

Recommender from_served(const std::filesystem::path& directory) {
  const Json manifest = verify_directory(directory);
  JsonFields fields(manifest, (directory / AtomicDirectory::kManifest).string());
  const auto user_column = fields.require<std::string>(served_files::kUserColumn);
  const auto item_column = fields.require<std::string>(served_files::kItemColumn);
  flush_denormals(fields.require<bool>(served_files::kFlushDenormals));
  fields.finish();
  const auto model = std::make_shared<const LisaServing>(LisaServing::load(directory / served_files::kModel));
  const std::filesystem::path items = directory / served_files::kItems, titles = directory / served_files::kTitles;
  Recommender recommender{.source = directory.string(),
                          .items = {},
                          .titles = {},
                          .user_column = user_column,
                          .item_column = item_column,
                          .ranker = Ranker(model),
                          .recurrent = [model]() { return model->recurrent(); }};
  read_lines(items, model->num_items(), [&](std::int32_t i, std::string_view id) {
    check<IoError>(recommender.items.add(id) == i, items.string(), "has the item '", id, "' twice");
  });
  if (!std::filesystem::exists(titles)) return recommender;
  read_lines(titles, model->num_items(), [&](std::int32_t i, std::string_view title) {
    recommender.titles.emplace(recommender.items.name(i), title);
  });
  return recommender;
}

}  // namespace

std::string Recommender::label(std::int32_t item) const {
  const std::string id(items.name(item));
  const auto found = titles.find(id);
  return found == titles.end() ? id : found->second;
}

Recommender open_recommender(const std::filesystem::path& directory) {
  const bool served = directory_committed(directory) && std::filesystem::exists(directory / served_files::kReport);
  return served ? from_served(directory) : from_run(directory);
}

}  // namespace tally::tools
