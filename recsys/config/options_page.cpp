#include "tally/recsys/config/options_page.h"

#include "tally/core/options/option_text.h"
#include "tally/recsys/config/config.h"

namespace tally::recsys {
namespace {

/// Names of the options that choices bring with them: they stand with their rows.
std::vector<std::string> brought_by_choices(const OptionList& list) {
  std::vector<std::string> names;
  for (const Option& choice : list.options) {
    if (!choice.other) continue;
    for (const Option& option : choice.other(choice.value().as_string()).options) names.push_back(option.name);
  }
  return names;
}

std::string table_of(const OptionList& list) { return options_markdown(list, brought_by_choices(list)); }

/// The keys of each row of a table.
template <class Row>
std::string rows_of(const std::string& setting, const ChoiceTable<Row>& table) {
  std::string text;
  for (const Row& row : table) {
    const OptionList list = row.options.list();
    text += "\n`" + setting + "` `" + row.name + "`: " + row.summary + ".";
    text += list.options.empty() ? " It has no keys of its own.\n" : "\n\n" + table_of(list);
  }
  return text;
}

}  // namespace

std::string options_page(const Tables& tables) {
  RunConfig config(tables);
  std::string text =
      "# Options\n\n"
      "Every key of a config, as `tally config options` prints it; a test holds this page against it. A key that has "
      "no\n"
      "effect with the others is refused; \"with\" says what it needs.\n";
  const OptionList top = list_options(config);
  text += "\nBeside the sections:\n\n" + options_markdown(top);
  for (const Option& section : top.options) {
    if (!section.section) continue;
    text += "\n## " + section.name + ": " + section.doc + "\n\n" + table_of(section.section());
    if (section.name == "model") text += rows_of("name", tables.models) + rows_of("attention", tables.attentions);
    if (section.name != "train") continue;
    text +=
        rows_of("loss_type", tables.losses) + rows_of("learner", tables.learners) + rows_of("decay", tables.schedules);
  }
  return text;
}

}  // namespace tally::recsys
