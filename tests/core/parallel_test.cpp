#include "tally/core/parallel.h"

#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <cmath>
#include <cstring>
#include <mutex>
#include <numeric>
#include <set>
#include <thread>
#include <vector>

#include "tally/core/error.h"
#include "tally/core/parallel_backend.h"

namespace parallel_test {

using namespace tally;

namespace {

/// Restores the number of threads.
struct Threads {
  explicit Threads(int count) : before(num_threads()) { set_num_threads(count); }
  ~Threads() { set_num_threads(before); }
  int before;
};

using Block = std::pair<std::int64_t, std::int64_t>;

std::vector<Block> blocks_of(std::int64_t n, std::int64_t grain) {
  std::mutex mutex;
  std::vector<Block> blocks;
  parallel_for(n, grain, [&](std::int64_t begin, std::int64_t end) {
    const std::lock_guard lock(mutex);
    blocks.emplace_back(begin, end);
  });
  std::sort(blocks.begin(), blocks.end());
  return blocks;
}

}  // namespace

TEST_CASE("blocks depend on the size and the grain only", "[parallel]") {
  for (const int threads : {1, 2, 8}) {
    const Threads scope(threads);
    CHECK(num_threads() == threads);
    for (const std::int64_t n : {0, 1, 2, 7, 64, 65, 1000}) {
      for (const std::int64_t grain : {1, 3, 64, 5000}) {
        std::vector<Block> expected;
        for (std::int64_t begin = 0; begin < n; begin += grain)
          expected.emplace_back(begin, std::min(n, begin + grain));
        CHECK(blocks_of(n, grain) == expected);
        CHECK(block_count(n, grain) == static_cast<std::int64_t>(expected.size()));
        const SerialScope serial;
        CHECK(blocks_of(n, grain) == expected);
      }
    }
  }
  CHECK(blocks_of(-3, 2).empty());
  CHECK_THROWS_AS(parallel_for(1, 0, [](std::int64_t, std::int64_t) {}), ValueError);
  CHECK_THROWS_AS(set_num_threads(0), ValueError);
}

TEST_CASE("a container's quota bounds the number of threads", "[parallel]") {
  CHECK(detail::quota_in_cpus("max 100000") == 0);
  CHECK(detail::quota_in_cpus("150000 100000") == 2);
  CHECK(detail::quota_in_cpus("200000 100000") == 2);
  CHECK(detail::quota_in_cpus("1000 100000") == 1);
  CHECK(detail::quota_in_cpus("") == 0);
  CHECK(detail::quota_in_cpus("-1 100000") == 0);
  CHECK(detail::quota_in_cpus("100000 0") == 0);
  CHECK(detail::quota_in_cpus("9000000000000000000 1") == 4096);
  CHECK(detail::default_num_threads() >= 1);
}

TEST_CASE("eight threads really run, on two cores too", "[parallel]") {
  const Threads scope(8);
  std::mutex mutex;
  std::set<std::thread::id> seen;
  std::atomic<int> inside{0};
  parallel_for(8, 1, [&](std::int64_t, std::int64_t) {
    {
      const std::lock_guard lock(mutex);
      seen.insert(std::this_thread::get_id());
    }
    // Blocks wait for company (for half a minute at most), so that one quick thread cannot take them all.
    ++inside;
    for (int i = 0; i < 30000 && inside < 8; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  });
  CHECK(seen.size() == 8);
}

TEST_CASE("nested loops run on the thread they are in", "[parallel]") {
  const Threads scope(8);
  std::atomic<int> strays{0}, inner_blocks{0};
  parallel_for(16, 1, [&](std::int64_t, std::int64_t) {
    const auto owner = std::this_thread::get_id();
    std::int64_t next = 0;
    parallel_for(10, 3, [&](std::int64_t begin, std::int64_t end) {
      if (std::this_thread::get_id() != owner || begin != next) ++strays;
      next = end;
      ++inner_blocks;
    });
  });
  CHECK(strays == 0);
  CHECK(inner_blocks == 16 * 4);
}

TEST_CASE("an exception of a block ends the loop and arrives at the caller", "[parallel]") {
  for (const int threads : {1, 2, 8}) {
    const Threads scope(threads);
    CHECK_THROWS_WITH(parallel_for(100, 1,
                                   [](std::int64_t begin, std::int64_t) {
                                     if (begin == 37) throw ValueError("block 37");
                                   }),
                      "block 37");
    // The next loop is a whole one, on several threads again.
    CHECK(blocks_of(100, 1).size() == 100);
    std::atomic<int> nested_strays{0};
    parallel_for(4, 1, [&](std::int64_t, std::int64_t) {
      try {
        parallel_for(4, 1, [](std::int64_t, std::int64_t) { throw ValueError("inner"); });
        ++nested_strays;
      } catch (const ValueError&) {
      }
    });
    CHECK(nested_strays == 0);
  }
}

TEST_CASE("a reduction gives the same bits for any number of threads", "[parallel]") {
  std::vector<float> values(100003);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = std::sin(static_cast<float>(i)) * 1e3f;
  const auto sum = [&] {
    return parallel_reduce(
        static_cast<std::int64_t>(values.size()), 1000, 0.0f,
        [&](std::int64_t begin, std::int64_t end) {
          return std::accumulate(values.begin() + begin, values.begin() + end, 0.0f);
        },
        [](float a, float b) { return a + b; });
  };
  std::set<std::uint32_t> bits;
  for (const int threads : {1, 2, 8}) {
    const Threads scope(threads);
    for (int repeat = 0; repeat < 10; ++repeat) {
      const float result = sum();
      std::uint32_t word = 0;
      std::memcpy(&word, &result, sizeof(word));
      bits.insert(word);
    }
  }
  CHECK(bits.size() == 1);
}

TEST_CASE("a reduction joins neighbours in order", "[parallel]") {
  const auto text = [](std::int64_t n, std::int64_t grain) {
    return parallel_reduce(
        n, grain, std::string("empty"),
        [](std::int64_t begin, std::int64_t end) {
          std::string letters;
          for (std::int64_t i = begin; i < end; ++i) letters += static_cast<char>('a' + i);
          return letters;
        },
        [](const std::string& a, const std::string& b) { return a + b; });
  };
  CHECK(text(0, 2) == "empty");
  CHECK(text(1, 2) == "a");
  CHECK(text(26, 3) == "abcdefghijklmnopqrstuvwxyz");
  CHECK(text(26, 1) == "abcdefghijklmnopqrstuvwxyz");
}

TEST_CASE("loops of several threads of the user do not meet", "[parallel]") {
  const Threads scope(4);
  std::vector<std::int64_t> sums(6, 0);
  std::vector<std::jthread> users;
  for (std::size_t u = 0; u < sums.size(); ++u) {
    users.emplace_back([&sums, u] {
      for (int repeat = 0; repeat < 20; ++repeat) {
        sums[u] += parallel_reduce(
            1000, 10, std::int64_t{0},
            [](std::int64_t begin, std::int64_t end) {
              std::int64_t sum = 0;
              for (std::int64_t i = begin; i < end; ++i) sum += i;
              return sum;
            },
            [](std::int64_t a, std::int64_t b) { return a + b; });
      }
    });
  }
  users.clear();
  for (const std::int64_t sum : sums) CHECK(sum == 20 * 499500);
}

#if defined(__SSE2__)
TEST_CASE("the library leaves the floating-point mode alone until asked", "[parallel]") {
  // -ffast-math anywhere in the link would have flushed denormals for the whole process at load.
  CHECK_FALSE(denormals_flushed());
  volatile float smallest = 1.17549435e-38f;
  CHECK(smallest / 2.0f > 0.0f);
}

TEST_CASE("flushing denormals reaches the workers and can be taken back", "[parallel]") {
  const Threads scope(8);
  for (const bool on : {true, false, true, false}) {
    flush_denormals(on);
    CHECK(denormals_flushed() == on);
    std::atomic<int> wrong{0};
    parallel_for(64, 1, [&](std::int64_t, std::int64_t) {
      volatile float smallest = 1.17549435e-38f;
      const float half = smallest / 2.0f;
      if ((half == 0.0f) != on || denormals_flushed() != on) ++wrong;
      std::this_thread::sleep_for(std::chrono::microseconds(100));
    });
    CHECK(wrong == 0);
  }
  flush_denormals(false);
}
#endif

TEST_CASE("block times count the calls outside others, and what more threads would gain", "[parallel]") {
  const Threads threads(4);
  const auto wait = [](std::int64_t milliseconds) {
    std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
  };
  std::vector<std::int64_t> order;
  const BlockTimes times;
  parallel_for(4, 1, [&](std::int64_t begin, std::int64_t) {
    order.push_back(begin);
    parallel_for(8, 1, [&](std::int64_t, std::int64_t) {});
    wait(10);
  });
  parallel_for(1, 1, [&](std::int64_t, std::int64_t) { wait(20); });
  parallel_for(0, 1, [&](std::int64_t, std::int64_t) { FAIL("no block"); });
  CHECK(order == std::vector<std::int64_t>{0, 1, 2, 3});
  REQUIRE(times.calls().size() == 1);
  CHECK(times.calls()[0].size() == 4);
  CHECK(times.seconds() >= 0.040);
  CHECK(times.seconds_on(2) >= 0.020);
  CHECK(times.seconds_on(2) <= times.seconds() - 0.015);  // two blocks of ten milliseconds go beside two others
  CHECK(times.seconds_on(4) == times.seconds_on(64));
  CHECK_THROWS_AS(times.seconds_on(0), ValueError);
}

TEST_CASE("block times count the calls within a lone block, which runs them in parallel", "[parallel]") {
  const BlockTimes times;
  parallel_for(1, 1, [](std::int64_t, std::int64_t) { parallel_for(3, 1, [](std::int64_t, std::int64_t) {}); });
  REQUIRE(times.calls().size() == 1);
  CHECK(times.calls()[0].size() == 3);
}

TEST_CASE("block times of repetitions keep the shorter of each block", "[parallel]") {
  const auto work = [](const std::vector<std::int64_t>& milliseconds) {
    parallel_for(static_cast<std::int64_t>(milliseconds.size()), 1, [&](std::int64_t block, std::int64_t) {
      std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds[static_cast<std::size_t>(block)]));
    });
  };
  BlockTimes times;
  work({1, 20, 1});
  const std::vector<double> first = times.calls()[0];
  {
    const BlockTimes again;
    work({20, 1, 1});
    times.keep_fastest(again);
    REQUIRE(times.calls().size() == 1);
    REQUIRE(times.calls()[0].size() == 3);
    for (std::size_t block = 0; block < 3; ++block) {
      CHECK(times.calls()[0][block] == std::min(first[block], again.calls()[0][block]));
    }
  }
  for (const std::int64_t milliseconds : {0, 50}) {
    const std::vector<std::vector<double>> before = times.calls();
    const double seconds = times.seconds();
    const BlockTimes cut_otherwise;
    work({milliseconds, milliseconds});
    times.keep_fastest(cut_otherwise);
    CHECK(times.calls() == (cut_otherwise.seconds() < seconds ? cut_otherwise.calls() : before));
  }
}

TEST_CASE("block times end with their scope", "[parallel]") {
  const Threads threads(2);
  const BlockTimes outer;
  {
    const BlockTimes inner;
    parallel_for(2, 1, [](std::int64_t, std::int64_t) {});
    CHECK(inner.calls().size() == 1);
  }
  CHECK(outer.calls().empty());
  parallel_for(2, 1, [](std::int64_t, std::int64_t) {});
  CHECK(outer.calls().size() == 1);
}

}  // namespace parallel_test
