#include "tally/recsys/data/file_forms.h"

namespace tally::recsys {

ChoiceTable<FileForm> standard_readers() {
  static const ChoiceTable<FileForm> all(
      "data.format",
      {{"csv", "commas and quotes, a header line that names the columns (MovieLens' ratings.csv)", ".csv", csv_format(),
        "timestamp"},
       {"tsv", "tabs, a header line", "", {.separator = "\t", .quoted = false, .columns = {}}, "timestamp"},
       {"inter",
        "RecBole's: tabs, a header line with types, `user_id:token`",
        ".inter",
        {.separator = "\t", .quoted = false, .columns = {}},
        "timestamp"},
       {"movielens",
        "`user::item::rating::timestamp`, no header (MovieLens' ratings.dat)",
        ".dat",
        {.separator = "::", .quoted = false, .columns = {"user_id", "item_id", "rating", "timestamp"}},
        "timestamp"},
       {"user_item",
        "`user item` in order of time, no header (SASRec's text files)",
        ".txt",
        {.separator = " ", .quoted = false, .columns = {"user_id", "item_id"}},
        ""}});
  return all;
}

const FileForm& file_form_of(const std::filesystem::path& path, const ChoiceTable<FileForm>& readers) {
  const std::filesystem::path extension = (path.extension() == ".gz" ? path.stem() : path).extension();
  const FileForm* other = nullptr;
  for (const FileForm& form : readers) {
    if (form.extension.empty()) {
      other = &form;
    } else if (form.extension == extension) {
      return form;
    }
  }
  check<ConfigError>(other != nullptr, "data.format", "needs a name: that of ", path.string(), " tells none");
  return *other;
}

FileForm file_form_of(const std::filesystem::path& path) { return file_form_of(path, standard_readers()); }

}  // namespace tally::recsys
