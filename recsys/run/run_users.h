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
  std::optional<Sequences> histories;  ///< of each user, as the run's items; with times where they were written
};

/// What is written of users beside their ids.
struct WrittenOfUsers {
  bool histories = true;
  bool times = false;  ///< of these, if the data have any
};

/// Writes gzip'd lines, one for each user in their order: the id and, with histories, the ids of the items, oldest
/// first, with tabs between; with times an empty cell follows, and as many times. Replaced whole or not at all.
void write_users(const std::filesystem::path& path, const Interactions& data, const WrittenOfUsers& what);
/// Throws IoError naming file and line for a user who comes twice, an item that is not in `items`, or histories or
/// times of some users only.
RunUsers read_users(const std::filesystem::path& path, const IdMap& items);

}  // namespace tally::recsys
