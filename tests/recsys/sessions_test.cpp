// Sessions of many users against recomputation for each of them alone.
#include "tally/recsys/sessions/sessions.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>
#include <set>
#include <thread>

#include "tally/core/io/file.h"
#include "tally/core/parallel.h"
#include "tests/recsys/session_samples.h"
#include "tests/support/temporary_directory.h"

namespace sessions_test {

using namespace tally;
using namespace tally::recsys;
using Catch::Matchers::Contains;
using namespace tally::test;

namespace {

std::vector<std::string> names_of(const EventStream& stream) {
  std::vector<std::string> names;
  for (const auto& [name, history] : stream.histories) names.push_back(name);
  return names;
}

std::vector<std::vector<ScoredItem>> recommend_all(Sessions& sessions, const EventStream& stream, std::int64_t k = 10) {
  const std::vector<std::string> names = names_of(stream);
  const std::vector<std::string_view> views(names.begin(), names.end());
  return sessions.recommend(views, k);
}

}  // namespace

TEST_CASE("a set of items", "[sessions]") {
  // Of a catalogue so large that items are slots, of one so small that they soon are bits, and in between.
  for (const std::int64_t catalogue :
       {std::int64_t{2147483647}, std::int64_t{1000003}, std::int64_t{4097}, std::int64_t{33}, std::int64_t{1}}) {
    INFO("catalogue " << catalogue);
    ItemSet set;
    std::set<std::int32_t> reference;
    CHECK_FALSE(set.contains(0));
    CHECK(set.heap_bytes() == 0);
    std::uint64_t x = 3;
    for (int i = 0; i < 5000; ++i) {
      x = x * 6364136223846793005ULL + 1442695040888963407ULL;
      const auto drawn = static_cast<std::int64_t>(i % 3 == 0 ? (x >> 33) % 500 * 4096 : x >> 33);
      const auto item = static_cast<std::int32_t>(drawn % catalogue);
      CHECK(set.insert(item, catalogue) == reference.insert(item).second);
      CHECK(set.contains(item));
      CHECK_FALSE(set.insert(item, catalogue));
    }
    CHECK(set.size() == static_cast<std::int64_t>(reference.size()));
    CHECK(set.items() == std::vector<std::int32_t>(reference.begin(), reference.end()));
    CHECK(set.contains(static_cast<std::int32_t>(catalogue - 1)) ==
          reference.contains(static_cast<std::int32_t>(catalogue - 1)));
    const std::size_t bits = 4 * ((static_cast<std::size_t>(catalogue) + 31) / 32);
    CHECK(set.heap_bytes() <= std::max<std::size_t>(32, std::min(reference.size() * 11, bits)));
    if (catalogue > 1000003) continue;
    std::vector<std::uint8_t> bytes(static_cast<std::size_t>(catalogue), 1);
    set.clear_bytes(bytes);
    std::size_t wrong = 0;
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      wrong += static_cast<std::size_t>((bytes[i] == 0) != reference.contains(static_cast<std::int32_t>(i)));
    }
    CHECK(wrong == 0);
  }
}

TEST_CASE("sessions recommend what the model recommends for each history", "[sessions]") {
  const EventStream stream(400, 20);
  for (const char* name : {"lisa", "gru4rec", "sasrec", "time_decay"}) {
    INFO(name);
    const auto model = model_named(name);
    Sessions sessions(model->recurrent(), item_names());
    sessions.append(stream.events(0, 300));
    for (const UserEvent& event : stream.events(300)) sessions.append(event.user, event.item, event.time);
    CHECK(sessions.size() == static_cast<std::int64_t>(stream.histories.size()));

    std::vector<std::span<const std::int32_t>> histories;
    std::vector<std::span<const double>> times;
    for (const auto& [user, history] : stream.histories) {
      histories.emplace_back(history);
      times.emplace_back(stream.histories_times.at(user));
    }
    const auto expected = recommend(make_ranker(*model), pack(histories, times), {.k = 10});
    const auto lists = recommend_all(sessions, stream);
    REQUIRE(lists.size() == expected.size());
    std::size_t u = 0;
    for (const auto& [user, history] : stream.histories) {
      REQUIRE(lists[u].size() == 10);
      for (std::size_t r = 0; r < 10; ++r) {
        CHECK(lists[u][r].score == Approx(expected[u][r].score).epsilon(1e-4).margin(1e-5));
        CHECK(std::find(history.begin(), history.end(), lists[u][r].item) == history.end());
      }
      // Alone or in company: the same bits.
      CHECK(sessions.recommend(user, 10) == lists[u]);
      CHECK(sessions.state(user)->events() == static_cast<std::int64_t>(history.size()));
      ++u;
    }
    // Every item but those seen, and all of them when seen ones are not kept.
    CHECK(sessions.recommend("u3", kItems).size() ==
          kItems - std::set<std::int32_t>(stream.histories.at("u3").begin(), stream.histories.at("u3").end()).size());
    Sessions forgetful(model->recurrent(), item_names(), {.keep_seen = false});
    forgetful.append(stream.events());
    CHECK(forgetful.recommend("u3", kItems).size() == kItems);
    CHECK(forgetful.bytes() < sessions.bytes());
  }
}

TEST_CASE("states do not depend on threads, batches or other users", "[sessions]") {
  const EventStream stream(600, 30);
  const auto recurrent = model_named("lisa")->recurrent();
  Sessions one_by_one(recurrent, item_names());
  for (const UserEvent& event : stream.events()) one_by_one.append(event.user, event.item);
  const auto expected = recommend_all(one_by_one, stream);
  const int before = num_threads();
  for (const int threads : {1, 2, 8}) {
    set_num_threads(threads);
    Sessions batched(recurrent, item_names());
    for (std::size_t i = 0; i < 600; i += 250) batched.append(stream.events(i, i + 250));
    for (const std::string& user : names_of(stream)) {
      CHECK(batched.state(user)->save() == one_by_one.state(user)->save());
    }
    CHECK(recommend_all(batched, stream) == expected);
  }
  set_num_threads(before);
}

TEST_CASE("many threads at once", "[sessions]") {
  const EventStream stream(2000, 40);
  const auto recurrent = model_named("gru4rec")->recurrent();
  Sessions alone(recurrent, item_names());
  alone.append(stream.events());
  Sessions shared(recurrent, item_names());
  const TemporaryDirectory parent;
  // Each thread has users of its own (their events stay in order) and reads those of others.
  std::vector<std::thread> threads;
  std::atomic<std::int64_t> recommended{0};
  for (std::size_t t = 0; t < 6; ++t) {
    threads.emplace_back([&, t] {
      std::vector<UserEvent> batch;
      for (const UserEvent& event : stream.events()) {
        if (std::hash<std::string_view>()(event.user) % 6 != t) continue;
        if (batch.size() == 5) {
          shared.append(batch);
          batch.clear();
          if (shared.contains("u7")) recommended += static_cast<std::int64_t>(shared.recommend("u7", 3).size());
        }
        batch.push_back(event);
      }
      shared.append(batch);
    });
  }
  threads.emplace_back([&] {
    for (int i = 0; i < 3; ++i) shared.save(parent / "saved");
    (void)shared.bytes();
    shared.evict("nobody");
    shared.evict_least_recent(1000);
  });
  for (std::thread& thread : threads) thread.join();
  CHECK(shared.size() == alone.size());
  for (const std::string& user : names_of(stream)) CHECK(shared.state(user)->save() == alone.state(user)->save());
  CHECK(recommended > 0);
}

TEST_CASE("a save beside loads holds one load's users, not some of each", "[sessions]") {
  const auto recurrent = model_named("lisa")->recurrent();
  const TemporaryDirectory parent;
  constexpr int kUsers = 300;
  Sessions shared(recurrent, item_names());
  for (const char* name : {"once", "twice"}) {
    for (int u = 0; u < kUsers; ++u) shared.append("u" + std::to_string(u), "item-1");
    shared.save(parent / name);
  }
  std::atomic<bool> done{false};
  std::thread loading([&] {
    for (int i = 0; i < 30; ++i) shared.load(parent / (i % 2 == 0 ? "once" : "twice"));
    done = true;
  });
  while (!done) {
    shared.save(parent / "copy");
    Sessions copy(recurrent, item_names());
    copy.load(parent / "copy");
    std::set<std::int64_t> events;
    for (int u = 0; u < kUsers; ++u) events.insert(copy.state("u" + std::to_string(u))->events());
    CHECK(events.size() == 1);
  }
  loading.join();
}

TEST_CASE("an event that the model throws at leaves no trace", "[sessions]") {
  const auto recurrent = overflowing_model()->recurrent();
  ModelState state = recurrent->initial_state();
  const std::string before = state.save();
  CHECK_THROWS_WITH(recurrent->append(state, 3), Contains("finite rows"));
  CHECK(state.save() == before);
  Sessions sessions(recurrent, item_names());
  CHECK_THROWS_AS(sessions.append("ann", "item-3"), ValueError);
  CHECK(sessions.size() == 0);
}

TEST_CASE("sessions of a model that reads times need one of each event", "[sessions]") {
  Sessions sessions(model_named("time_decay")->recurrent(), item_names());
  const std::vector<UserEvent> events{{"ann", "item-1", 7}, {"bob", "item-2"}};
  CHECK_THAT(
      message_of<ValueError>([&] { sessions.append(events); }),
      Contains("needs the time of each event, which time_decay reads; got none for item 'item-2' of user 'bob'"));
  CHECK(sessions.size() == 0);
  CHECK_THROWS_AS(sessions.append("ann", "item-1"), ValueError);
  sessions.append("ann", "item-1", 7);
  CHECK(sessions.size() == 1);
  // Others pass them over.
  Sessions untimed(model_named("lisa")->recurrent(), item_names());
  untimed.append(events);
  CHECK(untimed.size() == 2);
}

TEST_CASE("evicting by name and by last use", "[sessions]") {
  Sessions sessions(model_named("lisa")->recurrent(), item_names());
  for (int u = 0; u < 10; ++u) sessions.append("u" + std::to_string(u), "item-" + std::to_string(u));
  const std::size_t full = sessions.bytes();
  CHECK(sessions.evict("u4"));
  CHECK_FALSE(sessions.evict("u4"));
  CHECK_FALSE(sessions.contains("u4"));
  CHECK_THAT(message_of<ValueError>([&] { sessions.recommend("u4", 3); }), Contains("no events of user 'u4'"));
  CHECK(sessions.size() == 9);
  sessions.append("u1", "item-3");
  sessions.recommend("u0", 1);
  CHECK(sessions.evict_least_recent(9) == 0);
  CHECK(sessions.evict_least_recent(3) == 6);
  CHECK(sessions.size() == 3);
  for (const char* user : {"u9", "u1", "u0"}) CHECK(sessions.contains(user));
  CHECK(sessions.evict_least_recent(0) == 3);
  CHECK(sessions.bytes() < full);
  // One who comes again begins anew.
  sessions.append("u1", "item-5");
  CHECK(sessions.state("u1")->events() == 1);
}

TEST_CASE("sessions refuse names that they do not know", "[sessions]") {
  Sessions sessions(model_named("lisa")->recurrent(), item_names());
  const std::vector<UserEvent> events{{"a", "item-1"}, {"b", "item-700"}};
  CHECK_THAT(message_of<ValueError>([&] { sessions.append(events); }), Contains("knows no item 'item-700'"));
  CHECK(sessions.size() == 0);
  CHECK_THROWS_AS(sessions.append("", "item-1"), ValueError);
  sessions.append("a", "item-1");
  CHECK_THROWS_AS(sessions.recommend("a", 0), ValueError);
  IdMap few;
  few.add("only one");
  CHECK_THROWS_AS(Sessions(model_named("lisa")->recurrent(), few), ShapeError);
  sessions.append(std::span<const UserEvent>());
  CHECK(sessions.recommend(std::span<const std::string_view>(), 5).empty());
}

TEST_CASE("sessions are saved and loaded whole", "[sessions]") {
  const EventStream stream(300, 25);
  const TemporaryDirectory parent;
  for (const char* name : {"lisa", "gru4rec", "sasrec"}) {
    INFO(name);
    const auto model = model_named(name);
    Sessions sessions(model->recurrent(), item_names());
    sessions.append(stream.events());
    sessions.recommend("u2", 1);
    sessions.save(parent / name);
    Sessions loaded(model->recurrent(), item_names());
    loaded.append("someone else", "item-1");
    loaded.load(parent / name);
    CHECK_FALSE(loaded.contains("someone else"));
    CHECK(loaded.size() == sessions.size());
    CHECK(recommend_all(loaded, stream) == recommend_all(sessions, stream));
    // The order of last use is kept.
    const std::vector<std::string> names = names_of(stream);
    loaded.load(parent / name);
    loaded.evict_least_recent(1);
    CHECK(loaded.contains("u2"));
  }
  const auto lisa = model_named("lisa");
  Sessions sessions(lisa->recurrent(), item_names());
  sessions.append("a", "item-1");
  const auto refused = [&](auto&& error, const std::filesystem::path& path, const char* words) {
    using E = std::decay_t<decltype(error)>;
    CHECK_THAT(message_of<E>([&] { sessions.load(path); }), Contains(words));
    CHECK(sessions.size() == 1);
  };
  refused(ValueError(""), parent / "gru4rec", "another model");
  refused(IoError(""), parent / "none", "none");
  Sessions(model_named("lisa", 2)->recurrent(), item_names()).save(parent / "other weights");
  refused(ValueError(""), parent / "other weights", "another model");
  IdMap others;
  for (std::int64_t i = 0; i < kItems; ++i) others.add("thing-" + std::to_string(i));
  Sessions(lisa->recurrent(), others).save(parent / "other items");
  refused(ValueError(""), parent / "other items", "other items");
  Sessions(lisa->recurrent(), item_names(), {.keep_seen = false}).save(parent / "unseen");
  refused(ValueError(""), parent / "unseen", "without the items");
  // A byte of a file changed.
  std::string bytes = read_file(parent / "lisa/users.bin");
  bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
  write_file_atomically(parent / "lisa/users.bin", bytes);
  refused(IoError(""), parent / "lisa", "users.bin");
}

TEST_CASE("a save that is killed half-way leaves the one before", "[sessions]") {
  const TemporaryDirectory parent;
  const auto recurrent = model_named("lisa")->recurrent();
  Sessions first(recurrent, item_names()), second(recurrent, item_names());
  for (int u = 0; u < 300; ++u) {
    first.append("u" + std::to_string(u), "item-1");
    second.append("u" + std::to_string(u), "item-1");
    second.append("u" + std::to_string(u), "item-2");
  }
  const auto begin = std::chrono::steady_clock::now();
  first.save(parent / "saved");
  const auto duration = std::chrono::steady_clock::now() - begin;
  std::uint64_t x = 5;
  int killed = 0;
  for (int round = 0; round < 25; ++round) {
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      // Saves one after the other until it is killed.
      for (bool odd = false;; odd = !odd) (odd ? first : second).save(parent / "saved");
    }
    x = x * 6364136223846793005ULL + 1442695040888963407ULL;
    std::this_thread::sleep_for(duration * (static_cast<double>(x >> 40) / (1 << 24)) * 4);
    ::kill(child, SIGKILL);
    int status = 0;
    ::waitpid(child, &status, 0);
    killed += WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    Sessions loaded(recurrent, item_names());
    loaded.load(parent / "saved");
    REQUIRE(loaded.size() == 300);
    const std::int64_t events = loaded.state("u0")->events();
    CHECK((events == 1 || events == 2));
    for (int u = 0; u < 300; ++u) CHECK(loaded.state("u" + std::to_string(u))->events() == events);
  }
  CHECK(killed == 25);
}

}  // namespace sessions_test
