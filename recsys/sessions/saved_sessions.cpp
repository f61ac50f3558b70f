// Saving and loading of all sessions. A saved directory has a file of users and a manifest that says whose they are;
// states carry checks of their own.
#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "tally/core/atomic_directory.h"
#include "tally/core/file.h"
#include "tally/recsys/sessions/sessions.h"

namespace tally::recsys {
namespace {

constexpr std::string_view kName = "Sessions";
constexpr std::string_view kFormat = "tally sessions";
constexpr std::int64_t kVersion = 1;

constexpr std::string_view kUsers = "users.bin";

std::string hexadecimal(std::uint64_t value) { return fmt::format("{:016x}", value); }

}  // namespace

std::string Sessions::names_fingerprint() const {
  Fingerprint hash;
  for (std::int64_t i = 0; i < items_.size(); ++i) hash.update(items_.name(static_cast<std::int32_t>(i)));
  return hexadecimal(hash.value());
}

std::string Sessions::save_session(std::string_view user, const Session& session) {
  std::string bytes;
  write_text(bytes, user);
  write_value(bytes, session.used);
  const std::vector<std::int32_t> seen = session.seen.items();
  write_value(bytes, static_cast<std::uint64_t>(seen.size()));
  write_values(bytes, std::span<const std::int32_t>(seen));
  write_text(bytes, session.state.save());
  return bytes;
}

void Sessions::load_session(ByteReader& bytes, std::vector<Users>& into) const {
  const std::string user(bytes.text());
  Session session;
  session.used = bytes.read<std::uint64_t>();
  const auto count = bytes.read<std::uint64_t>();
  check<IoError>(count <= static_cast<std::uint64_t>(items_.size()), kName, "user '", user, "' has ", count,
                 " seen items of ", items_.size());
  for (std::uint64_t i = 0; i < count; ++i) {
    const auto item = bytes.read<std::int32_t>();
    check<IoError>(item >= 0 && item < items_.size(), kName, "user '", user, "' has seen item ", item, " of ",
                   items_.size());
    if (options_.keep_seen) session.seen.insert(item, items_.size());
  }
  session.state = model_->load_state(bytes.text());
  check<IoError>(!user.empty() && into[stripe_of(user)].try_emplace(user, std::move(session)).second, kName,
                 "the saved sessions have user '", user, "' twice");
}

void Sessions::save(const std::filesystem::path& directory) const {
  AtomicDirectory out(directory);
  AtomicFile file(out.file(kUsers));
  const std::shared_lock whole(whole_);
  std::int64_t sessions = 0;
  for (std::size_t s = 0; s < kStripes; ++s) {
    std::string bytes;
    {
      const std::lock_guard lock(stripes_[s].mutex);
      for (const auto& [name, session] : stripes_[s].users) bytes += save_session(name, session);
      sessions += static_cast<std::int64_t>(stripes_[s].users.size());
    }
    file.write(bytes);
  }
  file.commit();
  out.commit(Json::object({{"format", kFormat},
                           {"version", kVersion},
                           {"model", model_->name()},
                           {"layout", model_->layout()},
                           {"fingerprint", hexadecimal(model_->fingerprint())},
                           {"items", names_fingerprint()},
                           {"seen", options_.keep_seen},
                           {"sessions", sessions}}));
}

void Sessions::load(const std::filesystem::path& directory) {
  const std::string where = directory.string();
  const Json fields = verify_directory(directory);
  const auto text = [&](std::string_view name) { return fields.at(name).as<std::string>(where); };
  check<IoError>(fields.find("format") != nullptr && text("format") == kFormat, where, "holds no saved sessions");
  const auto version = fields.at("version").as<std::int64_t>(where);
  check<IoError>(version == kVersion, where, "needs saved sessions of version ", kVersion, "; got ", version);
  check<ValueError>(text("fingerprint") == hexadecimal(model_->fingerprint()), where,
                    "holds sessions of another model: ", text("model"), " (", text("layout"), "), fingerprint ",
                    text("fingerprint"), "; needs ", model_->name(), " (", model_->layout(), "), fingerprint ",
                    hexadecimal(model_->fingerprint()));
  check<ValueError>(text("items") == names_fingerprint(), where, "holds sessions of other items than the model's");
  check<ValueError>(fields.at("seen").as<bool>(where) || !options_.keep_seen, where,
                    "holds sessions without the items that users had, which are to be left out");
  std::vector<Users> users(kStripes);
  std::uint64_t latest = 0;
  std::int64_t sessions = 0;
  const std::string path = (directory / kUsers).string();
  const std::string content = read_file(path, std::numeric_limits<std::int64_t>::max());
  for (ByteReader bytes(content, path); bytes.left() > 0; ++sessions) load_session(bytes, users);
  check<IoError>(sessions == fields.at("sessions").as<std::int64_t>(where), where, "holds ", sessions,
                 " sessions; its manifest says ", fields.at("sessions").as<std::int64_t>(where));
  for (const Users& of_stripe : users) {
    for (const auto& [name, session] : of_stripe) latest = std::max(latest, session.used);
  }
  // Moments after the saved ones, before anybody can see these.
  for (std::uint64_t now = clock_; now < latest && !clock_.compare_exchange_weak(now, latest);) continue;
  const std::unique_lock whole(whole_);
  for (std::size_t s = 0; s < kStripes; ++s) {
    const std::lock_guard lock(stripes_[s].mutex);
    stripes_[s].users.swap(users[s]);
  }
}

}  // namespace tally::recsys
