#pragma once

#include <filesystem>
#include <string>
#include <unordered_map>

#include "tally/recsys/data/delimited_rows.h"

namespace tally::recsys {

struct TitleOptions {
  DelimitedFormat format = csv_format();
  std::string item_column = "movieId";
  std::string title_column = "title";
};

/// Titles of items by item id; the defaults are those of MovieLens' movies.csv. Throws as read_interactions does, and
/// for an id that comes twice.
std::unordered_map<std::string, std::string> read_titles(const std::filesystem::path& path,
                                                         const TitleOptions& options = {});

}  // namespace tally::recsys
