#include "tally/recsys/serving/served_directory.h"

#include "tally/core/io/file.h"
#include "tally/core/io/json_fields.h"
#include "tally/core/io/line_reader.h"
#include "tally/core/parallel.h"
#include "tally/core/version.h"

namespace tally::recsys {
namespace {

constexpr const char* kModel = "model.safetensors";
constexpr const char* kItems = "items.tsv";
constexpr const char* kUsers = "users.txt.gz";
constexpr const char* kReport = "compression.json";

// Fields of the manifest.
constexpr const char* kData = "data";
constexpr const char* kCandidates = "candidates";
constexpr const char* kFlushDenormals = "flush_denormals";

// What earlier builds wrote in their place: the id of each item, a line each; the same for titles; names of columns.
constexpr const char* kEarlierItems = "items.txt";
constexpr const char* kEarlierTitles = "titles.txt";
constexpr const char* kEarlierUserColumn = "user_column";
constexpr const char* kEarlierItemColumn = "item_column";

std::vector<std::string> read_lines(const std::filesystem::path& path) {
  std::vector<std::string> lines;
  LineReader reader(path);
  for (std::string_view line; reader.next(line);) lines.emplace_back(line);
  return lines;
}

Catalogue read_earlier_items(const std::filesystem::path& directory) {
  Catalogue items;
  const std::vector<std::string> ids = read_lines(directory / kEarlierItems);
  for (std::size_t i = 0; i < ids.size(); ++i) {
    check<IoError>(items.ids.add(ids[i]) == static_cast<std::int32_t>(i), (directory / kEarlierItems).string(),
                   "has the item '", ids[i], "' twice");
  }
  if (is_there(directory / kEarlierTitles)) {
    items.titles = read_lines(directory / kEarlierTitles);
    check<IoError>(items.titles.size() == ids.size(), (directory / kEarlierTitles).string(),
                   "needs a line for each of ", ids.size(), " items; got ", items.titles.size());
  }
  return items;
}

/// A section of a config as the run's was.
DataConfig read_data(const Json& section) { return parse_recorded_config(Json::object({{"data", section}})).data; }

}  // namespace

ServedDirectory::ServedDirectory(const std::filesystem::path& directory)
    : lock_(DirectoryLock::beside(directory)),
      files_((check<ConfigError>(!is_there(directory) || is_served_directory(directory), directory.string(),
                                 "is there already, and no compressed model"),
              directory)) {}

void ServedDirectory::write(const LisaServing& model, const TrainedModel& trained, const RunDirectory& run) {
  model.save(files_.file(kModel), {{"tally", version()}});
  write_catalogue(files_.file(kItems), trained.items);
  if (is_there(run.users())) files_.write(kUsers, read_file(run.users()));
  const Json config = to_json(trained.config);
  manifest_ = Json::object({{kData, config.at("data")},
                            {kCandidates, config.at("evaluation").at("candidates")},
                            {kFlushDenormals, trained.config.train.flush_denormals}});
}

LisaServing ServedDirectory::read_model() const { return LisaServing::load(files_.file(kModel)); }

void ServedDirectory::commit(const Json& report) {
  files_.write(kReport, report.dump(2) + "\n");
  files_.commit(manifest_);
}

bool is_served_directory(const std::filesystem::path& directory) {
  return recover_directory(directory) && is_there(directory / kReport);
}

Recommender open_served(const std::filesystem::path& directory) {
  const Json manifest = verify_directory(directory);
  JsonFields fields(manifest, (directory / AtomicDirectory::kManifest).string());
  DataConfig data;
  Candidates candidates = Candidates::all;
  const bool earlier = is_there(directory / kEarlierItems);
  if (earlier) {
    data.path = "histories.tsv";
    data.user_column = fields.require<std::string>(kEarlierUserColumn);
    data.item_column = fields.require<std::string>(kEarlierItemColumn);
    data.order_column = "";
  } else {
    data = read_data(fields.require<Json>(kData));
    candidates = value_of<Candidates>(fields.require<std::string>(kCandidates), fields.path_of(kCandidates));
  }
  flush_denormals(fields.require<bool>(kFlushDenormals));
  fields.finish();
  const auto model = std::make_shared<const LisaServing>(LisaServing::load(directory / kModel));
  Catalogue items = earlier ? read_earlier_items(directory) : read_catalogue(directory / kItems);
  check<IoError>(items.size() == model->num_items(), directory.string(), "needs an id for each of the model's ",
                 model->num_items(), " items; got ", items.size());
  return {.source = directory.string(),
          .items = std::move(items),
          .data = std::move(data),
          .candidates = candidates,
          .users_file = directory / kUsers,
          .ranker = Ranker(model),
          .item_vectors = [model] { return model->scorer().vectors(); },
          .user_vectors = [model](const Sequences& histories) { return model->user_vectors(histories); },
          .recurrent = [model] { return model->recurrent(); }};
}

}  // namespace tally::recsys
