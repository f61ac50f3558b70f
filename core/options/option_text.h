#pragma once

#include <string>
#include <vector>

#include "tally/core/options/options.h"

// Lists of options for people. Defaults are the values that the listed object has.

namespace tally {

/// "integer, at least 1", "`a` or `b`", what an option needs to have an effect, and its former names.
std::string type_of(const Option& option);
/// A line for each option: name, default, type, what it is.
std::string options_text(const OptionList& list);
/// The same as a Markdown table, without the options named in `left_out`.
std::string options_markdown(const OptionList& list, const std::vector<std::string>& left_out = {});

}  // namespace tally
