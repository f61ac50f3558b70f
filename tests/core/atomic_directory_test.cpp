#include "tally/core/io/atomic_directory.h"

#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include "tally/core/io/file.h"
#include "tests/support/file_size_limit.h"
#include "tests/support/temporary_directory.h"
#include "tests/support/unprivileged.h"

namespace atomic_directory_test {

using namespace tally;
using namespace tally::test;
using Catch::Matchers::Contains;

namespace {

void commit_generation(const std::filesystem::path& path, int generation, std::size_t bytes = 10) {
  AtomicDirectory directory(path);
  directory.write("weights", std::string(bytes, static_cast<char>('a' + generation % 26)));
  directory.write("state", std::to_string(generation));
  directory.commit(Json::object({{"step", generation}}));
}

}  // namespace

TEST_CASE("a directory appears whole with its manifest", "[atomic_directory]") {
  const TemporaryDirectory parent;
  const auto path = parent / "step-1";
  {
    AtomicDirectory directory(path);
    directory.write("a", "123456789");
    std::ofstream(directory.file("b")) << "by other means";
    CHECK_FALSE(std::filesystem::exists(path));
    directory.commit(Json::object({{"step", 7}, {"config", Json::object({{"rate", 0.5}})}}));
  }
  CHECK(parent.entries() == 1);
  CHECK(read_file(path / "b") == "by other means");
  // 0xcbf43926 is the check value of CRC-32.
  CHECK(checksum_file(path / "a").crc32 == 0xcbf43926);
  CHECK(read_json(path / "manifest.json").at("files").at("a").dump() == R"({"bytes":9,"crc32":"cbf43926"})");
  CHECK(verify_directory(path).dump() == R"({"step":7,"config":{"rate":0.5}})");
  CHECK(verify_directory(path.string() + "/").at("step") == Json(7));
}

TEST_CASE("a directory replaces another, and nothing stays without a commit", "[atomic_directory]") {
  const TemporaryDirectory parent;
  const auto path = parent / "best";
  commit_generation(path, 1);
  commit_generation(path, 2);
  CHECK(verify_directory(path).at("step") == Json(2));
  { AtomicDirectory(path).write("weights", "never committed"); }
  CHECK(verify_directory(path).at("step") == Json(2));
  CHECK(parent.entries() == 1);
  CHECK_THAT(message_of<IoError>([&] { AtomicDirectory directory(parent / "none/x"); }), Contains("cannot create"));
  parent.write("file", "");
  CHECK_THAT(message_of<IoError>([&] { AtomicDirectory directory(parent / "file"); }), Contains("something else"));
  AtomicDirectory directory(path);
  for (const char* name : {"", "a/b", "../a", ".hidden", "manifest.json"}) {
    CHECK_THROWS_AS(directory.file(name), ValueError);
  }
}

TEST_CASE("a failed write keeps the directory that was there", "[atomic_directory]") {
  const TemporaryDirectory parent;
  const auto path = parent / "best";
  commit_generation(path, 1);
  {
    const FileSizeLimit limit(1000);
    CHECK_THAT(message_of<IoError>([&] { commit_generation(path, 2, 2000); }), Contains("File too large"));
  }
  CHECK(verify_directory(path).at("step") == Json(1));
  CHECK(parent.entries() == 1);
}

TEST_CASE("a directory that was set aside when its successor never came is taken back", "[atomic_directory]") {
  const TemporaryDirectory parent;
  const auto path = parent / "best";
  commit_generation(path, 1);
  std::filesystem::rename(path, parent / ".previous-best");
  CHECK(verify_directory(path).at("step") == Json(1));
  CHECK(parent.entries() == 1);
  std::filesystem::rename(path, parent / ".previous-best");
  commit_generation(path, 2);
  CHECK(verify_directory(path).at("step") == Json(2));
  CHECK(parent.entries() == 1);
}

TEST_CASE("what somebody else put into a directory survives its replacement", "[atomic_directory]") {
  namespace fs = std::filesystem;
  const TemporaryDirectory parent;
  const auto path = parent / "best";
  commit_generation(path, 1);
  parent.write("best/notes.txt", "mine");
  parent.write("best/.hidden", "hidden");
  fs::create_directories(path / "plots/old");
  parent.write("best/plots/old/a.svg", "<svg/>");
  fs::create_symlink("nowhere", path / "link");
  REQUIRE(::mkfifo((path / "pipe").c_str(), 0600) == 0);
  const auto check_kept = [&](const char* notes) {
    CHECK(read_file(path / "notes.txt") == notes);
    CHECK(read_file(path / ".hidden") == "hidden");
    CHECK(read_file(path / "plots/old/a.svg") == "<svg/>");
    CHECK(fs::read_symlink(path / "link") == "nowhere");
    CHECK(fs::is_fifo(path / "pipe"));
    CHECK(parent.entries() == 1);
  };
  commit_generation(path, 2);
  check_kept("mine");
  CHECK(verify_directory(path).at("step") == Json(2));
  CHECK(read_json(path / "manifest.json").at("files").size() == 2);
  // Changed, removed and added while a replacement is written.
  {
    AtomicDirectory next(path);
    next.write("weights", "w");
    parent.write("best/other", "new");
    fs::remove(path / "notes.txt");
    parent.write("best/notes.txt", "mine, again");
    next.commit();
  }
  check_kept("mine, again");
  CHECK(read_file(path / "other") == "new");
  CHECK_FALSE(fs::exists(path / "state"));  // named by the manifest of before, and not written again
  fs::remove(path / "other");
  {
    AtomicDirectory next(path);
    fs::remove(path / "notes.txt");
    next.commit();
  }
  CHECK_FALSE(fs::exists(path / "notes.txt"));
  parent.write("best/notes.txt", "mine");
  check_kept("mine");
  // A name that somebody else has is not taken.
  {
    AtomicDirectory next(path);
    CHECK_THAT(message_of<IoError>([&] { next.write("notes.txt", "theirs"); }),
               Contains("best/notes.txt] is in the way"));
    CHECK_THAT(message_of<IoError>([&] { next.expect_later("notes.txt"); }), Contains("is in the way"));
    next.write("late", "theirs");
    parent.write("best/late", "mine");
    CHECK_THAT(message_of<IoError>([&] { next.commit(); }), Contains("best/late] is in the way"));
  }
  CHECK(read_file(path / "late") == "mine");
  check_kept("mine");
}

TEST_CASE("a directory without a manifest is replaced only if it is empty", "[atomic_directory]") {
  namespace fs = std::filesystem;
  const TemporaryDirectory parent;
  const auto path = parent / "best";
  fs::create_directory(path);
  commit_generation(path, 1);
  CHECK(verify_directory(path).at("step") == Json(1));
  CHECK(parent.entries() == 1);
  for (const char* entry : {"notes.txt", ".hidden", "sub"}) {
    fs::remove_all(path);
    fs::create_directories(path / (std::string(entry) == "sub" ? "sub" : ""));
    if (std::string(entry) != "sub") parent.write(std::string("best/") + entry, "mine");
    CHECK_THAT(message_of<IoError>([&] { AtomicDirectory directory(path); }),
               Contains("best] cannot be replaced: it holds files") && Contains(entry));
    CHECK(fs::exists(path / entry));
  }
  // Filled while its replacement is written.
  fs::remove_all(path);
  fs::create_directory(path);
  {
    AtomicDirectory next(path);
    parent.write("best/notes.txt", "mine");
    CHECK_THROWS_AS(next.commit(), IoError);
  }
  CHECK(read_file(path / "notes.txt") == "mine");
  CHECK(parent.entries() == 1);
}

TEST_CASE("a directory that may not be written is not replaced", "[atomic_directory]") {
  namespace fs = std::filesystem;
  const TemporaryDirectory parent;
  fs::permissions(parent.path(), fs::perms::all);
  const auto path = parent / "best";
  commit_generation(path, 1);
  fs::permissions(path, fs::perms(0555));
  {
    const Unprivileged nobody;
    CHECK_THAT(message_of<IoError>([&] { commit_generation(path, 2); }),
               Contains("best] cannot be written: Permission denied"));
    commit_generation(parent / "another", 1);
  }
  CHECK(verify_directory(path).at("step") == Json(1));
  CHECK(parent.entries() == 2);
}

TEST_CASE("a file that is expected later goes with its directory", "[atomic_directory]") {
  const TemporaryDirectory parent;
  const auto path = parent / "best";
  for (int step = 0; step < 3; ++step) {
    AtomicDirectory next(path);
    next.write("weights", "w");
    next.expect_later("log");
    next.commit(Json::object({{"step", step}}));
    CHECK_FALSE(std::filesystem::exists(path / "log"));
    parent.write("best/log", "of this directory");
    parent.write("best/notes", "mine");
    CHECK(verify_directory(path).at("step") == Json(step));
  }
  std::string text = read_file(path / "manifest.json");
  text.replace(text.find("\"log\""), 5, "\"lag\"");
  parent.write("best/manifest.json", text);
  CHECK_THAT(message_of<IoError>([&] { verify_directory(path); }), Contains("does not match its own checksum"));
}

TEST_CASE("leftovers of a killed replacement give back what is somebody else's", "[atomic_directory]") {
  namespace fs = std::filesystem;
  const TemporaryDirectory parent;
  const auto path = parent / "best";
  const pid_t child = ::fork();
  if (child == 0) ::_exit(0);
  ::waitpid(child, nullptr, 0);
  const auto leftover = parent / (".tmp-best-" + std::to_string(child) + "-1-0");
  commit_generation(path, 0);
  // Killed after the exchange: the old directory bears the temporary's name.
  commit_generation(leftover, 1);
  parent.write(leftover.filename().string() + "/late.txt", "mine");
  parent.write(leftover.filename().string() + "/notes.txt", "mine");
  fs::create_directory(leftover / "plots");
  commit_generation(path, 2);
  for (const char* name : {"late.txt", "notes.txt", "plots"}) CHECK(fs::exists(path / name));
  CHECK(parent.entries() == 1);
  // Both have the name: each stays where it is.
  commit_generation(leftover, 1);
  parent.write(leftover.filename().string() + "/notes.txt", "another's");
  commit_generation(path, 3);
  CHECK(read_file(path / "notes.txt") == "mine");
  CHECK(read_file(leftover / "notes.txt") == "another's");
  CHECK_FALSE(fs::exists(leftover / "weights"));
  fs::remove_all(leftover);
  // Killed before it was finished.
  fs::create_directory(leftover);
  parent.write(leftover.filename().string() + "/weights", "half");
  commit_generation(path, 4);
  CHECK(parent.entries() == 1);
  // The same for a directory that was set aside, with its successor in place.
  commit_generation(parent / ".previous-best", 1);
  parent.write(".previous-best/aside.txt", "mine");
  commit_generation(path, 5);
  CHECK(read_file(path / "aside.txt") == "mine");
  CHECK(verify_directory(path).at("step") == Json(5));
  CHECK(parent.entries() == 1);
}

TEST_CASE("a symbolic link to a directory is followed", "[atomic_directory]") {
  namespace fs = std::filesystem;
  const TemporaryDirectory parent;
  fs::create_directory(parent / "disk");
  fs::create_symlink("disk/best", parent / "link");
  // To nothing yet, and to a directory.
  for (int step = 0; step < 3; ++step) {
    commit_generation(step == 1 ? parent.path().string() + "/link/" : (parent / "link").string(), step);
    CHECK(fs::is_symlink(parent / "link"));
    CHECK_FALSE(fs::is_symlink(parent / "disk/best"));
    CHECK(verify_directory(parent / "link").at("step") == Json(step));
    CHECK(verify_directory(parent / "disk/best").at("step") == Json(step));
    CHECK(recover_directory(parent / "link"));
  }
  fs::rename(parent / "disk/best", parent / "disk/.previous-best");
  CHECK(verify_directory(parent / "link").at("step") == Json(2));
  fs::create_symlink("file", parent / "to file");
  parent.write("file", "");
  CHECK_THAT(message_of<IoError>([&] { AtomicDirectory directory(parent / "to file"); }), Contains("something else"));
  CHECK(parent.entries() == 4);
}

TEST_CASE("verification finds every kind of damage", "[atomic_directory]") {
  const TemporaryDirectory parent;
  const auto path = parent / "best";
  const auto refusal = [&] { return message_of<IoError>([&] { verify_directory(path); }); };
  CHECK_THAT(refusal(), Contains("manifest.json] cannot open"));
  commit_generation(path, 3);
  parent.write("best/state", "4");
  CHECK_THAT(refusal(), Contains("best/state] needs checksum") && Contains("it is damaged"));
  parent.write("best/state", "33");
  CHECK_THAT(refusal(), Contains("best/state] needs 1 bytes as the manifest says; got 2"));
  std::filesystem::remove(path / "state");
  CHECK_THAT(refusal(), Contains("best/state] cannot open"));
  const auto manifest = [&](std::string_view text) {
    parent.write("best/manifest.json", text);
    return refusal();
  };
  CHECK_THAT(manifest("{}"), Contains("is no manifest of files: ") && Contains("format") && !Contains(": ["));
  CHECK_THAT(manifest("[1"), Contains("syntax error"));
  CHECK_THAT(manifest(R"({"format": 2})"), Contains("needs format 1; got 2"));
  CHECK_THAT(manifest(R"({"format": 1, "files": 3})"), Contains("is no manifest"));
  CHECK_THAT(manifest(R"({"format": 1, "files": {"weights": {"bytes": "x"}}})"), Contains("is no manifest"));
  CHECK_THAT(manifest(R"({"format": 1, "files": {"../../etc/passwd": {}}})"), Contains("plain file names"));
  // What is in it cannot be told from somebody else's files, so it is not replaced.
  CHECK_THAT(message_of<IoError>([&] { commit_generation(path, 3); }),
             Contains("best] cannot be replaced, as nobody can tell") && Contains("plain file names"));
  CHECK(std::filesystem::exists(path / "weights"));
  std::filesystem::remove_all(path);
  commit_generation(path, 3);
  std::string text = read_file(path / "manifest.json");
  const std::size_t generation = text.find("3", text.find("\"fields\""));
  REQUIRE(generation != std::string::npos);
  text[generation] = '4';
  CHECK_THAT(manifest(text), Contains("manifest.json] does not match its own checksum"));
}

TEST_CASE("a process killed while it replaces a directory leaves a whole one", "[atomic_directory][slow]") {
  const TemporaryDirectory parent;
  const auto path = parent / "best";
  commit_generation(path, 0);
  parent.write("best/notes.txt", "mine");
  std::filesystem::create_directory(path / "plots");
  std::int64_t last = 0, changes = 0, misplaced = 0;
  // On a busy machine, or under a sanitizer, few children get as far as a commit: go on, with more time, until ten did.
  for (int round = 0; round < 100 || (changes < 10 && round < 2000); ++round) {
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      for (int generation = static_cast<int>(last) + 1;; ++generation) commit_generation(path, generation, 300000);
    }
    ::usleep(static_cast<useconds_t>((1000 + (round * 7919) % 20000) * (1 + round / 100)));
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    const std::int64_t step = verify_directory(path).at("step").as_integer();
    REQUIRE(step >= last);
    REQUIRE(read_file(path / "state") == std::to_string(step));
    REQUIRE(read_file(path / "notes.txt") == "mine");
    if (!std::filesystem::exists(path / "plots")) {
      ++misplaced;
      { AtomicDirectory next(path); }
      REQUIRE(std::filesystem::exists(path / "plots"));
    }
    changes += step != last ? 1 : 0;
    last = step;
  }
  CHECK(changes >= 10);
  CHECK(misplaced < changes);
}

}  // namespace atomic_directory_test
