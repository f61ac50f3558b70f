#include "tally/recsys/config/config.h"

#include <algorithm>
#include <set>

namespace tally::recsys {
namespace {

/// The value at a dotted path, or null.
const Json* find_at(const Json& json, const std::string& key) {
  const std::size_t dot = key.find('.');
  const Json* here = json.find(key.substr(0, dot));
  return here == nullptr || dot == std::string::npos ? here : find_at(*here, key.substr(dot + 1));
}

/// Does a config give a key, by this name or by one that it had before?
bool gives(const Json& json, const std::string& key, const std::vector<KnownOption>& keys) {
  if (find_at(json, key) != nullptr) return true;
  return std::any_of(keys.begin(), keys.end(), [&](const KnownOption& each) {
    return each.key == key && std::any_of(each.former.begin(), each.former.end(),
                                          [&](const std::string& former) { return find_at(json, former) != nullptr; });
  });
}

/// The values of a config over those of its protocol.
Json over_protocol(const Json& json, const Protocol& protocol, const std::vector<KnownOption>& keys) {
  Json all = json;
  for (const auto& [key, value] : protocol.values.members()) {
    const Json* section = all.find(key.substr(0, key.find('.')));
    const bool is_section = section == nullptr || section->is(Json::Kind::object);
    if (is_section && !gives(all, key, keys)) all.set_at(key, value);
  }
  return all;
}

/// Without the member at a dotted path.
Json without(const Json& json, const std::string& key) {
  if (!json.is(Json::Kind::object)) return json;
  const std::size_t dot = key.find('.');
  Json rest = Json::object();
  for (const auto& [name, value] : json.members()) {
    if (name != key.substr(0, dot)) {
      rest.set(name, value);
    } else if (dot != std::string::npos) {
      rest.set(name, without(value, key.substr(dot + 1)));
    }
  }
  return rest;
}

RunConfig read_values(const Json& json, const Json* given, const Tables& tables) {
  check<ConfigError>(json.is(Json::Kind::object), "config", "needs a JSON object");
  const std::string protocol = JsonFields(json).get("protocol", "");
  const Json all = protocol.empty() ? json : over_protocol(json, tables.protocols.at(protocol), config_keys(tables));
  RunConfig config(tables);
  JsonFields fields(all);
  read_options([&config] { return list_options(config); }, fields, given);
  // Before null stood for it, no least rating was written as 0; where no ratings are read it can mean nothing else.
  if (config.data.rating_column.empty() && config.data.min_rating == 0.0) config.data.min_rating.reset();
  return config;
}

RunConfig read(const Json& json, const Json* given, const Tables& tables) {
  RunConfig config = read_values(json, given, tables);
  check_options(list_options(config), "");
  config.data = resolved(config.data);
  return config;
}

}  // namespace

RunConfig::RunConfig(const Tables& all) : tables(all), model("sasrec", all), train(all) {
  data.readers = tables.readers;
}

void RunConfig::check(const std::string&) const {
  if (data.validates()) parse_metric(train.valid_metric, evaluation);
}

RunConfig parse_config(const Json& json, const Tables& tables) { return read(json, &json, tables); }

RunConfig parse_recorded_config(const Json& json, const Tables& tables) { return read(json, nullptr, tables); }

Json to_json(const RunConfig& config) {
  RunConfig copy = config;
  return to_json(list_options(copy));
}

Json all_model_keys(const RunConfig& config) {
  ModelConfig model(config.model.name(), config.tables);
  Json all = Json::object();
  for (KnownOption& option : known_options(list_options(model))) all.set(option.key, std::move(option.value));
  return all;
}

std::vector<KnownOption> config_keys(const Tables& tables) {
  RunConfig config(tables);
  return known_options(list_options(config));
}

std::vector<std::pair<std::string, Json>> flattened(const Json& config) {
  std::vector<std::pair<std::string, Json>> values;
  for (const auto& [name, value] : config.members()) {
    if (!value.is(Json::Kind::object)) {
      values.emplace_back(name, value);
      continue;
    }
    for (auto& [below, its_value] : flattened(value)) values.emplace_back(name + '.' + below, its_value);
  }
  return values;
}

std::string protocol_label(const RunConfig& config) {
  if (config.protocol.empty()) return "no named protocol";
  // What any protocol decides is worth a word where it is not as this one has it. Cut-offs stand in metrics' names.
  std::set<std::string> decided;
  for (const Protocol& protocol : config.tables.protocols) {
    for (const auto& [key, value] : protocol.values.members()) decided.insert(key);
  }
  decided.erase("evaluation.topk");
  Json plain = Json::object({{"protocol", config.protocol}});
  plain.set_at("model.name", config.model.name());
  RunConfig usual = read_values(plain, nullptr, config.tables);
  const std::vector<KnownOption> expected = known_options(list_options(usual));
  std::string label = config.protocol;
  bool first = true;
  for (const auto& [key, value] : flattened(to_json(config))) {
    const bool as_usual = std::any_of(expected.begin(), expected.end(), [&key = key, &value = value](const auto& each) {
      return each.key == key && each.value == value;
    });
    if (as_usual || !decided.contains(key)) continue;
    label += (first ? " with " : " and ") + key + '=' + value.dump();
    first = false;
  }
  return label;
}

namespace {

/// The dotted path of a key: itself, or the one place where a config has it.
std::string resolve_key(const std::string& key, const std::vector<KnownOption>& keys) {
  const std::vector<const KnownOption*> homes = meant_by(key, keys);
  if (key.find('.') != std::string::npos) return homes.size() == 1 ? homes[0]->key : key;
  std::vector<std::string> known;
  for (const KnownOption& each : keys) {
    const std::size_t dot = each.key.find('.');
    const std::string bare = dot == std::string::npos ? each.key : each.key.substr(dot + 1);
    check<ConfigError>(dot == std::string::npos || key != each.key.substr(0, dot), "--" + key,
                       "is a section; name a key in it, e.g. --", each.key);
    known.push_back(bare);
  }
  if (homes.empty()) {
    const std::string nearest = nearest_name(key, known);
    fail<ConfigError>("--" + key, "is no key of a config",
                      nearest.empty() ? "" : "; did you mean \"" + nearest + "\"?");
  }
  check<ConfigError>(homes.size() == 1, "--" + key, "stands in several sections; write the section too, e.g. --",
                     homes[0]->key);
  return homes[0]->key;
}

/// JSON when it is JSON, else text: the reader of the config says which kind of value the key needs.
Json read_value(const std::string& text) {
  try {
    return parse_json(text);
  } catch (const IoError&) {
    return Json(text);
  }
}

}  // namespace

void apply_override(Json& config, const std::string& assignment, const Tables& tables) {
  const std::size_t equals = assignment.find('=');
  check<ConfigError>(equals != std::string::npos && equals > 0, "--" + assignment, "needs the form --key=value");
  const std::vector<KnownOption> keys = config_keys(tables);
  const std::string key = resolve_key(assignment.substr(0, equals), keys);
  const std::string text = assignment.substr(equals + 1);
  for (const KnownOption& each : keys) {
    if (each.key != key) continue;
    for (const std::string& former : each.former) {
      if (meant_by(former, keys).front() == &each) config = without(config, former);
    }
  }
  // What is text in a config is text here, quotes or not: a user id of 42, say.
  const bool is_text = std::any_of(keys.begin(), keys.end(), [&](const KnownOption& each) {
    return each.key == key && each.value.is(Json::Kind::string);
  });
  try {
    config.set_at(key, is_text ? Json(text) : read_value(text));
  } catch (const ValueError&) {
    fail<ConfigError>("--" + key, "cannot be set: what stands before its last dot is no section of the config");
  }
}

namespace {

/// Makes the data paths of a config relative to where it stands.
void anchor_paths(Json& json, const std::filesystem::path& directory) {
  for (const char* name : {"path", "titles"}) {
    const Json* data = json.find("data");
    const Json* file = data == nullptr ? nullptr : data->find(name);
    if (file == nullptr || !file->is(Json::Kind::string) || file->as_string().empty()) continue;
    const std::filesystem::path given = file->as_string();
    if (given.is_relative()) json.set_at(std::string("data.") + name, (directory / given).lexically_normal().string());
  }
}

Json read_config_file(const std::filesystem::path& path) {
  Json json;
  try {
    json = read_json(path);
  } catch (const IoError& error) {
    throw ConfigError(error.what());
  }
  check<ConfigError>(json.is(Json::Kind::object), path.string(), "needs a JSON object {...} of sections; got ",
                     name_of(json.kind()));
  anchor_paths(json, path.parent_path());
  return json;
}

}  // namespace

RunConfig load_config(const std::filesystem::path& path, const std::vector<std::string>& overrides,
                      const Tables& tables) {
  Json json = read_config_file(path);
  for (const std::string& assignment : overrides) apply_override(json, assignment, tables);
  return parse_config(json, tables);
}

RunConfig load_config(Json json, const std::filesystem::path& directory, const std::vector<std::string>& overrides,
                      const Tables& tables) {
  anchor_paths(json, directory);
  for (const std::string& assignment : overrides) apply_override(json, assignment, tables);
  return parse_config(json, tables);
}

std::vector<ConfigValue> explain_config(const std::filesystem::path& path, const std::vector<std::string>& overrides,
                                        const Tables& tables) {
  const Json file = read_config_file(path);
  Json all = file;
  Json command_line = Json::object();
  for (const std::string& assignment : overrides) {
    apply_override(all, assignment, tables);
    apply_override(command_line, assignment, tables);
  }
  const RunConfig config = parse_config(all, tables);
  const Protocol* protocol = config.protocol.empty() ? nullptr : &tables.protocols.at(config.protocol);
  const std::vector<KnownOption> keys = config_keys(tables);
  std::vector<ConfigValue> values;
  for (auto& [key, value] : flattened(to_json(config))) {
    std::string origin = "default";
    if (find_at(command_line, key) != nullptr) {
      origin = "--" + key;
    } else if (gives(file, key, keys)) {
      origin = path.string();
    } else if (protocol != nullptr && protocol->values.find(key) != nullptr) {
      origin = "protocol " + config.protocol;
    }
    values.push_back({key, std::move(value), std::move(origin)});
  }
  return values;
}

}  // namespace tally::recsys
