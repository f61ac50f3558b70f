#pragma once

#include <string>
#include <string_view>

#include "tally/recsys/data/delimited_rows.h"

// The fields that rows of events have, checked alike wherever such rows are read. All throw RowError naming file, line
// and byte.

namespace tally::recsys {

/// Why a text cannot be the id of a user or an item, to follow "needs an id "; empty when it can be one: text in UTF-8
/// without control characters (below U+0020, U+007F to U+009F), which lines, cells of tables and JSON can hold as it
/// is, and without a byte order mark at its beginning, which would make two users of one that no screen tells apart.
std::string_view fault_of_id(std::string_view id);

/// Reads a time that a double tells apart from every other: in any spelling, its magnitude is at most 2^53 and its
/// digits are no more than a double holds (seconds with nine decimals are, microseconds are not). Returns why the text
/// is none, to follow "needs a time ", or nothing.
std::string_view read_time(std::string_view text, double& time);

/// `text` for a message of one line: its beginning, as printable() text.
std::string beginning_of(std::string_view text);

/// The id in a field, which may not be empty.
std::string_view read_id(const DelimitedRows& rows, std::size_t column);
/// A finite number within the range of f32, in double: a least rating is compared with what the file says.
double read_rating(const DelimitedRows& rows, std::size_t column);
/// A time, as above.
double read_time(const DelimitedRows& rows, std::size_t column);

}  // namespace tally::recsys
