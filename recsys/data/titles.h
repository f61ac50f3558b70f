#pragma once

#include <filesystem>
#include <string>
#include <unordered_map>

#include "tally/recsys/data/delimited_rows.h"

namespace tally::recsys {

struct TitleOptions {
  DelimitedFormat format = csv_format();
  std::string item_column = "movieId";  ///< or, when the file has none of this name, item_id
  std::string title_column = "title";
  StopRequested stop_requested = {};  ///< asked while a pipe has no row
};

/// The options for a file of this name: MovieLens' movies.dat and u.item, or else what a header line names: movieId or
/// item_id, and title.
TitleOptions title_options_of(const std::filesystem::path& path);

/// Titles of items by item id, in UTF-8 and on one line: a title that is not valid UTF-8 is taken for Latin-1, as
/// MovieLens' older files are; line breaks and tabs become spaces. The defaults are those of MovieLens' movies.csv.
/// Throws as read_interactions does, and for an id that comes twice.
std::unordered_map<std::string, std::string> read_titles(const std::filesystem::path& path,
                                                         const TitleOptions& options = {});

}  // namespace tally::recsys
