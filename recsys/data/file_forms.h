#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "tally/recsys/data/delimited_rows.h"

namespace tally::recsys {

/// A usual way of writing interactions to a file, plain or gzip'd.
struct FileForm {
  std::string name;
  DelimitedFormat format;
  std::string order_column;  ///< the column that holds times; "": the file is in order
};

/// By name:
/// - csv: commas and quotes, a header line that names the columns (MovieLens' ratings.csv)
/// - tsv: tabs, a header line
/// - inter: RecBole's, tabs and a header line with types, `user_id:token`
/// - movielens: MovieLens' ratings.dat, `::` and no header: user_id, item_id, rating, timestamp
/// - user_item: a space and no header, in order of time: user_id, item_id (SASRec's text files)
/// Throws ConfigError for another name.
const FileForm& file_form(std::string_view name);
std::vector<std::string> file_form_names();

/// The form that a file's name tells, `.gz` not counted: csv for .csv, inter for .inter, movielens for .dat, user_item
/// for .txt, and tsv for every other.
const FileForm& file_form_of(const std::filesystem::path& path);

}  // namespace tally::recsys
