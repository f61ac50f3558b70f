#include "examples/question_answering/study_config.h"

#include <algorithm>
#include <set>

#include "tally/core/io/json.h"

namespace question_answering {

using tally::check;
using tally::ConfigError;

namespace {

bool is_plain(const std::string& name) {
  const auto plain = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
  };
  return !name.empty() && name.size() <= 100 && std::all_of(name.begin(), name.end(), plain);
}

}  // namespace

void StudyConfig::check(const std::string&) const {
  tally::check<ConfigError>(!readers.empty() && !learning_rates.empty() && !seeds.empty(), "study",
                            "needs at least one reader, one learning rate and one seed");
  std::set<std::string> names;
  for (const ReaderSetting& reader : readers) {
    tally::check<ConfigError>(is_plain(reader.name), "readers", "need names of letters, digits, _ and -; got \"",
                              reader.name, '"');
    tally::check<ConfigError>(names.insert(reader.name).second, "readers", "need names that differ; \"", reader.name,
                              "\" is there twice");
  }
  tally::check<ConfigError>(
      std::set<double>(learning_rates.begin(), learning_rates.end()).size() == learning_rates.size() &&
          std::set<std::int64_t>(seeds.begin(), seeds.end()).size() == seeds.size(),
      "study", "needs learning rates and seeds that differ");
  tally::check<ConfigError>(rate_seeds <= static_cast<std::int64_t>(seeds.size()), "study.rate_seeds", "needs at most ",
                            seeds.size(), ", as many as there are seeds; got ", rate_seeds);
  for (const GapSetting& gap : gaps) {
    for (const std::string& side : {gap.better, gap.worse}) {
      tally::check<ConfigError>(names.contains(side), "gaps", "\"", side, "\" is no reader of this study",
                                tally::suggestion(side, std::vector<std::string>(names.begin(), names.end())));
    }
  }
}

StudyConfig read_study_config(const std::filesystem::path& file) {
  const tally::Json json = tally::read_json(file);
  StudyConfig config;
  tally::JsonFields fields(json);
  tally::read_options([&config] { return tally::list_options(config); }, fields, &json);
  for (ReaderSetting& reader : config.readers) {
    if (reader.name.empty()) reader.name = reader.reader.name();
  }
  const auto data = [&config] { return config.data.set.options.list(); };
  const tally::OptionList list = data();
  if (const tally::Option* directory = list.find("directory")) {
    const std::filesystem::path written = directory->value().as_string();
    tally::set_option(data, "data", "directory",
                      (file.parent_path() / written).lexically_normal().string());  // an absolute one stays as it is
  }
  tally::check_options(tally::list_options(config), "");
  return config;
}

}  // namespace question_answering
