#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "tally/core/io/json.h"
#include "tally/recsys/data/id_map.h"
#include "tally/recsys/evaluation/top_k.h"
#include "tally/recsys/models/recurrent_model.h"
#include "tally/recsys/sessions/item_set.h"

namespace tally::recsys {

struct SessionsOptions {
  /// Keep which items a user had, so that they are not recommended again.
  bool keep_seen = true;
  /// [items] 0 for items that are never recommended; empty: all may be.
  std::vector<std::uint8_t> candidates = {};
};

/// An event by the names that users and items have outside.
struct UserEvent {
  std::string_view user, item;
  double time = kNoTime;  ///< when it was, for models that read times; others pass it over
};

/// The states of many users of one model, by name: takes their events, recommends, and is saved and loaded whole.
///
/// All functions may be called from any number of threads. Users are spread over stripes with a lock each; a user's
/// events take effect one after the other, and what a user's state becomes does not depend on other users, threads, or
/// on how events were gathered into calls. Functions about all users see them before or after a load(), never some of
/// each.
class Sessions {
 public:
  /// `items` names the model's items. Throws ShapeError unless it has as many.
  Sessions(std::shared_ptr<const RecurrentModel> model, IdMap items, SessionsOptions options = {});

  const RecurrentModel& model() const { return *model_; }
  const IdMap& items() const { return *items_; }

  /// Takes an event; a user who was not there begins with it. Throws ValueError for an empty name of a user, or naming
  /// an item that the model does not know, or that has no finite time where the model reads times.
  void append(std::string_view user, std::string_view item, double time = kNoTime) {
    const UserEvent event{user, item, time};
    append(std::span(&event, 1));
  }
  /// Takes events of many users, in parallel over users, those of a user in the order given. Names are checked before
  /// the first is taken: after a throw as above, none was. An event that the model throws at leaves its user as before.
  void append(std::span<const UserEvent> events);
  /// Throws as append() does.
  void check_event(const UserEvent& event) const;

  /// The k best items for a user, best first, as top_k() orders them: exact, over all items, without those that the
  /// user had (when they are kept). Throws ValueError for a user who is not there, or for k below 1.
  std::vector<ScoredItem> recommend(std::string_view user, std::int64_t k);
  /// The same for many users, in parallel.
  std::vector<std::vector<ScoredItem>> recommend(std::span<const std::string_view> users, std::int64_t k);

  /// Counts as a user's latest use, as a recommendation does. Returns false for one who is not there.
  bool use(std::string_view user);

  bool contains(std::string_view user) const;
  /// A copy of a user's state, or nothing.
  std::optional<ModelState> state(std::string_view user) const;
  std::int64_t size() const;
  /// Memory of all sessions: states, seen items, names and tables. The model's is not counted.
  std::size_t bytes() const;

  /// Forgets a user. Returns false for one who is not there.
  bool evict(std::string_view user);
  /// Forgets those whose latest event or recommendation is the longest ago, until `keep` are left. Returns how many.
  /// A user who is active meanwhile stays.
  std::int64_t evict_least_recent(std::int64_t keep);

  /// Writes all sessions as a directory that appears whole or not at all, in place of one of that name and of the log
  /// in it (DurableSessions). Each user is saved as of some moment during the call. Takes little memory. Throws
  /// IoError.
  void save(const std::filesystem::path& directory) const;
  /// Replaces all sessions by saved ones and what the log beside them says. Throws IoError for files that are missing,
  /// damaged or of another version, and ValueError for sessions of another model or other items, or saved without seen
  /// items that are to be kept; then nothing changed.
  void load(const std::filesystem::path& directory);

 private:
  struct Session {
    ModelState state;
    ItemSet seen;
    std::uint64_t used = 0;  ///< when, on clock_
  };
  struct NameHash {
    using is_transparent = void;
    std::size_t operator()(std::string_view name) const { return std::hash<std::string_view>()(name); }
  };
  using Users = std::unordered_map<std::string, Session, NameHash, std::equal_to<>>;
  struct Stripe {
    mutable std::mutex mutex;
    Users users;
  };
  static constexpr std::size_t kStripes = 64;
  static std::size_t stripe_of(std::string_view user) { return NameHash()(user) % kStripes; }

  void take(Users& users, const UserEvent& event, std::int32_t item, std::uint64_t now) const;
  /// Writes the user's hidden row and returns the items to leave out.
  ItemSet read(std::string_view user, std::uint64_t now, std::span<float> row);
  Sessions(std::shared_ptr<const RecurrentModel> model, std::shared_ptr<const IdMap> items, SessionsOptions options);
  std::string names_fingerprint() const;
  static void save_session(std::string_view user, const Session& session, std::string& to);
  void load_session(ByteReader& bytes);
  /// Into sessions that nobody else sees. Returns the fields of the manifest.
  Json load_snapshot(const std::filesystem::path& directory);

  std::shared_ptr<const RecurrentModel> model_;
  std::shared_ptr<const IdMap> items_;
  SessionsOptions options_;
  std::unique_ptr<Stripe[]> stripes_;
  mutable std::shared_mutex whole_;  // before any stripe's: held alone while load() replaces all users
  std::atomic<std::uint64_t> clock_{0};
};

}  // namespace tally::recsys
