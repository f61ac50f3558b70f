#include "tally/recsys/data/titles.h"

namespace tally::recsys {

std::unordered_map<std::string, std::string> read_titles(const std::filesystem::path& path,
                                                         const TitleOptions& options) {
  DelimitedRows rows(path, options.format);
  const std::size_t item = rows.column(options.item_column);
  const std::size_t title = rows.column(options.title_column);
  std::unordered_map<std::string, std::string> titles;
  while (rows.next()) {
    if (rows.field(item).empty()) rows.refuse(item, "needs a ", options.item_column, "; got an empty field");
    if (!titles.emplace(rows.field(item), rows.field(title)).second) {
      rows.refuse(item, "gives a second title for '", rows.field(item), "'");
    }
  }
  return titles;
}

}  // namespace tally::recsys
