#pragma once

#include <filesystem>
#include <string>

#include "tally/core/options/option_tables.h"
#include "tally/recsys/data/delimited_rows.h"

namespace tally::recsys {

/// A usual way of writing interactions to a file, plain or gzip'd.
struct FileForm {
  std::string name;
  std::string summary;
  std::string extension;  ///< of the file's name, `.gz` not counted: ".csv"; "": of every name that no other form has
  DelimitedFormat format;
  std::string order_column;  ///< the column that holds times; "": the file is in order
};

/// csv, tsv, inter (RecBole's), movielens (ratings.dat) and user_item (SASRec's text files).
ChoiceTable<FileForm> standard_readers();

/// The form that a file's name tells. Throws ConfigError when none does.
const FileForm& file_form_of(const std::filesystem::path& path, const ChoiceTable<FileForm>& readers);
FileForm file_form_of(const std::filesystem::path& path);

}  // namespace tally::recsys
