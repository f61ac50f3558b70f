#pragma once

#include <filesystem>
#include <optional>

#include "tally/recsys/data/catalogue.h"
#include "tally/recsys/data/interactions.h"
#include "tally/recsys/data/sequences.h"

namespace tally::recsys {

/// The users of a run in the order of its training, and what they did, unless the run was told to leave that out.
struct RunUsers {
  IdMap ids;
  std::optional<Sequences> histories;  ///< of each user, as the run's items
};

/// Writes gzip'd lines, one for each user in their order: the id and, with `histories`, the ids of the items, oldest
/// first, with tabs between. Replaced whole or not at all.
void write_users(const std::filesystem::path& path, const Interactions& data, bool histories);
/// Throws IoError naming file and line for a user who comes twice, an item that is not in `items`, or histories of some
/// users only.
RunUsers read_users(const std::filesystem::path& path, const IdMap& items);

}  // namespace tally::recsys
