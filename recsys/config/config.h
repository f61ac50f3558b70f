#pragma once

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "tally/recsys/config/data_config.h"
#include "tally/recsys/config/evaluation_config.h"
#include "tally/recsys/config/model_config.h"
#include "tally/recsys/config/train_config.h"

// The configuration of a run: a JSON file, read strictly. Keys are RecBole's where it has the same thing.

namespace tally::recsys {

struct RunConfig {
  explicit RunConfig(const Tables& tables = standard());

  Tables tables;              ///< what its names stand for
  std::string protocol = {};  ///< of the tables, whose values stand where the config says nothing; empty: none
  DataConfig data;
  ModelConfig model;
  TrainConfig train;
  EvaluationConfig evaluation;
  std::string output = "runs";
  bool keep_histories = true;
  std::string show_user = {};

  static void keys(auto& o, auto&& key) {
    key("protocol", o.protocol, "published protocol whose values stand where the config says nothing; empty: none");
    key("data", o.data, "the file of interactions");
    key("model", o.model, "the model");
    key("train", o.train, "how it is trained");
    key("evaluation", o.evaluation, "how it is evaluated");
    key("output", o.output, "directory that run directories go into");
    key("keep_histories", o.keep_histories,
        "keep users' histories in the run directory, so that it recommends without the data");
    key("show_user", o.show_user, "user whose recommendations are printed at the end; empty: the first of the test");
    const Effect validated = only_with("data.split", o.data.split, {"leave_one_out"});
    for (const char* name : {"eval_step", "stopping_step", "valid_metric"}) key.effect("train", name, validated);
    key.effect("evaluation", "valid_users", validated);
  }
  void check(const std::string& section) const;
};

/// Throws ConfigError for an unknown key (naming the nearest), for one that has no effect with the others (naming the
/// setting that it needs), for a value of another type, and for one outside its domain.
RunConfig parse_config(const Json& json, const Tables& tables = standard());
/// The config that a run recorded, by whatever build: keys that have no effect are left alone, for earlier builds wrote
/// those of all models, losses and learners.
RunConfig parse_recorded_config(const Json& json, const Tables& tables = standard());
/// Every value that has an effect, defaults included: what the run directory records.
Json to_json(const RunConfig& config);
/// The section `model` with every key of every model, at the defaults of this one and of those that it lacks.
Json all_model_keys(const RunConfig& config);
/// Every key that a config may have, of whatever model, loss and learner, with the value of a default.
std::vector<KnownOption> config_keys(const Tables& tables = standard());
/// The dotted path of every value with the value, in the order of to_json().
std::vector<std::pair<std::string, Json>> flattened(const Json& config);

/// "klenitskiy", "klenitskiy with train.epochs=3", "no named protocol": what results are labelled with.
std::string protocol_label(const RunConfig& config);

/// Applies `key=value` to a config, `key` dotted ("train.learning_rate") or, when only one section has it, bare
/// ("learning_rate"). The value is JSON, or else text. Throws ConfigError for an unknown or ambiguous key, and for one
/// that lies within a value.
void apply_override(Json& config, const std::string& assignment, const Tables& tables = standard());

/// One value of a config and who set it: "default", "protocol klenitskiy", the file, or "--key=value".
struct ConfigValue {
  std::string key;
  Json value;
  std::string origin;
};

/// A config file with overrides applied. Paths of data are relative to the file, so that a config works from any
/// directory. Throws ConfigError, also when the file cannot be read.
RunConfig load_config(const std::filesystem::path& path, const std::vector<std::string>& overrides = {},
                      const Tables& tables = standard());
/// The same for a config that stands in another file, as a study's does: its data paths are relative to `directory`.
RunConfig load_config(Json json, const std::filesystem::path& directory, const std::vector<std::string>& overrides,
                      const Tables& tables = standard());
/// Every value of what load_config() gives, and where it came from.
std::vector<ConfigValue> explain_config(const std::filesystem::path& path,
                                        const std::vector<std::string>& overrides = {},
                                        const Tables& tables = standard());

}  // namespace tally::recsys
