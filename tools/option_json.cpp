#include "tools/option_json.h"

#include "tally/core/io/json_fields.h"

namespace tally::tools {

ops::OpOptions read_options(const ops::OpEntry& entry, const Json& object) {
  check<ConfigError>(object.is(Json::Kind::object), "--options", "needs a JSON object; got ", name_of(object.kind()));
  JsonFields fields(object, "options");
  ops::OpOptions options;
  for (const ops::OpOption& option : entry.options) {
    std::visit(
        [&]<class T>(const T&) {
          if (const std::optional<T> value = fields.find<T>(option.name)) options.set(option.name, *value);
        },
        option.otherwise);
  }
  fields.finish();
  return options;
}

ops::OpOptions read_options(const ops::OpEntry& entry, const std::string& text) {
  if (text.empty()) return {};
  Json object;
  try {
    object = parse_json(text, "--options");
  } catch (const IoError& error) {
    throw ConfigError(error.what());
  }
  return read_options(entry, object);
}

Json to_json(const ops::OpOptions& options) {
  Json object = Json::object();
  for (const auto& [name, value] : options.values()) {
    std::visit([&, &key = name](const auto& held) { object.set(key, Json(held)); }, value);
  }
  return object;
}

}  // namespace tally::tools
