#pragma once

#include <string>
#include <string_view>

namespace tally {

/// Text from outside as a person may be shown it: no byte of it drives a terminal. Control characters below U+0020
/// become `\x1b`, those from U+007F to U+009F `\u009b`, bytes that are no UTF-8 `\xff`; the characters of `kept` stay.
/// JSON on lines stays the same JSON.
std::string printable(std::string_view text, std::string_view kept = {});

}  // namespace tally
