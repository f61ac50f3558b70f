#include "tally/recsys/config/model_config.h"

namespace tally::recsys {

void ModelConfig::set(const std::string& key, const Json& value) {
  Json given = to_json(list_options(*this));
  given.set(key, value);
  JsonFields fields(given, "model");
  const Json only = Json::object({{key, value}});
  read_options([this] { return list_options(*this); }, fields, &only);
  check_options(list_options(*this), "model");
}

std::unique_ptr<SequenceModel> make_sequence_model(const ModelConfig& config, std::int64_t items, RngKey key) {
  return config.chosen.row().make(config.chosen.options, items, key);
}

}  // namespace tally::recsys
