#include "tally/core/atomic_directory.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include "tally/core/file.h"
#include "tests/support/temporary_directory.h"

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
  ignore_write_signals();
  rlimit before{};
  ::getrlimit(RLIMIT_FSIZE, &before);
  rlimit limit = before;
  limit.rlim_cur = 1000;
  ::setrlimit(RLIMIT_FSIZE, &limit);
  CHECK_THAT(message_of<IoError>([&] { commit_generation(path, 2, 2000); }), Contains("File too large"));
  ::setrlimit(RLIMIT_FSIZE, &before);
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
  CHECK_THAT(manifest("{}"), Contains("is no manifest of files") && Contains("format"));
  CHECK_THAT(manifest("[1"), Contains("syntax error"));
  CHECK_THAT(manifest(R"({"format": 2})"), Contains("needs format 1; got 2"));
  CHECK_THAT(manifest(R"({"format": 1, "files": 3})"), Contains("is no manifest"));
  CHECK_THAT(manifest(R"({"format": 1, "files": {"weights": {"bytes": "x"}}})"), Contains("is no manifest"));
  CHECK_THAT(manifest(R"({"format": 1, "files": {"../../etc/passwd": {}}})"), Contains("plain file names"));
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
  std::int64_t last = 0, changes = 0;
  // On a busy machine few children get as far as a commit: go on until ten did.
  for (int round = 0; round < 100 || (changes < 10 && round < 2000); ++round) {
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      for (int generation = static_cast<int>(last) + 1;; ++generation) commit_generation(path, generation, 300000);
    }
    ::usleep(static_cast<useconds_t>(1000 + (round * 7919) % 20000));
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    const std::int64_t step = verify_directory(path).at("step").as_integer();
    REQUIRE(step >= last);
    REQUIRE(read_file(path / "state") == std::to_string(step));
    changes += step != last ? 1 : 0;
    last = step;
  }
  CHECK(changes >= 10);
}
