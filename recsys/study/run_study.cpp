#include "tally/recsys/study/run_study.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "tally/core/io/directory_lock.h"
#include "tally/core/io/reason.h"
#include "tally/recsys/run/run_data.h"
#include "tally/recsys/run/train_run.h"
#include "tally/recsys/run/trained_model.h"
#include "tally/recsys/study/study_tables.h"

namespace tally::recsys {
namespace {

StudyState state_of(const RunDirectory& directory) {
  if (!std::filesystem::exists(directory.config())) return StudyState::not_begun;
  return std::filesystem::exists(directory.test_metrics()) ? StudyState::finished : StudyState::interrupted;
}

/// A study is looked up where it lies now; where it lay when a training began with another's weights is of no account.
Json without_place(Json config) {
  const std::string start = config.at("train").at("start_from").as_string();
  if (!start.empty()) config.set_at("train.start_from", std::filesystem::path(start).filename().string());
  return config;
}

/// "train.epochs is 3 there and 5 here", for each key that two configs do not agree on.
std::string differences(const Json& recorded, const Json& wanted) {
  std::map<std::string, std::pair<std::string, std::string>> values;
  for (const auto& [key, value] : flattened(without_place(recorded))) values[key].first = value.dump();
  for (const auto& [key, value] : flattened(without_place(wanted))) values[key].second = value.dump();
  std::string text;
  for (const auto& [key, pair] : values) {
    if (pair.first == pair.second || key == "output" || key == "show_user" || key == "keep_histories") continue;
    text += fmt::format("{}{} is {} there and {} here", text.empty() ? "" : ", ", key,
                        pair.first.empty() ? "absent" : pair.first, pair.second.empty() ? "absent" : pair.second);
  }
  return text;
}

}  // namespace

std::vector<StudyItem> study_items(const Study& study, const std::filesystem::path& output,
                                   const std::vector<std::string>& only) {
  std::vector<StudyItem> items;
  std::vector<bool> found(only.size(), false);
  for (const StudyRun& run : study.runs) {
    for (const std::int64_t seed : study.seeds) {
      StudyItem item{&run, seed, study_run_directory(output, run, seed), StudyState::not_begun};
      item.state = state_of(item.directory);
      bool chosen = only.empty();
      for (std::size_t i = 0; i < only.size(); ++i) {
        if (only[i] != run.name && only[i] != item.label()) continue;
        found[i] = chosen = true;
      }
      if (chosen) items.push_back(std::move(item));
    }
  }
  for (std::size_t i = 0; i < only.size(); ++i) {
    std::string names;
    for (const StudyRun& run : study.runs) names += (names.empty() ? "" : ", ") + run.name;
    check<ConfigError>(found[i], "--only", "needs names of runs or trainings (", names, "); got \"", only[i], "\"");
  }
  return items;
}

void check_study_items(const std::vector<StudyItem>& items, const std::filesystem::path& output) {
  std::map<std::string, RunData> data;  // by data section: runs share them
  for (const StudyItem& item : items) {
    if (item.state == StudyState::not_begun) continue;
    const RunConfig wanted = item.run->with_seed(item.seed, output);
    const RunRecord record = read_run_record(item.directory);
    // As this build reads it: keys that came later stand at their defaults.
    const Json there = to_json(parse_recorded_config(record.config, wanted.tables));
    const std::string differing = differences(there, recorded_config(wanted));
    check<ConfigError>(differing.empty(), item.directory.path.string(), "holds a run of another config: ", differing,
                       "; remove it, or choose another --output");
    if (!record.data.is(Json::Kind::object)) continue;  // killed before it had read its data
    RunData& now = data[to_json(wanted).at("data").dump()];
    if (now.interactions == nullptr) now = load_run_data(wanted.data);
    try {
      check_same_data(item.directory, record.data, wanted, now);
    } catch (const IoError& error) {
      throw ConfigError(std::string(error.what()) + "; remove it, or choose another --output");
    }
  }
}

nn::TrainingOutcome run_study(const Study& study, const std::filesystem::path& output,
                              const std::vector<std::string>& only, Console& console,
                              const StopRequested& stop_requested) {
  const std::vector<StudyItem> items = study_items(study, output, only);
  check_study_items(items, output);
  std::error_code error;
  std::filesystem::create_directories(output, error);
  check<IoError>(!error, output.string(), "cannot be created: ", reason_of(error.value()));
  const DirectoryLock lock = DirectoryLock::inside(output);
  write_study(study, output);
  for (std::size_t i = 0; i < items.size(); ++i) {
    const StudyItem& item = items[i];
    const std::string place = fmt::format("[{} of {}] {}", i + 1, items.size(), item.label());
    if (item.state == StudyState::finished) {
      console.line(place + ": finished before");
      continue;
    }
    if (stop_requested && stop_requested()) return nn::TrainingOutcome::interrupted;
    console.line(place + (item.state == StudyState::interrupted ? ": goes on" : ""));
    const RunOutcome outcome =
        item.state == StudyState::interrupted
            ? resume_run(item.directory, console, stop_requested, item.run->config.tables)
            : train_run(item.run->with_seed(item.seed, output), item.directory, console, stop_requested);
    write_study(study, output);
    if (outcome.training == nn::TrainingOutcome::interrupted) return nn::TrainingOutcome::interrupted;
  }
  return nn::TrainingOutcome::finished;
}

}  // namespace tally::recsys
