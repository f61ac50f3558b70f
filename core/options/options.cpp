#include "tally/core/options/options.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "tally/core/options/option_walker.h"

namespace tally {
namespace {

std::string in_words(double number) { return detail::join(number); }

/// "a", "a or b", "a, b or c".
std::string any_of(const std::vector<std::string>& words) {
  std::string text;
  for (std::size_t i = 0; i < words.size(); ++i) {
    text += (i == 0 ? "" : i + 1 == words.size() ? " or " : ", ") + words[i];
  }
  return text;
}

bool contains(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

bool has(const std::vector<KnownOption>& known, const std::string& key) {
  return std::any_of(known.begin(), known.end(), [&](const KnownOption& each) { return each.key == key; });
}

/// Is one of them called so, or was it?
bool knows(const std::vector<KnownOption>& known, const std::string& name) {
  return std::any_of(known.begin(), known.end(),
                     [&](const KnownOption& each) { return each.key == name || contains(each.former, name); });
}

/// The other rows of a choice that bring an option of this name: as they are, or also `by_choices` of their own.
std::vector<std::string> rows_with(const Option& choice, const std::string& name, bool by_choices) {
  std::vector<std::string> rows;
  const std::string chosen = choice.value().as_string();
  for (const std::string& row : choice.choices) {
    const OptionList list = choice.other(row);
    const bool brings = by_choices ? knows(known_options(list), name) : list.find_written(name) != nullptr;
    if (brings && row != chosen) rows.push_back(row);
  }
  return rows;
}

std::string path_of(const std::string& section, const std::string& name) {
  return section.empty() ? name : section + '.' + name;
}

/// Why a key that is not of the list has no effect; nothing when no other row brings it.
std::optional<Effect> effect_of_other_rows(const OptionList& list, const std::string& section,
                                           const std::string& name) {
  // A choice within a choice stands behind it, and is nearer to the key.
  for (const bool by_choices : {false, true}) {
    Effect effect{.now = false, .with = {}, .needs = {}};
    for (auto choice = list.options.rbegin(); choice != list.options.rend(); ++choice) {
      if (!choice->other) continue;
      const std::vector<std::string> rows = rows_with(*choice, name, by_choices);
      if (rows.empty()) continue;
      const std::string path = path_of(section, choice->name);
      if (effect.with.empty()) effect.with = path + ' ' + choice->value().as_string();
      effect.needs += (effect.needs.empty() ? "" : ", or ") + path + ' ' + any_of(rows);
    }
    if (!effect.needs.empty()) return effect;
  }
  return std::nullopt;
}

void accept_former_names(const Option& option, const OptionList& list, JsonFields& fields) {
  for (const std::string& former : option.former) {
    if (list.find(former) == nullptr) fields.accept_former(former, option.name);
  }
}

/// Reads every value, with those that turn out to have no effect.
void read_values(const Lister& lister, JsonFields& fields) {
  // Choices first: they decide what else there is, further choices among it.
  std::set<std::string> chosen;
  OptionList list = lister();
  for (bool again = true; again;) {
    again = false;
    for (const Option& option : list.options) {
      if (!option.other || !chosen.insert(option.name).second) continue;
      accept_former_names(option, list, fields);
      option.read(fields);
      list = lister();
      again = true;
      break;
    }
  }
  for (const Option& option : list.options) {
    if (!option.other) accept_former_names(option, list, fields);
    if (option.section) {
      JsonFields child = fields.child(option.name);
      read_values(option.section, child);
    } else if (!option.other) {
      option.read(fields);
    }
  }
  for (const JsonMember& member : fields.object().members()) {
    // A key of another row is known, and left alone.
    if (effect_of_other_rows(list, fields.path(), member.name)) fields.has(member.name);
  }
  fields.finish();
}

/// Throws for a key that a user wrote and that has no effect.
void refuse_without_effect(const OptionList& list, const Json& given, const std::string& section) {
  for (const JsonMember& member : given.members()) {
    const Option* option = list.find_written(member.name);
    if (option != nullptr && option->section) {
      refuse_without_effect(option->section(), member.value, path_of(section, member.name));
      continue;
    }
    std::optional<Effect> effect;
    if (option != nullptr) {
      effect = option->effect;
    } else {
      effect = effect_of_other_rows(list, section, member.name);
    }
    if (!effect || effect->now) continue;
    std::vector<std::string> effective;
    for (const Option& each : list.options) {
      if (each.effect.now) effective.push_back(each.name);
    }
    const std::string nearest = nearest_name(member.name, effective);
    fail<ConfigError>(path_of(section, member.name), "has no effect",
                      effect->with.empty() ? " here" : " with " + effect->with, "; it needs ", effect->needs,
                      nearest.empty() ? "" : "; did you mean \"" + nearest + "\"?");
  }
}

}  // namespace

Domain at_least(double least) {
  return {"at least " + in_words(least), [least](double value) { return value >= least; }};
}
Domain from_to(double least, double most) {
  return {"a value in [" + in_words(least) + ", " + in_words(most) + "]",
          [least, most](double value) { return value >= least && value <= most; }};
}
Domain above(double bound) {
  return {"a value above " + in_words(bound), [bound](double value) { return value > bound; }};
}
Domain rate() {
  return {"a value in [0, 1)", [](double value) { return value >= 0 && value < 1; }};
}
Domain share() {
  return {"a value in [0, 1]", [](double value) { return value >= 0 && value <= 1; }};
}
Domain even() {
  return {"an even number", [](double value) { return std::fmod(value, 2) == 0; }};
}

Formerly formerly(std::string name) { return {std::move(name)}; }

OneOf one_of(std::vector<std::string> words) { return {std::move(words)}; }

Effect only_if(bool condition, std::string needs) { return {condition, "", std::move(needs)}; }

Effect only_with(const std::string& name, const std::string& value, const std::vector<std::string>& wanted) {
  return {std::find(wanted.begin(), wanted.end(), value) != wanted.end(), name + ' ' + value,
          name + ' ' + any_of(wanted)};
}

const Option* OptionList::find(const std::string& name) const {
  const auto found =
      std::find_if(options.begin(), options.end(), [&](const Option& each) { return each.name == name; });
  return found == options.end() ? nullptr : &*found;
}

const Option* OptionList::find_written(const std::string& name) const {
  if (const Option* option = find(name)) return option;
  const auto found =
      std::find_if(options.begin(), options.end(), [&](const Option& each) { return contains(each.former, name); });
  return found == options.end() ? nullptr : &*found;
}

void OptionWalker::effect(const std::string& section, const std::string& name, const Effect& effect) {
  for (Option& option : list.options) {
    if (option.name != section) continue;
    option.section = [listed = option.section, name, effect] {
      OptionList all = listed();
      for (Option& each : all.options) {
        if (each.name == name && each.effect.now) each.effect = effect;
      }
      return all;
    };
  }
}

void OptionWalker::for_each_section(JsonFields& fields, const std::string& name,
                                    const std::function<void(JsonFields& section)>& visit) {
  const std::string path = fields.path_of(name);
  const Json& list = fields.object().at(name);
  check<ConfigError>(list.is(Json::Kind::array), path, "needs a list of objects; got ", list.dump());
  std::int64_t place = 0;
  for (const Json& each : list.elements()) {
    const std::string at = path + '[' + std::to_string(place++) + ']';
    check<ConfigError>(each.is(Json::Kind::object), at, "needs an object; got ", each.dump());
    JsonFields section(each, at);
    visit(section);
  }
}

void OptionWalker::add_check(Option& option, const std::string& phrase, std::function<void(const std::string&)> check) {
  if (!phrase.empty()) option.domain.push_back(phrase);
  if (!option.check) {
    option.check = std::move(check);
    return;
  }
  option.check = [first = option.check, second = std::move(check)](const std::string& path) {
    first(path);
    second(path);
  };
}

void read_options(const Lister& lister, JsonFields& fields, const Json* given) {
  read_values(lister, fields);
  // Conditions as they are now that all is read.
  if (given != nullptr) refuse_without_effect(lister(), *given, fields.path());
}

void set_option(const Lister& lister, const std::string& section, const std::string& key, const Json& value) {
  const OptionList list = lister();
  const Option* const option = list.find_written(key);
  Json given = to_json(list);
  given.set(option == nullptr ? key : option->name, value);
  JsonFields fields(given, section);
  const Json only = Json::object({{key, value}});
  read_options(lister, fields, &only);
  check_options(lister(), section);
}

void check_options(const OptionList& list, const std::string& section) {
  for (const Option& option : list.options) {
    if (option.section) {
      check_options(option.section(), path_of(section, option.name));
    } else if (option.check && option.effect.now) {
      option.check(path_of(section, option.name));
    }
  }
  for (const auto& check : list.checks) check(section);
}

Json to_json(const OptionList& list) {
  Json json = Json::object();
  for (const Option& option : list.options) {
    if (option.effect.now) json.set(option.name, option.section ? to_json(option.section()) : option.value());
  }
  return json;
}

std::vector<const KnownOption*> meant_by(const std::string& key, const std::vector<KnownOption>& known) {
  const auto last = [](const std::string& dotted) { return dotted.substr(dotted.rfind('.') + 1); };
  std::vector<const KnownOption*> whole, ends, before;
  for (const KnownOption& each : known) {
    if (each.key == key) whole.push_back(&each);
    if (last(each.key) == key) ends.push_back(&each);
    const bool was = std::any_of(each.former.begin(), each.former.end(),
                                 [&](const std::string& former) { return former == key || last(former) == key; });
    if (was) before.push_back(&each);
  }
  return !whole.empty() ? whole : !ends.empty() ? ends : before;
}

std::vector<KnownOption> known_options(const OptionList& list, const std::string& section) {
  std::vector<KnownOption> known;
  const auto add = [&](KnownOption option) {
    if (!has(known, option.key)) known.push_back(std::move(option));
  };
  const std::string path = section.empty() ? "" : section + '.';
  for (const Option& option : list.options) {
    if (option.section) {
      for (KnownOption& each : known_options(option.section(), path + option.name)) add(std::move(each));
    } else {
      KnownOption one{path + option.name, option.value()};
      for (const std::string& former : option.former) one.former.push_back(path + former);
      add(std::move(one));
    }
  }
  for (const Option& option : list.options) {
    if (!option.other) continue;
    for (const std::string& row : option.choices) {
      for (KnownOption& each : known_options(option.other(row), section)) add(std::move(each));
    }
  }
  return known;
}

}  // namespace tally
