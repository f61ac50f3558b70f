#include "tally/recsys/run/run_users.h"

#include "tally/core/error.h"
#include "tally/core/io/file.h"
#include "tally/core/io/gzip.h"
#include "tally/core/io/line_reader.h"

namespace tally::recsys {
void write_users(const std::filesystem::path& path, const Interactions& data, bool histories) {
  std::string text;
  for (std::int32_t user = 0; user < data.num_users(); ++user) {
    text.append(data.users.name(user));
    if (histories) {
      for (const std::int32_t item : data.sequence(user)) text.append(1, '\t').append(data.items.name(item));
    }
    text += '\n';
  }
  write_file_atomically(path, gzip(text));
}

RunUsers read_users(const std::filesystem::path& path, const IdMap& items) {
  RunUsers users;
  std::vector<std::int64_t> lengths;
  std::vector<std::int32_t> events;
  LineReader reader(path);
  for (std::string_view line; reader.next(line);) {
    const std::string where = detail::join(path.string(), ':', reader.line_number());
    const std::size_t first = line.find('\t');
    const std::string_view user = line.substr(0, first);
    check<IoError>(!user.empty(), where, "needs a user; got an empty one");
    check<IoError>(users.ids.add(user) == static_cast<std::int32_t>(lengths.size()), where, "has the user '", user,
                   "' twice");
    const std::size_t before = events.size();
    for (std::size_t at = first; at != std::string_view::npos;) {
      const std::size_t end = line.find('\t', at + 1);
      const std::string_view id = line.substr(at + 1, end == std::string_view::npos ? end : end - at - 1);
      const std::optional<std::int32_t> item = items.find(id);
      check<IoError>(item.has_value(), where, "has the item '", id, "', which the run does not know");
      events.push_back(*item);
      at = end;
    }
    lengths.push_back(static_cast<std::int64_t>(events.size() - before));
    check<IoError>((lengths.back() > 0) == (lengths.front() > 0), where,
                   "needs histories of all users or of none; this one differs from the first");
  }
  if (!events.empty()) {
    Sequences histories;
    histories.offsets = Offsets::from_lengths(lengths);
    histories.items = Tensor::from(events, {histories.offsets.total()});
    users.histories = std::move(histories);
  }
  return users;
}

}  // namespace tally::recsys
