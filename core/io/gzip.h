#pragma once

#include <string>
#include <string_view>

namespace tally {

/// The bytes as one gzip member without name and time: the same bytes give the same member.
std::string gzip(std::string_view bytes);

}  // namespace tally
