#include "tally/core/io/json_fields.h"

#include <algorithm>
#include <cmath>

namespace tally {
namespace {

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

/// Optimal string alignment distance: insertions, deletions, replacements, swaps of neighbours.
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> before_last, last(b.size() + 1), current(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) last[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    current[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replaced = last[j - 1] + (lower(a[i - 1]) == lower(b[j - 1]) ? 0 : 1);
      current[j] = std::min({last[j] + 1, current[j - 1] + 1, replaced});
      if (i > 1 && j > 1 && lower(a[i - 1]) == lower(b[j - 2]) && lower(a[i - 2]) == lower(b[j - 1])) {
        current[j] = std::min(current[j], before_last[j - 2] + 1);
      }
    }
    before_last = last;
    last = current;
  }
  return last[b.size()];
}

}  // namespace

std::string nearest_name(std::string_view word, std::span<const std::string> candidates) {
  // A hostile name must not buy quadratic work.
  constexpr std::size_t kLongest = 256;
  std::string nearest;
  if (word.size() > kLongest) return nearest;
  std::size_t least = std::max<std::size_t>(2, word.size() / 3) + 1;
  for (const std::string& candidate : candidates) {
    if (candidate.size() > kLongest) continue;
    const std::size_t distance = edit_distance(word, candidate);
    if (distance < least && distance < std::max(word.size(), candidate.size())) {
      least = distance;
      nearest = candidate;
    }
  }
  return nearest;
}

std::string suggestion(std::string_view word, std::span<const std::string> candidates) {
  const std::string nearest = nearest_name(word, candidates);
  if (!nearest.empty()) return "; did you mean \"" + nearest + "\"?";
  std::string list;
  for (const std::string& candidate : candidates) list += (list.empty() ? "" : ", ") + candidate;
  return list.empty() ? "; none is known here" : "; known are " + list;
}

JsonFields::JsonFields(const Json& object, std::string path) : object_(&object), path_(std::move(path)) {
  check<ConfigError>(object.is(Json::Kind::object), path_.empty() ? "config" : path_, "needs an object {...}; got ",
                     name_of(object.kind()));
}

std::string JsonFields::path_of(std::string_view name) const {
  return path_.empty() ? std::string(name) : path_ + "." + std::string(name);
}

const Json* JsonFields::look_up(const std::string& name) {
  if (std::find(known_.begin(), known_.end(), name) == known_.end()) known_.push_back(name);
  if (const Json* value = object_->find(name)) return value;
  for (const auto& [former, now] : former_) {
    if (now != name) continue;
    if (const Json* value = object_->find(former)) return value;
  }
  return nullptr;
}

void JsonFields::accept_former(const std::string& former, const std::string& name) {
  if (object_->find(former) != nullptr) {
    const auto given = [&](const auto& each) { return each.second == name && object_->find(each.first) != nullptr; };
    const auto other = std::find_if(former_.begin(), former_.end(), given);
    const std::string& beside = other == former_.end() ? name : other->first;
    check<ConfigError>(other == former_.end() && object_->find(name) == nullptr, path_of(former),
                       "is a former name of \"", name, "\", and \"", beside, "\" is given too; leave one of them out");
  }
  former_.emplace_back(former, name);
}

bool JsonFields::has(const std::string& name) { return look_up(name) != nullptr; }

std::string JsonFields::choice(const std::string& name, const std::string& fallback,
                               const std::vector<std::string>& choices) {
  const std::string chosen = get<std::string>(name, fallback);
  check<ConfigError>(std::find(choices.begin(), choices.end(), chosen) != choices.end(), path_of(name),
                     "does not know \"", chosen, "\"", suggestion(chosen, choices));
  return chosen;
}

JsonFields JsonFields::child(const std::string& name) {
  static const Json kEmpty = Json::object();
  const Json* value = look_up(name);
  return JsonFields(value == nullptr ? kEmpty : *value, path_of(name));
}

void JsonFields::finish() const {
  for (const JsonMember& member : object_->members()) {
    const auto called_so = [&](const auto& each) { return each.first == member.name; };
    if (std::any_of(former_.begin(), former_.end(), called_so)) continue;
    if (std::find(known_.begin(), known_.end(), member.name) == known_.end()) {
      fail<ConfigError>(path_of(member.name), "is not a known key", suggestion(member.name, known_));
    }
  }
}

void JsonFields::check_finite(const Json& value, const std::string& path) {
  check<ConfigError>(std::isfinite(value.as_double(path)), path, "needs a finite number; got ", value.dump());
}

}  // namespace tally
