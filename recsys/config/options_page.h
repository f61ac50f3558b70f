#pragma once

#include <string>

#include "tally/recsys/config/tables.h"

namespace tally::recsys {

/// Every key of a config with type, default, domain and meaning, section by section, as Markdown: docs/options.md.
std::string options_page(const Tables& tables = standard());

}  // namespace tally::recsys
