#pragma once

#include <cmath>
#include <concepts>
#include <utility>

#include "tally/core/options/options.h"

namespace tally {

/// A struct that lists its options.
template <class O>
concept Listed = std::is_class_v<O> && requires(O& options, int& key) {
  O::keys(options, key);
};

/// What keys() is called with: it makes the list.
class OptionWalker {
 public:
  OptionList list;

  template <class T, class... More>
  void operator()(const std::string& name, T& member, const More&... more) {
    Option option;
    option.name = name;
    describe(option, member);
    (add(option, member, more), ...);
    list.options.push_back(std::move(option));
    // What a choice brings with it stands beside it.
    if constexpr (requires { member.options.list(); }) append(member.options.list());
  }
  /// Options whose keys stand among these.
  template <Listed O>
  void operator()(O& inlined) {
    append(list_of(inlined));
  }

  /// A further condition of an option in a section that was listed, which the section itself cannot know.
  void effect(const std::string& section, const std::string& name, const Effect& effect);

  template <Listed O>
  static OptionList list_of(O& options) {
    OptionWalker walker;
    O::keys(options, walker);
    if constexpr (requires(const std::string& at) { options.check(at); }) {
      walker.list.checks.push_back([&options](const std::string& at) { options.check(at); });
    }
    return std::move(walker.list);
  }

 private:
  void append(OptionList more) {
    for (Option& option : more.options) list.options.push_back(std::move(option));
    for (auto& check : more.checks) list.checks.push_back(std::move(check));
  }

  template <class T>
  static void read_as(Option& option, T& member, const char* type) {
    option.type = type;
    option.value = [&member] { return Json(member); };
    option.read = [&member, name = option.name](JsonFields& fields) { member = fields.get<T>(name, member); };
  }
  /// Of values that stand for words.
  static void read_as_word(Option& option, std::vector<std::string> words, std::function<std::string()> word,
                           std::function<void(const std::string&)> choose) {
    option.type.clear();
    option.choices = std::move(words);
    option.value = [word] { return Json(word()); };
    option.read = [name = option.name, choices = option.choices, word, choose = std::move(choose)](JsonFields& fields) {
      choose(fields.choice(name, word(), choices));
    };
  }

  static void describe(Option& option, bool& member) { read_as(option, member, "true or false"); }
  static void describe(Option& option, std::int64_t& member) { read_as(option, member, "integer"); }
  static void describe(Option& option, double& member) { read_as(option, member, "number"); }
  static void describe(Option& option, std::string& member) { read_as(option, member, "text"); }
  static void describe(Option& option, std::vector<std::int64_t>& member) {
    read_as(option, member, "list of integers");
  }
  static void describe(Option& option, std::vector<double>& member) { read_as(option, member, "list of numbers"); }
  static void describe(Option& option, std::vector<std::string>& member) { read_as(option, member, "list of texts"); }
  /// Sections in a list.
  template <Listed O>
  static void describe(Option& option, std::vector<O>& member) {
    O example;
    for (const Option& each : list_of(example).options) option.type += (option.type.empty() ? "" : ", ") + each.name;
    option.type = "list of {" + option.type + "}";
    option.value = [&member] {
      Json sections = Json::array();
      for (O& section : member) sections.push_back(to_json(list_of(section)));
      return sections;
    };
    option.read = [&member, name = option.name](JsonFields& fields) {
      if (!fields.has(name)) return;
      member.clear();
      for_each_section(fields, name, [&](JsonFields& section) {
        member.emplace_back();
        read_options([&member] { return list_of(member.back()); }, section, &section.object());
      });
    };
    add_check(option, {}, [&member](const std::string& path) {
      for (std::size_t i = 0; i < member.size(); ++i) {
        check_options(list_of(member[i]), path + '[' + std::to_string(i) + ']');
      }
    });
  }
  static void describe(Option& option, std::optional<double>& member) {
    option.type = "number or null";
    option.value = [&member] { return member ? Json(*member) : Json(); };
    option.read = [&member, name = option.name](JsonFields& fields) {
      if (fields.has(name)) member = fields.find<double>(name);
    };
  }
  template <HasWords E>
  static void describe(Option& option, E& member) {
    add(option, member, Among<E>{words_of<E>()});
  }
  /// A choice of a table (option_tables.h).
  template <class C>
  requires requires(C& choice) { choice.choose(""); }
  static void describe(Option& option, C& member) {
    read_as_word(
        option, member.table().names(), [&member] { return member.name(); },
        [&member](const std::string& name) { member.choose(name); });
    option.other = [&member](const std::string& row) { return member.table().at(row).options.list(); };
  }
  template <Listed O>
  static void describe(Option& option, O& section) {
    option.section = [&section] { return list_of(section); };
  }

  template <class T>
  static void add(Option& option, T&, const char* doc) {
    option.doc = doc;
  }
  template <class T>
  static void add(Option& option, T&, const Effect& effect) {
    option.effect = effect;
  }
  template <class T>
  static void add(Option& option, T&, const Formerly& former) {
    option.former.push_back(former.name);
  }
  template <class T>
  static void add(Option& option, T& member, const Domain& domain) {
    add_check(option, domain.phrase, [&member, domain](const std::string& path) {
      const auto hold = [&](auto value) {
        check<ConfigError>(domain.holds(static_cast<double>(value)), path, "needs ", domain.phrase, "; got ", value);
      };
      if constexpr (std::is_arithmetic_v<T>) {
        hold(member);
      } else {
        for (const auto& value : member) hold(value);
      }
    });
  }
  static void add(Option& option, std::string& member, const TextDomain& domain) {
    add_check(option, domain.phrase, [&member, domain](const std::string& path) {
      check<ConfigError>(domain.holds(member), path, "needs ", domain.phrase, "; got \"", member, '"');
    });
  }
  template <HasWords E>
  static void add(Option& option, E& member, const Among<E>& among) {
    read_as_word(
        option, among.words, [&member] { return std::string(word_of(member)); },
        [&member, name = option.name](const std::string& word) { member = value_of<E>(word, name); });
  }
  static void add(Option& option, std::string& member, const OneOf& words) {
    read_as_word(
        option, words.words, [&member] { return member; }, [&member](const std::string& word) { member = word; });
  }
  static void add(Option& option, bool& member, const OneOf& words) {
    read_as_word(
        option, words.words, [&member, words] { return words.words[member ? 1 : 0]; },
        [&member, words](const std::string& word) { member = word == words.words[1]; });
  }
  /// Throws ConfigError unless the member is a list of objects.
  static void for_each_section(JsonFields& fields, const std::string& name,
                               const std::function<void(JsonFields& section)>& visit);
  static void add_check(Option& option, const std::string& phrase, std::function<void(const std::string&)> check);
};

template <Listed O>
OptionList list_options(O& options) {
  return OptionWalker::list_of(options);
}

}  // namespace tally
