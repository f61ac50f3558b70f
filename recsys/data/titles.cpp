#include "tally/recsys/data/titles.h"

#include "tally/recsys/data/catalogue.h"
#include "tally/recsys/data/file_forms.h"

namespace tally::recsys {

namespace {

/// Whether bytes are UTF-8; shortest forms and surrogates are not looked at, which suffices to tell it from Latin-1.
bool is_utf8(std::string_view bytes) {
  int following = 0;
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    if (following > 0) {
      if (byte >> 6 != 2) return false;
      --following;
    } else if (byte >> 7 == 1) {
      following = byte >> 5 == 6 ? 1 : byte >> 4 == 14 ? 2 : byte >> 3 == 30 ? 3 : -1;
      if (following < 0) return false;
    }
  }
  return following == 0;
}

std::string to_utf8(std::string_view bytes) {
  if (is_utf8(bytes)) return std::string(bytes);
  std::string text;
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x80) {
      text += c;
    } else {
      text += static_cast<char>(0xc0 | byte >> 6);
      text += static_cast<char>(0x80 | (byte & 0x3f));
    }
  }
  return text;
}

}  // namespace

TitleOptions title_options_of(const std::filesystem::path& path) {
  const std::filesystem::path name = path.extension() == ".gz" ? path.stem() : path.filename();
  TitleOptions options;
  options.format = file_form_of(path).format;
  if (name.extension() == ".dat") options.format.columns = {"movieId", "title", "genres"};
  if (name == "u.item") {
    options.format = {.separator = "|", .quoted = false, .columns = {"movieId", "title"}};
    // The date of release, two more, and 19 genres.
    for (int i = 0; i < 22; ++i) options.format.columns.push_back("column " + std::to_string(i + 3));
  }
  return options;
}

std::unordered_map<std::string, std::string> read_titles(const std::filesystem::path& path,
                                                         const TitleOptions& options) {
  DelimitedRows rows(path, options.format, options.stop_requested);
  const std::size_t item = rows.column(rows.has_column(options.item_column) ? options.item_column : "item_id");
  const std::size_t title = rows.column(options.title_column);
  std::unordered_map<std::string, std::string> titles;
  while (rows.next()) {
    if (rows.field(item).empty()) rows.refuse(item, "needs a ", options.item_column, "; got an empty field");
    if (!titles.emplace(rows.field(item), in_one_cell(to_utf8(rows.field(title)))).second) {
      rows.refuse(item, "gives a second title for '", rows.field(item), "'");
    }
  }
  return titles;
}

}  // namespace tally::recsys
