#pragma once

#include "tally/core/io/json.h"
#include "tally/ops/catalog.h"

namespace tally::tools {

/// The options of a call from a JSON object, strictly: the entry's names and types only. Throws ConfigError.
ops::OpOptions read_options(const ops::OpEntry& entry, const Json& object);
ops::OpOptions read_options(const ops::OpEntry& entry, const std::string& text);

Json to_json(const ops::OpOptions& options);

}  // namespace tally::tools
