#include "tally/recsys/run/run_users.h"

#include <fmt/format.h>

#include "tally/core/error.h"
#include "tally/core/io/file.h"
#include "tally/core/io/gzip.h"
#include "tally/core/io/line_reader.h"
#include "tally/recsys/data/event_fields.h"

namespace tally::recsys {
namespace {

/// Takes the cell that begins at `at`, and moves behind the tab that ends it, or to npos.
std::string_view take_cell(std::string_view line, std::size_t& at) {
  const std::size_t end = line.find('\t', at);
  const std::string_view cell = line.substr(at, end == std::string_view::npos ? end : end - at);
  at = end == std::string_view::npos ? end : end + 1;
  return cell;
}

}  // namespace

void write_users(const std::filesystem::path& path, const Interactions& data, const WrittenOfUsers& what) {
  std::string text;
  for (std::int32_t user = 0; user < data.num_users(); ++user) {
    text.append(data.users.name(user));
    if (what.histories) {
      for (const std::int32_t item : data.sequence(user)) text.append(1, '\t').append(data.items.name(item));
    }
    if (what.histories && what.times && !data.times.empty()) {
      text += '\t';
      for (const double time : data.times_of_rows(data.begin_of(user), data.begin_of(user + 1))) {
        text += fmt::format("\t{}", time);
      }
    }
    text += '\n';
  }
  write_file_atomically(path, gzip(text));
}

RunUsers read_users(const std::filesystem::path& path, const IdMap& items) {
  RunUsers users;
  std::vector<std::int64_t> lengths;
  std::vector<std::int32_t> events;
  std::vector<double> times;
  LineReader reader(path);
  for (std::string_view line; reader.next(line);) {
    const std::string where = detail::join(path.string(), ':', reader.line_number());
    std::size_t at = 0;
    const std::string_view user = take_cell(line, at);
    check<IoError>(!user.empty(), where, "needs a user; got an empty one");
    check<IoError>(users.ids.add(user) == static_cast<std::int32_t>(lengths.size()), where, "has the user '", user,
                   "' twice");
    const std::size_t before = events.size();
    while (at != std::string_view::npos) {
      const std::string_view id = take_cell(line, at);
      if (id.empty() && at != std::string_view::npos) break;
      const std::optional<std::int32_t> item = items.find(id);
      check<IoError>(item.has_value(), where, "has the item '", id, "', which the run does not know");
      events.push_back(*item);
    }
    while (at != std::string_view::npos) {
      const std::string_view text = take_cell(line, at);
      const std::string_view fault = read_time(text, times.emplace_back());
      check<IoError>(fault.empty(), where, "needs a time ", fault, "; got '", text, "'");
    }
    check<IoError>(times.empty() || times.size() == events.size(), where,
                   "needs a time for each event of every user, or of none");
    lengths.push_back(static_cast<std::int64_t>(events.size() - before));
    check<IoError>((lengths.back() > 0) == (lengths.front() > 0), where,
                   "needs histories of all users or of none; this one differs from the first");
  }
  if (!events.empty()) {
    Sequences histories;
    histories.offsets = Offsets::from_lengths(lengths);
    histories.items = Tensor::from(events, {histories.offsets.total()});
    if (!times.empty()) histories.times = Tensor::from(times, {histories.offsets.total()});
    users.histories = std::move(histories);
  }
  return users;
}

}  // namespace tally::recsys
