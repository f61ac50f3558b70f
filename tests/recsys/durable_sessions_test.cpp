// Sessions that live in a directory, against sessions in memory that were never killed.
#include "tally/recsys/sessions/durable_sessions.h"

#include <catch2/catch.hpp>
#include <optional>
#include <set>

#include "tally/core/io/atomic_directory.h"
#include "tally/core/io/file.h"
#include "tests/recsys/session_samples.h"
#include "tests/support/file_size_limit.h"
#include "tests/support/temporary_directory.h"

namespace durable_sessions_test {

using namespace tally;
using namespace tally::recsys;
using namespace tally::test;
using Catch::Matchers::Contains;

namespace {

namespace fs = std::filesystem;

constexpr DurableOptions kNoSnapshots{.min_log_bytes = std::int64_t{1} << 40};

/// What a kill at this moment would leave.
fs::path copy_of(const fs::path& directory, const TemporaryDirectory& parent) {
  const fs::path copy = parent / "copy";
  fs::remove_all(copy);
  fs::copy(directory, copy, fs::copy_options::recursive);
  return copy;
}

/// Same users, same states bit for bit, same order of last use.
void check_same(const Sessions& got, const Sessions& expected, const EventStream& stream,
                const TemporaryDirectory& parent, const std::shared_ptr<const RecurrentModel>& model) {
  REQUIRE(got.size() == expected.size());
  for (const auto& [user, history] : stream.histories) {
    REQUIRE(got.contains(user) == expected.contains(user));
    if (got.contains(user)) REQUIRE(got.state(user)->save() == expected.state(user)->save());
  }
  Sessions one(model, item_names()), other(model, item_names());
  got.save(parent / "one");
  expected.save(parent / "other");
  one.load(parent / "one");
  other.load(parent / "other");
  CHECK(read_json(parent / "one/manifest.json").at("fields").at("clock") ==
        read_json(parent / "other/manifest.json").at("fields").at("clock"));
  for (std::int64_t keep = one.size() - 1; keep >= 0; --keep) {
    one.evict_least_recent(keep);
    other.evict_least_recent(keep);
    for (const auto& [user, history] : stream.histories) REQUIRE(one.contains(user) == other.contains(user));
  }
}

Json manifest_fields(const fs::path& directory) { return read_json(directory / "manifest.json").at("fields"); }

}  // namespace

TEST_CASE("sessions that are opened remove what a kill left of a save", "[durable_sessions]") {
  const TemporaryDirectory parent;
  const std::shared_ptr<const RecurrentModel> model = model_named("gru4rec")->recurrent();
  const fs::path state = parent / "state";
  { const DurableSessions sessions(state, model, item_names()); }
  for (const char* name : {".tmp-state-4194305-1-0", ".tmp-other-4194305-1-0"}) {
    fs::create_directory(parent / name);
    parent.write(std::string(name) + "/users", "half");
  }
  { const DurableSessions sessions(state, model, item_names()); }
  CHECK_FALSE(fs::exists(parent / ".tmp-state-4194305-1-0"));
  CHECK(fs::exists(parent / ".tmp-other-4194305-1-0"));  // of sessions that somebody else may hold
}

TEST_CASE("what a kill leaves is what there was, at any moment", "[durable_sessions]") {
  const EventStream stream(600, 30);
  for (const char* name : {"lisa", "gru4rec", "time_decay"}) {
    for (const DurableOptions durable : {kNoSnapshots, DurableOptions{.min_log_bytes = 500}}) {
      INFO(name << ", snapshots beyond " << durable.min_log_bytes << " bytes of log");
      const TemporaryDirectory parent;
      const auto model = model_named(name)->recurrent();
      Sessions expected(model, item_names());
      DurableSessions sessions(parent / "state", model, item_names(), {}, durable);
      std::uint64_t x = 11;
      const auto draw = [&](std::uint64_t below) {
        x = x * 6364136223846793005ULL + 1442695040888963407ULL;
        return (x >> 33) % below;
      };
      std::set<std::string> generations;
      for (std::size_t begin = 0; begin < 600;) {
        const std::size_t end = std::min<std::size_t>(600, begin + 1 + (draw(3) == 0 ? draw(120) : draw(3)));
        sessions.append(stream.events(begin, end));
        expected.append(stream.events(begin, end));
        begin = end;
        const std::string& user = stream.users[begin - 1];
        if (draw(2) == 0) CHECK(sessions.recommend(user, 3) == expected.recommend(user, 3));
        if (draw(2) == 0) {
          const double time = stream.times[begin - 1] + 0.1;
          expected.append(user, "item-9", time);
          const auto list = expected.recommend(user, 3);
          CHECK(sessions.append_and_recommend({user, "item-9", time}, 3) == list);
        }
        if (draw(8) == 0) CHECK(sessions.evict_least_recent(20) == expected.evict_least_recent(20));
        generations.insert(manifest_fields(parent / "state").at("generation").as_string());
        if (draw(6) != 0) continue;
        Sessions loaded(model, item_names());
        loaded.load(copy_of(parent / "state", parent));
        check_same(loaded, expected, stream, parent, model);
      }
      CHECK((generations.size() > 1) == (durable.min_log_bytes == 500));
      // Going on from what a kill left, again and again, is going on.
      std::vector<UserEvent> more{{"u1", "item-1", 9e6}, {"u2", "item-2", 9e6}, {"u1", "item-3", 1e15 / 3}};
      const fs::path copy = copy_of(parent / "state", parent);
      for (int round = 0; round < 5; ++round) {
        DurableSessions next(copy, model, item_names(), {}, durable);
        check_same(next.sessions(), expected, stream, parent, model);
        next.append(more);
        expected.append(more);
        if (round == 2) next.save();
      }
      DurableSessions last(copy, model, item_names());
      check_same(last.sessions(), expected, stream, parent, model);
    }
  }
}

TEST_CASE("a log that was cut off anywhere holds what was written whole", "[durable_sessions]") {
  const EventStream stream(60, 10);
  const TemporaryDirectory parent;
  const auto model = model_named("lisa")->recurrent();
  std::vector<std::pair<std::uintmax_t, std::int64_t>> moments;  // bytes of the log, events
  {
    DurableSessions sessions(parent / "state", model, item_names());
    for (std::size_t begin = 0; begin < 60; begin += 6) {
      moments.emplace_back(fs::file_size(parent / "state/events.log"), begin);
      sessions.append(stream.events(begin, begin + 6));
    }
    moments.emplace_back(fs::file_size(parent / "state/events.log"), 60);
  }
  for (std::uintmax_t size = 0; size <= moments.back().first; size += 7) {
    const fs::path copy = copy_of(parent / "state", parent);
    fs::resize_file(copy / "events.log", size);
    std::int64_t whole = 0;
    for (const auto& [bytes, events] : moments) {
      if (bytes <= size) whole = events;
    }
    const auto events_of = [&](const Sessions& sessions) {
      std::int64_t events = 0;
      for (const auto& [user, history] : stream.histories) {
        if (sessions.contains(user)) events += sessions.state(user)->events();
      }
      return events;
    };
    Sessions loaded(model, item_names());
    loaded.load(copy);
    REQUIRE(events_of(loaded) == whole);
    // What comes after a torn line does not continue it.
    {
      DurableSessions sessions(copy, model, item_names());
      REQUIRE(events_of(sessions.sessions()) == whole);
      sessions.append(stream.events(0, 2));
    }
    loaded.load(copy);
    REQUIRE(events_of(loaded) == whole + 2);
  }
}

TEST_CASE("a log that is damaged or of other sessions is refused", "[durable_sessions]") {
  const EventStream stream(60, 10);
  const TemporaryDirectory parent;
  const auto model = model_named("lisa")->recurrent();
  const auto write_state = [&](const char* name, const std::shared_ptr<const RecurrentModel>& of) {
    DurableSessions sessions(parent / name, of, item_names());
    for (std::size_t begin = 0; begin < 60; begin += 6) sessions.append(stream.events(begin, begin + 6));
  };
  write_state("state", model);
  write_state("another", model);
  write_state("of another model", model_named("lisa", 2)->recurrent());
  const std::string log = read_file(parent / "state/events.log");
  Sessions sessions(model, item_names());
  for (const std::size_t at : {std::size_t{3}, std::size_t{60}, log.size() / 2, log.size() - 3}) {
    std::string damaged = log;
    damaged[at] = static_cast<char>(damaged[at] ^ 1);
    write_file_atomically(parent / "state/events.log", damaged);
    CHECK_THAT(message_of<IoError>([&] { sessions.load(parent / "state"); }), Contains("is damaged"));
    CHECK_THROWS_AS(DurableSessions(parent / "state", model, item_names()), IoError);
    CHECK(read_file(parent / "state/events.log") == damaged);
  }
  CHECK(sessions.size() == 0);
  for (const char* name : {"another", "of another model"}) {
    fs::copy_file(parent.path() / name / "events.log", parent / "state/events.log",
                  fs::copy_options::overwrite_existing);
    CHECK_THAT(message_of<ValueError>([&] { sessions.load(parent / "state"); }), Contains("belongs to other sessions"));
  }
  // The log of the snapshot before: its events are in the snapshot already.
  fs::remove(parent / "state/events.log");
  write_file_atomically(parent / "state/events.log", log);
  DurableSessions(parent / "state", model, item_names()).save();
  write_file_atomically(parent / "state/events.log", log);
  CHECK_THAT(message_of<ValueError>([&] { sessions.load(parent / "state"); }), Contains("belongs to other sessions"));
  CHECK_THAT(message_of<ValueError>([&] { DurableSessions(parent / "of another model", model, item_names()); }),
             Contains("another model"));
}

TEST_CASE("a directory of sessions has one writer, and is refused at once when it cannot be one",
          "[durable_sessions]") {
  const TemporaryDirectory parent;
  const auto model = model_named("lisa")->recurrent();
  const auto open = [&](const fs::path& path) { DurableSessions sessions(path, model, item_names()); };
  fs::create_directory(parent / "disk");
  fs::create_symlink("disk/state", parent / "link");
  {
    DurableSessions sessions(parent / "link", model, item_names());
    sessions.append(std::vector<UserEvent>{{"ann", "item-1"}});
    for (const char* name : {"link", "disk/state", "disk/state/"}) {
      CHECK_THAT(message_of<IoError>([&] { open(parent / name); }), Contains("is being written by"));
    }
    sessions.save();
    CHECK(fs::is_symlink(parent / "link"));
  }
  DurableSessions again(parent / "disk/state", model, item_names());
  CHECK(again.sessions().contains("ann"));
  CHECK_THAT(message_of<IoError>([&] { open(parent.write("file", "")); }), Contains("needs to be a directory"));
  CHECK_THAT(message_of<IoError>([&] { open("/sys/state"); }), Contains("[/sys/state] cannot be written"));
  CHECK_THAT(message_of<IoError>([&] { open(parent / "none/state"); }), Contains("cannot be written"));
  fs::create_directory(parent / "foreign");
  parent.write("foreign/notes", "mine");
  CHECK_THAT(message_of<IoError>([&] { open(parent / "foreign"); }), Contains("manifest"));
  CHECK(read_file(parent / "foreign/notes") == "mine");
  fs::create_directory(parent / "empty");
  open(parent / "empty");
  CHECK(recover_directory(parent / "empty"));
  // Nothing at all for no directory.
  DurableSessions in_memory({}, model, item_names());
  in_memory.append(std::vector<UserEvent>{{"ann", "item-1"}});
  in_memory.save();
  CHECK(in_memory.recommend("ann", 2).size() == 2);
}

TEST_CASE("files of others in a directory of sessions survive snapshots", "[durable_sessions]") {
  const TemporaryDirectory parent;
  const auto model = model_named("lisa")->recurrent();
  DurableSessions sessions(parent / "state", model, item_names(), {}, {.min_log_bytes = 1});
  parent.write("state/notes.txt", "mine");
  for (int i = 0; i < 50; ++i) sessions.append(std::vector<UserEvent>{{"ann", "item-" + std::to_string(i)}});
  sessions.save();
  CHECK(read_file(parent / "state/notes.txt") == "mine");
  parent.write("state/events.log.txt", "mine too");
  sessions.save();
  CHECK(read_file(parent / "state/events.log.txt") == "mine too");
}

TEST_CASE("sessions of earlier builds, and states of another version, are refused in plain words",
          "[durable_sessions]") {
  const TemporaryDirectory parent;
  const auto model = model_named("lisa")->recurrent();
  Sessions sessions(model, item_names());
  sessions.append(std::vector<UserEvent>{{"ann", "item-1"}});
  sessions.save(parent / "now");
  const Json now = manifest_fields(parent / "now");
  CHECK(now.at("version") == Json(3));
  CHECK(now.at("state_version") == Json(2));
  const auto refused = [&](const std::string& field, std::int64_t value) {
    const std::string name = field + std::to_string(value);
    Json fields = now;
    fields.set(field, value);
    fields.set("fingerprint", "another");  // as that of other states is
    AtomicDirectory changed(parent / name);
    changed.write("users.bin", read_file(parent / "now/users.bin"));
    changed.commit(fields);
    Sessions loaded(model, item_names());
    const std::string message = message_of<IoError>([&] { loaded.load(parent / name); });
    CHECK(loaded.size() == 0);
    CHECK(message_of<IoError>([&] { DurableSessions(parent / name, model, item_names()); }) == message);
    return message;
  };
  for (const std::int64_t earlier : {1, 2}) {
    CHECK_THAT(refused("version", earlier),
               Contains("needs saved sessions of version 3; got " + std::to_string(earlier) +
                        ", of an earlier build: begin a new directory with the events of its users"));
  }
  CHECK_THAT(refused("version", 4), Contains("needs saved sessions of version 3; got 4") && !Contains("earlier"));
  CHECK_THAT(refused("state_version", 1), Contains("of version 1, which another build keeps; needs version 2"));
  CHECK_THAT(refused("state_version", 3), Contains("of version 3, which another build keeps; needs version 2"));
}

TEST_CASE("a log that cannot be written is an error, and what was logged is there", "[durable_sessions]") {
  const TemporaryDirectory parent;
  const auto model = model_named("lisa")->recurrent();
  DurableSessions sessions(parent / "state", model, item_names());
  std::optional<FileSizeLimit> limit(2000);
  std::int64_t logged = 0;
  const auto next = [&] {
    const std::string user = "u" + std::to_string(logged);
    sessions.append(std::vector<UserEvent>{{user, "item-1"}, {user, "item-2"}});
    ++logged;
  };
  const std::string message = message_of<IoError>([&] {
    while (logged < 1000) next();
  });
  const std::string second = message_of<IoError>([&] { sessions.recommend("u0", 1); });
  limit.reset();
  CHECK_THAT(message, Contains("events.log] cannot write: File too large"));
  CHECK_THAT(second, Contains("File too large"));  // a snapshot has to come first, and has no room either
  CHECK(logged > 10);
  Sessions loaded(model, item_names());
  loaded.load(parent / "state");
  CHECK(loaded.size() == logged);
  // With room again: those that were taken and not logged come with the snapshot.
  CHECK(sessions.recommend("u0", 1).size() == 1);
  loaded.load(parent / "state");
  CHECK(loaded.size() == logged + 1);
}

TEST_CASE("a log has times of models that read them alone", "[durable_sessions]") {
  for (const char* name : {"lisa", "time_decay"}) {
    const TemporaryDirectory parent;
    const auto model = model_named(name)->recurrent();
    DurableSessions sessions(parent / "state", model, item_names(), {}, kNoSnapshots);
    sessions.append(std::vector<UserEvent>{{"ann", "item-1", 0.1}, {"ann", "item-2", 1234567890.25}});
    const std::string log = read_file(parent / "state/events.log");
    const bool timed = model->reads_times();
    CHECK((log.find("\tt\tann\titem-1\t0.1\tt\tann\titem-2\t1234567890.25\n") != std::string::npos) == timed);
    CHECK((log.find("\te\tann\titem-1\te\tann\titem-2\n") != std::string::npos) == !timed);
    if (!timed) continue;
    CHECK_THROWS_WITH(sessions.append(std::vector<UserEvent>{{"ann", "item-1"}}), Contains("needs the time of each"));
    CHECK(read_file(parent / "state/events.log") == log);
  }
}

TEST_CASE("what is refused leaves sessions and log alike", "[durable_sessions]") {
  const TemporaryDirectory parent;
  const auto model = model_named("lisa")->recurrent();
  DurableSessions sessions(parent / "state", model, item_names());
  sessions.append(std::vector<UserEvent>{{"ann", "item-1"}});
  const std::string log = read_file(parent / "state/events.log");
  const auto refused = [&](std::string_view user, std::string_view item) {
    CHECK_THROWS_AS(sessions.append(std::vector<UserEvent>{{"bob", "item-2"}, {user, item}}), ValueError);
  };
  refused("cid", "item-700");
  refused("", "item-1");
  for (const std::string_view user : {std::string_view("a\tb"), std::string_view("a\nb"), std::string_view("a\0b", 3),
                                      std::string_view("\x7f"), std::string_view("\x1b[1m")}) {
    refused(user, "item-1");
  }
  for (const UserEvent& event : std::vector<UserEvent>{{"ann", "item-700"}, {"", "item-1"}, {"a\tb", "item-1"}}) {
    CHECK_THROWS_AS(sessions.append_and_recommend(event, 1), ValueError);
  }
  CHECK_THROWS_AS(sessions.append_and_recommend({"ann", "item-1"}, 0), ValueError);
  CHECK_THROWS_AS(sessions.recommend("bob", 1), ValueError);
  CHECK_THROWS_AS(sessions.recommend("ann", 0), ValueError);
  CHECK(sessions.evict_least_recent(5) == 0);
  CHECK(read_file(parent / "state/events.log") == log);
  CHECK(sessions.sessions().size() == 1);
}

TEST_CASE("an event that the model throws at does not come back with the log", "[durable_sessions]") {
  const auto model = overflowing_model()->recurrent();
  const TemporaryDirectory parent;
  DurableSessions sessions(parent / "state", model, item_names());
  CHECK_THROWS_WITH(sessions.append(std::vector<UserEvent>{{"ann", "item-3"}}), Contains("finite rows"));
  Sessions loaded(model, item_names());
  loaded.load(parent / "state");
  CHECK(loaded.size() == 0);
  sessions.evict_least_recent(0);
  loaded.load(parent / "state");
}

}  // namespace durable_sessions_test
