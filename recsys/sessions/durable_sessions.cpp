#include "tally/recsys/sessions/durable_sessions.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "tally/core/io/atomic_directory.h"
#include "tally/core/io/file.h"
#include "tally/recsys/data/event_fields.h"

namespace tally::recsys {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kDurableSessions = "Sessions";
constexpr std::chrono::seconds kSyncInterval{1};

/// As Sessions::append() does, and that the log, lines with tabs, can hold them.
void check_events(std::span<const UserEvent> events, const Sessions& sessions) {
  for (const UserEvent& event : events) {
    sessions.check_event(event);
    const std::string_view fault = fault_of_id(event.user);
    check<ValueError>(fault.empty(), kDurableSessions, "needs names of users ", fault, "; got '",
                      beginning_of(event.user), "'");
  }
}

}  // namespace

DurableSessions::DurableSessions(const fs::path& directory, std::shared_ptr<const RecurrentModel> model, IdMap items,
                                 SessionsOptions options, DurableOptions durable)
    : options_(durable), sessions_(std::move(model), std::move(items), options) {
  if (directory.empty()) return;
  directory_ = detail::resolve_links(directory);
  lock_.emplace(DirectoryLock::beside(directory_));
  remove_leftovers_of(directory_);  // of a kill as the sessions were saved; the next save may be far
  std::error_code error;
  const bool exists = recover_directory(directory_) || fs::exists(directory_, error);
  check<IoError>(!exists || fs::is_directory(directory_, error), directory.string(),
                 "needs to be a directory of sessions, or nothing yet");
  if (!exists || fs::is_empty(directory_)) {
    save();
    return;
  }
  sessions_.load(directory_);
  open_log();
}

void DurableSessions::open_log() {
  const Json manifest = read_json(directory_ / AtomicDirectory::kManifest);
  snapshot_bytes_ = 0;
  for (const auto& [name, listed] : manifest.at("files").members()) snapshot_bytes_ += listed.at("bytes").as_integer();
  log_.emplace(directory_, manifest.at("fields"));
}

template <class Change>
auto DurableSessions::logged(Change&& change) {
  if (directory_.empty()) return change();
  if (log_lacks_some_) save();
  log_lacks_some_ = true;
  auto result = change();
  log_->write();
  log_lacks_some_ = false;
  if (log_->bytes() > std::max(options_.min_log_bytes, snapshot_bytes_)) {
    save();
  } else {
    sync();
  }
  return result;
}

void DurableSessions::take(std::span<const UserEvent> events) {
  sessions_.append(events);
  if (!log_) return;
  for (UserEvent event : events) {
    if (!sessions_.model().reads_times()) event.time = kNoTime;
    log_->add_event(event);
  }
}

std::vector<ScoredItem> DurableSessions::answer(std::string_view user, std::int64_t k) {
  auto list = sessions_.recommend(user, k);
  if (log_) log_->add_use(user);
  return list;
}

void DurableSessions::append(std::span<const UserEvent> events) {
  check_events(events, sessions_);
  logged([&] {
    take(events);
    return events.size();
  });
}

std::vector<ScoredItem> DurableSessions::recommend(std::string_view user, std::int64_t k) {
  if (k < 1 || !sessions_.contains(user)) return sessions_.recommend(user, k);  // throws
  return logged([&] { return answer(user, k); });
}

std::vector<ScoredItem> DurableSessions::append_and_recommend(const UserEvent& event, std::int64_t k) {
  check<ValueError>(k >= 1, kDurableSessions, "needs k of at least 1; got ", k);
  const std::span events(&event, 1);
  check_events(events, sessions_);
  return logged([&] {
    take(events);
    return answer(event.user, k);
  });
}

std::int64_t DurableSessions::evict_least_recent(std::int64_t keep) {
  return logged([&] {
    const std::int64_t evicted = sessions_.evict_least_recent(keep);
    if (log_ && evicted > 0) log_->add_eviction(keep);
    return evicted;
  });
}

void DurableSessions::sync() {
  if (log_) log_->sync(kSyncInterval);
}

void DurableSessions::save() {
  if (directory_.empty()) return;
  // Until it is done, nobody knows to which snapshot the open log belongs.
  log_lacks_some_ = true;
  sessions_.save(directory_);
  log_.reset();
  open_log();
  log_lacks_some_ = false;
}

}  // namespace tally::recsys
