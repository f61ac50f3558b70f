#pragma once

#include <string>
#include <vector>

#include "tally/recsys/config.h"

namespace tally::recsys {

/// A published evaluation protocol: everything that decides whether two figures may be compared, set together. Its
/// values take the place of the defaults; a config may still set one of them, and then the protocol line says so.
struct Protocol {
  std::string name;
  std::string summary;
  std::string source;
  void (*apply)(RunConfig& config);
};

const std::vector<Protocol>& protocols();
/// Throws ConfigError naming the nearest.
const Protocol& find_protocol(const std::string& name);

/// The keys that a protocol decides, dotted.
const std::vector<std::string>& protocol_keys();

/// "klenitskiy", "klenitskiy with train.epochs=3", "no named protocol": what results are labelled with.
std::string protocol_label(const RunConfig& config);

}  // namespace tally::recsys
