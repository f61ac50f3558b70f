#include "tally/recsys/study/study.h"

#include <algorithm>
#include <set>

#include "tally/core/io/json_fields.h"
#include "tally/recsys/study/measurements.h"

namespace tally::recsys {
namespace {

constexpr std::size_t kMostRuns = 10000;
constexpr std::size_t kLongestName = 200;  // of a directory: file systems allow 255 bytes

/// Overrides as key=value words, from an object of dotted keys and sections.
void collect_overrides(const Json& object, const std::string& section, std::vector<std::string>& overrides) {
  for (const auto& [name, value] : object.members()) {
    const std::string key = section.empty() ? name : section + '.' + name;
    if (value.is(Json::Kind::object)) {
      collect_overrides(value, key, overrides);
    } else {
      overrides.push_back(key + '=' + (value.is(Json::Kind::string) ? value.as_string() : value.dump()));
    }
  }
}

/// The last part of a dotted key.
std::string bare(const std::string& key) { return key.substr(key.rfind('.') + 1); }

/// The dotted key of a config that `key` names, dotted or bare.
std::string resolve(const std::string& key, const std::string& where, const Tables& tables) {
  const std::vector<KnownOption> keys = config_keys(tables);
  const std::vector<const KnownOption*> matches = meant_by(key, keys);
  std::vector<std::string> known;
  for (const KnownOption& each : keys) known.push_back(each.key);
  const std::string nearest = nearest_name(key, known);
  check<ConfigError>(!matches.empty(), where, "\"", key, "\" is no key of a config",
                     nearest.empty() ? "" : "; did you mean \"" + nearest + "\"?");
  check<ConfigError>(matches.size() == 1, where, "\"", key, "\" stands in several sections; write the section too");
  return matches[0]->key;
}

/// Data paths in overrides are relative to the study, as those of its base are.
std::string anchored(const std::string& assignment, const std::filesystem::path& directory) {
  const std::size_t equals = assignment.find('=');
  const std::string key = assignment.substr(0, equals), value = assignment.substr(equals + 1);
  const bool is_path = key == "data.path" || key == "data.titles" || key == "path" || key == "titles";
  if (!is_path || value.empty() || std::filesystem::path(value).is_absolute()) return assignment;
  return key + '=' + (directory / value).lexically_normal().string();
}

std::string directory_name(const std::string& run, std::int64_t seed) { return run + "-seed" + std::to_string(seed); }

struct Setting {
  std::string name;
  std::vector<std::string> overrides;
  std::string start_from = {};
};

/// Every setting with every combination of the grid; the last key varies fastest.
std::vector<Setting> expand_grid(std::vector<Setting> settings, const Json& grid) {
  check<ConfigError>(grid.is(Json::Kind::object), "grid", "needs an object of keys with lists of values");
  for (const auto& [key, values] : grid.members()) {
    check<ConfigError>(values.is(Json::Kind::array) && values.size() > 0, "grid." + key,
                       "needs a list of at least one value");
    check<ConfigError>(settings.size() * values.size() <= kMostRuns, "grid", "needs at most ", kMostRuns,
                       " combinations");
    std::vector<Setting> expanded;
    for (const Setting& setting : settings) {
      for (const Json& value : values.elements()) {
        const std::string text = value.is(Json::Kind::string) ? value.as_string() : value.dump();
        Setting next = setting;
        next.name += (next.name.empty() ? "" : "-") + bare(key) + '=' + text;
        next.overrides.push_back(key + '=' + text);
        expanded.push_back(std::move(next));
      }
    }
    settings = std::move(expanded);
  }
  return settings;
}

std::vector<Setting> read_settings(JsonFields& top) {
  std::vector<Setting> settings;
  if (const auto runs = top.find<Json>("runs")) {
    check<ConfigError>(runs->is(Json::Kind::array), "runs", "needs a list of {name, overrides}");
    for (std::size_t i = 0; i < runs->size(); ++i) {
      const std::string where = "runs[" + std::to_string(i) + "]";
      check<ConfigError>(runs->at(i).is(Json::Kind::object), where, "needs an object with name and overrides");
      JsonFields fields(runs->at(i), where);
      Setting setting{fields.require<std::string>("name"), {}};
      check<ConfigError>(!setting.name.empty(), where + ".name", "needs at least one character");
      if (const auto overrides = fields.find<Json>("overrides")) {
        check<ConfigError>(overrides->is(Json::Kind::object), where + ".overrides", "needs an object of keys");
        collect_overrides(*overrides, "", setting.overrides);
      }
      setting.start_from = fields.get("start_from", "");
      fields.finish();
      settings.push_back(std::move(setting));
    }
  }
  const auto grid = top.find<Json>("grid");
  check<ConfigError>(!settings.empty() || grid.has_value(), "study", "needs runs, a grid, or both");
  if (!grid) return settings;
  if (settings.empty()) settings.push_back({});
  return expand_grid(std::move(settings), *grid);
}

/// Names become names of directories.
void check_name(const std::string& name) {
  const auto is_plain = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view("._-+=@,").find(c) != std::string_view::npos;
  };
  check<ConfigError>(std::all_of(name.begin(), name.end(), is_plain) && name[0] != '.' && name.size() <= kLongestName,
                     "study", "needs names of at most ", kLongestName,
                     " letters, digits and ._-+=@, that do not begin with a dot; got \"", name, "\"");
}

StudyPlot read_plot(const Json& json, const std::string& where, const Study& study) {
  check<ConfigError>(json.is(Json::Kind::object), where, "needs an object with x and y");
  JsonFields fields(json, where);
  StudyPlot plot;
  plot.x = fields.require<std::string>("x");
  plot.y = fields.require<std::string>("y");
  plot.series = fields.get("series", "");
  plot.title = fields.get("title", "");
  plot.log_x = fields.get("log_x", false);
  plot.log_y = fields.get("log_y", false);
  fields.finish();
  if (plot.y == "time") plot.y = "seconds_per_epoch";
  if (plot.y == "memory") plot.y = "peak_memory";
  for (std::string* key : {&plot.x, &plot.series}) {
    if (*key == "length") *key = "model.MAX_ITEM_LIST_LENGTH";
    if (!key->empty() && *key != "run") *key = resolve(*key, where, study.runs.front().config.tables);
  }
  const auto& figures = figure_names();
  if (std::find(figures.begin(), figures.end(), plot.y) == figures.end()) {
    try {
      for (const StudyRun& run : study.runs) parse_metric(plot.y, run.config.evaluation);
    } catch (const ConfigError&) {
      std::string names;
      for (const std::string& name : figures) names += ", " + name;
      fail<ConfigError>(where + ".y", "needs a metric of every run (HR@K, NDCG@K, MRR@K with a K of evaluation.topk)",
                        names, "; got \"", plot.y, "\"");
    }
  }
  // Two runs at one place could not be told apart.
  std::vector<Measurement> places;
  for (const StudyRun& run : study.runs) {
    places.push_back({key_value(run, plot.series).dump(), key_value(run, plot.x), {}});
  }
  try {
    plot_measurements("", {}, {}, places);
  } catch (const ValueError&) {
    fail<ConfigError>(where, "has two runs at the same ", plot.x, " in one series; name a series that parts them");
  }
  return plot;
}

}  // namespace

RunConfig StudyRun::with_seed(std::int64_t seed, const std::filesystem::path& output) const {
  RunConfig seeded = config;
  seeded.train.seed = seed;
  seeded.output = output.string();
  if (!start_from.empty()) seeded.train.start_from = (output / directory_name(start_from, seed)).string();
  return seeded;
}

Study read_study(const std::filesystem::path& path, const Tables& tables) {
  Json json;
  try {
    json = read_json(path);
  } catch (const IoError& error) {
    throw ConfigError(error.what());
  }
  check<ConfigError>(json.is(Json::Kind::object), path.string(), "needs a JSON object {...}; got ",
                     name_of(json.kind()));
  JsonFields top(json);
  Study study;
  study.name = top.require<std::string>("name");
  check<ConfigError>(!study.name.empty(), "name", "needs at least one character");
  check_name(study.name);
  const Json base = top.require<Json>("base");
  check<ConfigError>(base.is(Json::Kind::object) || base.is(Json::Kind::string), "base",
                     "needs a config, or the path of one; got ", name_of(base.kind()));
  const std::filesystem::path directory = path.parent_path();
  std::set<std::string> names;
  for (const Setting& setting : read_settings(top)) {
    check_name(setting.name);
    check<ConfigError>(setting.start_from.empty() || names.contains(setting.start_from), "start_from",
                       "needs the name of an earlier run; got \"", setting.start_from, "\" (in run \"", setting.name,
                       "\")");
    check<ConfigError>(names.insert(setting.name).second, "runs", "needs names that differ; \"", setting.name,
                       "\" comes twice");
    std::vector<std::string> overrides;
    for (const std::string& assignment : setting.overrides) overrides.push_back(anchored(assignment, directory));
    try {
      RunConfig config = base.is(Json::Kind::string) ? load_config(directory / base.as_string(), overrides, tables)
                                                     : load_config(base, directory, overrides, tables);
      study.runs.push_back({setting.name, std::move(config), setting.start_from});
    } catch (const ConfigError& error) {
      throw ConfigError(std::string(error.what()) + " (in run \"" + setting.name + "\")");
    }
  }
  check<ConfigError>(!study.runs.empty(), "runs", "needs at least one run");
  study.seeds = top.get("seeds", std::vector<std::int64_t>{study.runs.front().config.train.seed});
  check<ConfigError>(!study.seeds.empty(), "seeds", "needs at least one seed");
  std::set<std::int64_t> seeds;
  for (const std::int64_t seed : study.seeds) {
    check<ConfigError>(seed >= 0 && seeds.insert(seed).second, "seeds",
                       "needs seeds that differ and are not negative; got ", seed);
  }
  study.compare_to = top.get("compare_to", "");
  check<ConfigError>(study.compare_to.empty() || names.count(study.compare_to) == 1, "compare_to",
                     "needs the name of a run; got \"", study.compare_to, "\"");
  study.metrics = top.get("metrics", std::vector<std::string>{"HR@10", "NDCG@10"});
  check<ConfigError>(!study.metrics.empty(), "metrics", "needs at least one metric");
  for (const std::string& metric : study.metrics) {
    for (const StudyRun& run : study.runs) {
      try {
        parse_metric(metric, run.config.evaluation);
      } catch (const ConfigError&) {
        fail<ConfigError>("metrics", "needs HR@K, NDCG@K, Recall@K or MRR@K with a K of evaluation.topk of run \"",
                          run.name, "\"; got \"", metric, "\"");
      }
    }
  }
  for (const StudyRun& run : study.runs) {
    // Workers take over the setting of the thread that starts them: it can't change within a program.
    check<ConfigError>(run.config.train.flush_denormals == study.runs.front().config.train.flush_denormals,
                       "train.flush_denormals", "needs the same value in every run of a study");
  }
  if (const auto plots = top.find<Json>("plots")) {
    check<ConfigError>(plots->is(Json::Kind::array), "plots", "needs a list of {x, y, series}");
    for (std::size_t i = 0; i < plots->size(); ++i) {
      study.plots.push_back(read_plot(plots->at(i), "plots[" + std::to_string(i) + "]", study));
    }
  }
  top.finish();
  return study;
}

const std::vector<std::string>& figure_names() {
  static const std::vector<std::string> names{"seconds_per_epoch", "total_seconds", "peak_memory",
                                              "parameters",        "epochs",        "best_epoch",
                                              "tokens_per_second", "sgemm_share"};
  return names;
}

std::optional<double> figure_of(const RunRecord& record, const std::string& name) {
  const RunFigures figures = record.figures();
  const std::optional<double> values[] = {figures.seconds_per_epoch, figures.total_seconds, figures.peak_memory,
                                          figures.parameters,        figures.epochs,        figures.best_epoch,
                                          figures.tokens_per_second, figures.sgemm_share};
  const auto& names = figure_names();
  const auto found = std::find(names.begin(), names.end(), name);
  if (found != names.end()) return values[found - names.begin()];
  return number_of(record.result(), recorded_metric(name));
}

Json key_value(const StudyRun& run, const std::string& key) {
  if (key == "run") return run.name;
  for (const auto& [name, value] : flattened(to_json(run.config))) {
    if (name == key) return value;
  }
  return "";
}

RunDirectory study_run_directory(const std::filesystem::path& output, const StudyRun& run, std::int64_t seed) {
  return {output / directory_name(run.name, seed)};
}

}  // namespace tally::recsys
