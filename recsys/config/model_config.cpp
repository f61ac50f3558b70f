#include "tally/recsys/config/model_config.h"

namespace tally::recsys {

void ModelConfig::set(const std::string& key, const Json& value) {
  set_option([this] { return list_options(*this); }, "model", key, value);
}

std::unique_ptr<SequenceModel> make_sequence_model(const ModelConfig& config, std::int64_t items, RngKey key) {
  return config.chosen.row().make(config.chosen.options, items, key);
}

}  // namespace tally::recsys
