#pragma once

#include <memory>

#include "tally/recsys/config.h"
#include "tally/recsys/models/sequence_model.h"

namespace tally::recsys {

/// The model that a config names, with initial weights drawn from `key`. The one place where names become types: a new
/// model adds a line here.
std::unique_ptr<SequenceModel> make_sequence_model(const ModelConfig& config, std::int64_t items, RngKey key);

}  // namespace tally::recsys
