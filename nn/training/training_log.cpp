#include "tally/nn/training/training_log.h"

#include <string>

#include "tally/core/io/file.h"
#include "tally/core/io/json.h"
#include "tally/core/io/line_reader.h"

namespace tally::nn {

void drop_lines_after_step(const std::filesystem::path& path, std::int64_t step, bool validates_again) {
  if (!std::filesystem::exists(path)) return;
  std::string kept;
  bool dropped = false;
  LineReader reader(path);
  for (std::string_view line; reader.next(line);) {
    Json record;
    try {
      record = parse_json(line, path.string());
    } catch (const IoError&) {
      dropped = true;  // torn by the kill that this run resumes from
      continue;
    }
    const Json* at = record.find("step");
    const Json* event = record.find("event");
    const bool has_step = at != nullptr && at->is(Json::Kind::integer);
    const auto is = [&](const char* kind) { return event != nullptr && *event == Json(kind); };
    const bool again = validates_again && has_step && at->as_integer() == step && is("validation");
    if ((has_step && at->as_integer() > step) || again || is("test")) {
      dropped = true;
      continue;
    }
    kept.append(line);
    kept.push_back('\n');
  }
  if (dropped) write_file_atomically(path, kept);
}

}  // namespace tally::nn
