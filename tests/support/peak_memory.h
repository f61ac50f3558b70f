#pragma once

#include <malloc.h>

#include <fstream>
#include <optional>
#include <string>

namespace tally::test {

/// Bytes of memory of this process beyond what it has now that `action` needs at its peak. Nothing where the system
/// does not tell, and with sanitizers, which keep what is freed or notes on every word.
template <class Action>
std::optional<std::size_t> peak_memory(Action&& action) {
  const auto field = [](const std::string& name) {
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);) {
      if (line.starts_with(name)) return std::strtoull(line.c_str() + name.size(), nullptr, 10) << 10;
    }
    return 0ULL;
  };
  ::malloc_trim(0);
  const bool is_reset = static_cast<bool>(std::ofstream("/proc/self/clear_refs") << 5 << std::flush);
  const auto before = field("VmRSS:");
  action();
  const auto peak = field("VmHWM:");
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  return std::nullopt;
#endif
  if (!is_reset || before == 0 || peak == 0) return std::nullopt;
  return peak > before ? peak - before : 0;
}

}  // namespace tally::test
