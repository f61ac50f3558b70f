#include "tally/recsys/config/data_config.h"

#include <algorithm>

namespace tally::recsys {
namespace {

std::optional<CountIntervals> parsed(const std::string& text) {
  try {
    return CountIntervals::parse(text);
  } catch (const ValueError&) {
    return std::nullopt;
  }
}

}  // namespace

TextDomain DataConfig::counts() {
  return {"counts such as \"[5,inf)\" or \"(3,100]\"",
          [](const std::string& text) { return parsed(text).has_value(); }};
}

bool DataConfig::has_times() const { return !resolved(*this).order_column.empty(); }

bool DataConfig::filters_counts() const {
  const auto some = [](const std::string& text) {
    const auto intervals = parsed(text);
    return !intervals || !intervals->is_everything();  // a wrong one is an error of its own
  };
  return some(user_inter_num_interval) || some(item_inter_num_interval);
}

std::vector<std::string> DataConfig::formats() const {
  std::vector<std::string> names = readers.names();
  names.insert(names.begin(), "auto");
  return names;
}

void DataConfig::check(const std::string& section) const {
  tally::check<ConfigError>(!path.empty(), section + ".path", "is missing; it names the file of interactions");
  tally::check<ConfigError>(!min_rating || !rating_column.empty(), section + ".min_rating", "needs ", section,
                            ".RATING_FIELD, the column that holds ratings");
}

DataConfig resolved(DataConfig data) {
  if (data.format == "auto") data.format = file_form_of(data.path, data.readers).name;
  if (data.order_column == "auto") {
    const bool timed = std::find(data.columns.begin(), data.columns.end(), "timestamp") != data.columns.end();
    data.order_column = data.columns.empty() ? data.readers.at(data.format).order_column : timed ? "timestamp" : "";
  }
  return data;
}

}  // namespace tally::recsys
