// Saving and loading of all sessions. A saved directory has a file of users and a manifest that says whose they are;
// states carry checks of their own. A log of what came after may lie beside them.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <limits>

#include "tally/core/io/atomic_directory.h"
#include "tally/core/io/file.h"
#include "tally/core/io/fingerprint.h"
#include "tally/recsys/sessions/session_log.h"
#include "tally/recsys/sessions/sessions.h"

namespace tally::recsys {
namespace {

constexpr std::string_view kSavedSessions = "Sessions";
constexpr std::string_view kFormat = "tally sessions";
// Versions 1 and 2 have another hash in all their fingerprints and checksums.
constexpr std::int64_t kVersion = 3;

constexpr std::string_view kUsers = "users.bin";

constexpr std::size_t kPiece = std::size_t{1} << 20;  // bytes that are gathered for one write

/// Tells a snapshot from all others, so that a log can say to which it belongs.
std::string new_generation() {
  std::string seed = std::to_string(::getpid());
  write_value(seed, std::chrono::system_clock::now().time_since_epoch().count());
  write_value(seed, std::chrono::steady_clock::now().time_since_epoch().count());
  return hexadecimal(fingerprint(seed));
}

}  // namespace

std::string Sessions::names_fingerprint() const {
  Fingerprint hash;
  for (std::int64_t i = 0; i < items_->size(); ++i) hash.update(items_->name(static_cast<std::int32_t>(i)));
  return hexadecimal(hash.value());
}

void Sessions::save_session(std::string_view user, const Session& session, std::string& to) {
  write_text(to, user);
  write_value(to, session.used);
  const std::vector<std::int32_t> seen = session.seen.items();
  write_value(to, static_cast<std::uint64_t>(seen.size()));
  write_values(to, std::span<const std::int32_t>(seen));
  write_text(to, session.state.save());
}

void Sessions::load_session(ByteReader& bytes) {
  const std::string user(bytes.text());
  Session session;
  session.used = bytes.read<std::uint64_t>();
  const auto count = bytes.read<std::uint64_t>();
  check<IoError>(count <= static_cast<std::uint64_t>(items_->size()), kSavedSessions, "user '", user, "' has ", count,
                 " seen items of ", items_->size());
  for (std::uint64_t i = 0; i < count; ++i) {
    const auto item = bytes.read<std::int32_t>();
    check<IoError>(item >= 0 && item < items_->size(), kSavedSessions, "user '", user, "' has seen item ", item, " of ",
                   items_->size());
    if (options_.keep_seen) session.seen.insert(item, items_->size());
  }
  session.state = model_->load_state(bytes.text());
  if (clock_ < session.used) clock_ = session.used;
  Users& users = stripes_[stripe_of(user)].users;
  check<IoError>(!user.empty() && users.try_emplace(user, std::move(session)).second, kSavedSessions,
                 "the saved sessions have user '", user, "' twice");
}

void Sessions::save(const std::filesystem::path& directory) const {
  AtomicDirectory out(directory);
  AtomicFile file(out.file(kUsers));
  out.expect_later(SessionLog::kFile);
  std::int64_t sessions = 0;
  {
    const std::shared_lock whole(whole_);
    std::string bytes;
    for (std::size_t s = 0; s < kStripes; ++s) {
      const std::lock_guard lock(stripes_[s].mutex);
      for (const auto& [name, session] : stripes_[s].users) {
        save_session(name, session, bytes);
        if (bytes.size() < kPiece) continue;
        file.write(bytes);
        bytes.clear();
      }
      sessions += static_cast<std::int64_t>(stripes_[s].users.size());
    }
    file.write(bytes);
  }
  file.commit();
  out.commit(Json::object({{"format", kFormat},
                           {"version", kVersion},
                           {"model", model_->name()},
                           {"layout", model_->layout()},
                           {"state_version", std::int64_t{model_->state_version()}},
                           {"fingerprint", hexadecimal(model_->fingerprint())},
                           {"items", names_fingerprint()},
                           {"seen", options_.keep_seen},
                           {"sessions", sessions},
                           {"clock", clock_.load()},
                           {"generation", new_generation()}}));
}

Json Sessions::load_snapshot(const std::filesystem::path& directory) {
  const std::string where = directory.string();
  const Json fields = verify_directory(directory);
  const auto text = [&](std::string_view name) { return fields.at(name).as<std::string>(where); };
  check<IoError>(fields.find("format") != nullptr && text("format") == kFormat, where, "holds no saved sessions");
  const auto version = fields.at("version").as<std::int64_t>(where);
  check<IoError>(version == kVersion, where, "needs saved sessions of version ", kVersion, "; got ", version,
                 version < kVersion ? ", of an earlier build: begin a new directory with the events of its users" : "");
  const auto state_version = fields.at("state_version").as<std::int64_t>(where);
  check<IoError>(text("model") != model_->name() || state_version == model_->state_version(), where, "holds states of ",
                 text("model"), " of version ", state_version, ", which another build keeps; needs version ",
                 model_->state_version(), ": begin a new directory with the events of its users");
  check<ValueError>(text("fingerprint") == hexadecimal(model_->fingerprint()), where,
                    "holds sessions of another model: ", text("model"), " (", text("layout"), "), fingerprint ",
                    text("fingerprint"), "; needs ", model_->name(), " (", model_->layout(), "), fingerprint ",
                    hexadecimal(model_->fingerprint()));
  check<ValueError>(text("items") == names_fingerprint(), where, "holds sessions of other items than the model's");
  check<ValueError>(fields.at("seen").as<bool>(where) || !options_.keep_seen, where,
                    "holds sessions without the items that users had, which are to be left out");
  std::int64_t sessions = 0;
  const std::string path = (directory / kUsers).string();
  const std::string content = read_file(path, std::numeric_limits<std::int64_t>::max());
  for (ByteReader bytes(content, path); bytes.left() > 0; ++sessions) load_session(bytes);
  check<IoError>(sessions == fields.at("sessions").as<std::int64_t>(where), where, "holds ", sessions,
                 " sessions; its manifest says ", fields.at("sessions").as<std::int64_t>(where));
  // No earlier than any use; later when the latest user was forgotten.
  clock_ = std::max(clock_.load(), fields.at("clock").as<std::uint64_t>(where));
  return fields;
}

void Sessions::load(const std::filesystem::path& directory) {
  Sessions loaded(model_, items_, options_);
  const Json fields = loaded.load_snapshot(directory);
  SessionLog::replay(directory, fields, loaded);
  // Moments after the saved ones, before anybody can see these.
  const std::uint64_t latest = loaded.clock_;
  for (std::uint64_t now = clock_; now < latest && !clock_.compare_exchange_weak(now, latest);) continue;
  const std::unique_lock whole(whole_);
  for (std::size_t s = 0; s < kStripes; ++s) {
    const std::lock_guard lock(stripes_[s].mutex);
    stripes_[s].users.swap(loaded.stripes_[s].users);
  }
}

}  // namespace tally::recsys
