#pragma once

#include <functional>

#include "tally/core/io/json.h"

namespace tally {

/// Reads a JSON object as parse_json does, but hands each of its members to `take` as soon as it is whole, and keeps
/// none: memory is that of one member and of the names. A member holds at most `max_member_values` values. Throws
/// IoError as parse_json does and for another value than an object, and what `take` throws.
void parse_json_members(std::string_view text, const std::string& name, const JsonLimits& limits,
                        std::int64_t max_member_values, const std::function<void(JsonMember)>& take);

}  // namespace tally
