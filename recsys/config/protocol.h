#pragma once

#include <string>

#include "tally/core/options/option_tables.h"

namespace tally::recsys {

/// A published evaluation protocol: everything that decides whether two figures may be compared, set together. Its
/// values take the place of the defaults; a config may still set one of them, and then the protocol line says so.
struct Protocol {
  std::string name;
  std::string summary;
  std::string source;
  Json values;  ///< by dotted key of a config; one without effect, or that the model has not, is left alone
};

ChoiceTable<Protocol> standard_protocols();

}  // namespace tally::recsys
