#include "tally/recsys/data/file_forms.h"

#include <algorithm>

namespace tally::recsys {

namespace {

const std::vector<FileForm>& forms() {
  static const std::vector<FileForm> all = {
      {"csv", csv_format(), "timestamp"},
      {"tsv", {.separator = "\t", .quoted = false, .columns = {}}, "timestamp"},
      {"inter", {.separator = "\t", .quoted = false, .columns = {}}, "timestamp"},
      {"movielens",
       {.separator = "::", .quoted = false, .columns = {"user_id", "item_id", "rating", "timestamp"}},
       "timestamp"},
      {"user_item", {.separator = " ", .quoted = false, .columns = {"user_id", "item_id"}}, ""},
  };
  return all;
}

}  // namespace

std::vector<std::string> file_form_names() {
  std::vector<std::string> names;
  for (const FileForm& form : forms()) names.push_back(form.name);
  return names;
}

const FileForm& file_form(std::string_view name) {
  const auto found = std::find_if(forms().begin(), forms().end(), [name](const FileForm& f) { return f.name == name; });
  check<ConfigError>(found != forms().end(), "file_form", "needs csv, tsv, inter, movielens or user_item; got ", name);
  return *found;
}

const FileForm& file_form_of(const std::filesystem::path& path) {
  const std::filesystem::path extension = (path.extension() == ".gz" ? path.stem() : path).extension();
  if (extension == ".csv") return file_form("csv");
  if (extension == ".inter") return file_form("inter");
  if (extension == ".dat") return file_form("movielens");
  if (extension == ".txt") return file_form("user_item");
  return file_form("tsv");
}

}  // namespace tally::recsys
