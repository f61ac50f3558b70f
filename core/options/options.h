#pragma once

#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tally/core/io/json_fields.h"
#include "tally/core/words.h"

// Options that own their keys. A struct declares each of its options once:
//
//     struct GruOptions {
//       std::int64_t width = 64;
//       double dropout = 0;
//       static void keys(auto& o, auto&& key) {
//         key("hidden_size", o.width, at_least(1), "width of item embeddings and of states");
//         key("hidden_dropout_prob", o.dropout, rate(), "dropout of embeddings");
//       }
//       void check(const std::string& section) const;  // what depends on two options; may be absent
//     };
//
// Reading, writing, domains, help, documentation and the identity of a checkpoint are walks over list_options().
// Members may be flags, numbers, texts, lists, optionals, enums with words (words.h), choices of a table
// (option_tables.h), and options again: with a name they are a section, without one their keys stand among these.

namespace tally {

/// What a number must be, as a phrase behind "needs": "at least 1". Of a list, what each of its numbers must be.
struct Domain {
  std::string phrase;
  std::function<bool(double)> holds;
};
Domain at_least(double least);
Domain above(double bound);
Domain from_to(double least, double most);  ///< [least, most]
Domain rate();                              ///< [0, 1)
Domain share();                             ///< [0, 1]
Domain even();

/// The same of a text.
struct TextDomain {
  std::string phrase;
  std::function<bool(const std::string&)> holds;
};
/// The only texts that an option may have; of a flag, the words for false and true.
struct OneOf {
  std::vector<std::string> words;
};
OneOf one_of(std::vector<std::string> words);
/// Some words of an enum.
template <HasWords E>
struct Among {
  std::vector<std::string> words;
};
template <HasWords E>
Among<E> among(std::vector<std::string> words) {
  return {std::move(words)};
}

/// A name that an option had before: configs that have it are read, and written with the name of today.
struct Formerly {
  std::string name;
};
Formerly formerly(std::string name);

/// Whether an option has an effect with the others as they are: a key without one is refused.
struct Effect {
  bool now = true;
  std::string with;   ///< the setting that takes it: "tie_rule file_order"; may be empty
  std::string needs;  ///< the one that gives it: "tie_rule random"
};
Effect only_if(bool condition, std::string needs);
Effect only_with(const std::string& name, const std::string& value, const std::vector<std::string>& wanted);
template <HasWords E>
Effect only_with(const std::string& name, E value, std::initializer_list<E> wanted) {
  std::vector<std::string> words;
  for (const E each : wanted) words.emplace_back(word_of(each));
  return only_with(name, std::string(word_of(value)), words);
}

struct OptionList;

/// An option of an object: what is known of it, and ways to its value, which hold as long as the object stays in place.
struct Option {
  std::string name, doc;
  std::string type;                  ///< "integer", "number", "a | b", ...
  std::vector<std::string> choices;  ///< of words and of rows of a table
  std::vector<std::string> domain;   ///< "at least 1"
  std::vector<std::string> former;   ///< names that it had before
  Effect effect;
  std::function<Json()> value;
  std::function<void(JsonFields&)> read;                    ///< throws ConfigError for another type
  std::function<void(const std::string& path)> check;       ///< throws ConfigError for a value outside its domain
  std::function<OptionList()> section;                      ///< of options with a name
  std::function<OptionList(const std::string& row)> other;  ///< of a choice: the options of another row
};

struct OptionList {
  std::vector<Option> options;
  std::vector<std::function<void(const std::string& section)>> checks;
  std::shared_ptr<void> owner;  ///< of the values, where that is not the caller
  const Option* find(const std::string& name) const;
  /// The option that a config means by a name, one of earlier times where none has it today.
  const Option* find_written(const std::string& name) const;
};

/// Lists the options of an object as they are now; a choice or a condition among them may change the list.
using Lister = std::function<OptionList()>;

/// Reads a section. Every key of `fields` must be one of the list. `given` are the members that a user wrote: such a
/// key without effect is an error that says which setting it needs; so is a key beside its former name. Others without
/// effect are left alone: what a protocol or a recorded config has to say of them. Null: nothing was written by a user.
void read_options(const Lister& list, JsonFields& fields, const Json* given);
/// Sets one option, as a user's section with this key alone does. Throws ConfigError for a key that the list has not.
void set_option(const Lister& list, const std::string& section, const std::string& key, const Json& value);
/// Throws ConfigError for values outside their domains, and what check() throws.
void check_options(const OptionList& list, const std::string& section);
/// Every option that has an effect.
Json to_json(const OptionList& list);

/// An option that an object may have, now or with other choices.
struct KnownOption {
  std::string key;                       ///< dotted
  Json value;                            ///< where it is of another choice, the default
  std::vector<std::string> former = {};  ///< keys that it had before, dotted
};
/// All options of a list, of its sections, and of the rows that are not chosen; each key once.
std::vector<KnownOption> known_options(const OptionList& list, const std::string& section = "");
/// Those that a key may mean: the one of this dotted key; or else those whose key ends in it; or else those that were
/// called so before.
std::vector<const KnownOption*> meant_by(const std::string& key, const std::vector<KnownOption>& known);

}  // namespace tally
