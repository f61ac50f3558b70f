#pragma once

#include <memory>

#include "tally/recsys/config/tables.h"

namespace tally::recsys {

/// The section `model` of a config: a model of the tables, and the options that it has.
struct ModelConfig {
  Choice<ModelRow> chosen;

  /// Throws ConfigError for a model that the tables have not.
  explicit ModelConfig(const std::string& name, const Tables& tables = standard()) : chosen(tables.models, name) {}

  const std::string& name() const { return chosen.name(); }
  /// Sets an option by its key, as a config does. Throws ConfigError for one that the model has not.
  void set(const std::string& key, const Json& value);

  static void keys(auto& o, auto&& key) { key("name", o.chosen, "which model: `tally models`"); }
};

/// The model that a config names, with initial weights drawn from `key`.
std::unique_ptr<SequenceModel> make_sequence_model(const ModelConfig& config, std::int64_t items, RngKey key);

}  // namespace tally::recsys
