#include "tally/core/options/option_text.h"

#include <algorithm>

namespace tally {

std::string type_of(const Option& option) {
  std::string text = option.type;
  if (option.section) text = "section";
  for (std::size_t i = 0; i < option.choices.size(); ++i) {
    text += (i == 0 ? "" : i + 1 == option.choices.size() ? " or " : ", ") + option.choices[i];
  }
  for (const std::string& phrase : option.domain) text += ", " + phrase;
  if (!option.effect.needs.empty()) text += "; with " + option.effect.needs;
  for (const std::string& former : option.former) text += "; formerly " + former;
  return text;
}

std::string options_text(const OptionList& list) {
  std::size_t names = 0, values = 0;
  for (const Option& option : list.options) {
    names = std::max(names, option.name.size());
    values = std::max(values, option.value().dump().size());
  }
  const auto padded = [](std::string text, std::size_t width) {
    text.resize(std::max(text.size(), width), ' ');
    return text;
  };
  std::string text;
  for (const Option& option : list.options) {
    text += "  " + padded(option.name, names) + "  " + padded(option.value().dump(), values) + "  " + option.doc +
            " (" + type_of(option) + ")\n";
  }
  return text;
}

std::string options_markdown(const OptionList& list, const std::vector<std::string>& left_out) {
  std::string text = "| key | default | values | what |\n|---|---|---|---|\n";
  for (const Option& option : list.options) {
    if (option.section || std::find(left_out.begin(), left_out.end(), option.name) != left_out.end()) continue;
    text +=
        "| `" + option.name + "` | `" + option.value().dump() + "` | " + type_of(option) + " | " + option.doc + " |\n";
  }
  return text;
}

}  // namespace tally
