#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <unordered_map>
#include <vector>

#include "tally/recsys/data/id_map.h"
#include "tally/recsys/data/split.h"

namespace tally::recsys {

/// The items of a model in the order of its weights, and what a reader wants to know of them. An item's place among a
/// model's weights is its place here and nothing else: whatever comes from outside is matched by id.
struct Catalogue {
  IdMap ids;
  std::vector<std::int64_t> training_events;  ///< [items] how often each was trained on
  std::vector<std::string> titles;            ///< [items]; empty: there are none

  std::int64_t size() const { return ids.size(); }
  /// An item for people: its title when it has one, else its id.
  std::string label(std::int32_t item) const;
  /// [items] 1 for those that were trained on.
  std::vector<std::uint8_t> trained() const;
};

/// The items of a split, with titles by id.
Catalogue catalogue_of(const Split& split, const std::unordered_map<std::string, std::string>& titles);

/// A table with a line for each item: item_id, training_events and, when there are titles, title. Replaced whole or not
/// at all.
void write_catalogue(const std::filesystem::path& path, const Catalogue& catalogue);
/// Throws IoError naming file and line for what write_catalogue would not have written.
Catalogue read_catalogue(const std::filesystem::path& path);

/// Text in one cell of a table: what keeps cells and rows apart becomes a space.
std::string in_one_cell(std::string text);

/// SHA-256 of ids in their order, each delimited by its length.
std::string order_hash(const IdMap& ids);

}  // namespace tally::recsys
