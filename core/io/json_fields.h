#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tally/core/io/json.h"

namespace tally {

/// The candidate nearest to `word` by edit distance (a swap of neighbours counts once, letter case not at all), for
/// "did you mean"; empty when none is near: at most a third of the letters may differ, and two always may.
std::string nearest_name(std::string_view word, std::span<const std::string> candidates);
/// The end of a message about an unknown word: the nearest candidate, or all of them when none is near.
std::string suggestion(std::string_view word, std::span<const std::string> candidates);

/// Reads the members of a JSON object into options, strictly: every member must have been asked for by the time of
/// finish(). All errors are ConfigErrors beginning with the dotted path of the member.
///
///     JsonFields fields(config, "train");
///     options.epochs = fields.get("epochs", options.epochs);
///     options.optimizer = fields.choice("optimizer", "adam", {"adam", "sgd"});
///     read_schedule(fields.child("schedule"));   // which calls finish() of its own
///     fields.finish();
class JsonFields {
 public:
  /// `object` must outlive this. `path` is empty for the top of a document.
  explicit JsonFields(const Json& object, std::string path = "");

  /// From here on a member called `former` is read as `name`. Throws ConfigError for an object that has two of such
  /// names.
  void accept_former(const std::string& former, const std::string& name);

  bool has(const std::string& name);
  /// The member's value, or `fallback` when it is absent. Numbers must be finite.
  template <class T>
  T get(const std::string& name, const T& fallback);
  std::string get(const std::string& name, const char* fallback) { return get<std::string>(name, fallback); }
  template <class T>
  T require(const std::string& name);
  template <class T>
  std::optional<T> find(const std::string& name);
  /// A string out of `choices`; the error names the nearest of them.
  std::string choice(const std::string& name, const std::string& fallback, const std::vector<std::string>& choices);
  /// The fields of a nested object, empty when it is absent.
  JsonFields child(const std::string& name);
  /// Dotted path of a member, for messages.
  std::string path_of(std::string_view name) const;
  const std::string& path() const { return path_; }
  const Json& object() const { return *object_; }

  /// Throws ConfigError naming a member that nobody asked for, and the nearest name that somebody did.
  void finish() const;

 private:
  const Json* look_up(const std::string& name);
  template <class T>
  T convert(const Json& value, const std::string& name) const;
  static void check_finite(const Json& value, const std::string& path);

  const Json* object_;
  std::string path_;
  std::vector<std::string> known_;
  std::vector<std::pair<std::string, std::string>> former_;  ///< and the name of today
};

template <class T>
T JsonFields::convert(const Json& value, const std::string& name) const {
  try {
    if constexpr (std::is_floating_point_v<T>) check_finite(value, path_of(name));
    return value.as<T>(path_of(name));
  } catch (const ValueError& error) {
    throw ConfigError(error.what());
  }
}

template <class T>
T JsonFields::get(const std::string& name, const T& fallback) {
  const Json* value = look_up(name);
  return value == nullptr ? fallback : convert<T>(*value, name);
}

template <class T>
T JsonFields::require(const std::string& name) {
  const Json* value = look_up(name);
  check<ConfigError>(value != nullptr, path_of(name), "is missing; it has no default");
  return convert<T>(*value, name);
}

template <class T>
std::optional<T> JsonFields::find(const std::string& name) {
  const Json* value = look_up(name);
  if (value == nullptr || value->is(Json::Kind::null)) return std::nullopt;
  return convert<T>(*value, name);
}

}  // namespace tally
