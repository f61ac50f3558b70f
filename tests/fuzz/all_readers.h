#pragma once

#include "tests/fuzz/readers.h"

namespace tally::fuzz {

extern const Reader kSafetensors, kNpy, kJson, kManifest, kGzip;
extern const Reader kConfig, kDelimited, kServing, kState, kSessionLog;

}  // namespace tally::fuzz
