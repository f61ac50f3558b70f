// What the two thread backends (parallel_tbb.cpp, parallel_std.cpp) share. docs/notes.md, Note [Threads].
#include "tally/core/parallel.h"

#include <sched.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <string>
#include <string_view>
#include <thread>

#include "tally/core/error.h"
#include "tally/core/parallel_backend.h"
#include "tally/core/product_memory.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace tally {
namespace detail {

bool& inside_parallel_region() {
  thread_local bool inside = false;
  return inside;
}

int default_num_threads() {
  if (const char* text = std::getenv("TALLY_NUM_THREADS"); text != nullptr && *text != '\0') {
    const std::string_view digits = text;
    int value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    const bool whole = error == std::errc() && end == digits.data() + digits.size();
    check<ConfigError>(whole && value >= 1 && value <= kMostThreads, "TALLY_NUM_THREADS", "needs a number from 1 to ",
                       kMostThreads, "; got '", text, "'");
    take_product_memory(value);
    return value;
  }
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  // It fails where there are more CPUs than a cpu_set_t holds.
  const int allowed = sched_getaffinity(0, sizeof(cpus), &cpus) == 0
                          ? CPU_COUNT(&cpus)
                          : static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  std::string cpu_max;
  std::getline(std::ifstream("/sys/fs/cgroup/cpu.max"), cpu_max);
  const int quota = quota_in_cpus(cpu_max);
  int threads = std::clamp(quota > 0 ? std::min(allowed, quota) : allowed, 1, kMostThreads);
  while (threads > 1 && !has_product_memory(threads)) --threads;
  take_product_memory(threads);
  return threads;
}

void check_num_threads(int threads) {
  check<ValueError>(threads >= 1 && threads <= kMostThreads, "set_num_threads", "needs 1 to ", kMostThreads,
                    " threads; got ", threads);
  take_product_memory(threads);
}

int quota_in_cpus(const std::string& cpu_max) {
  std::int64_t microseconds = 0, period = 0;
  const char* const end = cpu_max.data() + cpu_max.size();
  const char* const space = std::from_chars(cpu_max.data(), end, microseconds).ptr;
  if (space == end || *space != ' ' || std::from_chars(space + 1, end, period).ec != std::errc()) return 0;
  if (microseconds <= 0 || period <= 0) return 0;
  return static_cast<int>(std::min<std::int64_t>((microseconds - 1) / period + 1, 4096));
}

}  // namespace detail

SerialScope::SerialScope() : outer_(detail::inside_parallel_region()) { detail::inside_parallel_region() = true; }
SerialScope::~SerialScope() { detail::inside_parallel_region() = outer_; }

namespace {
thread_local BlockTimes* block_times = nullptr;
}

BlockTimes::BlockTimes() : outer_(block_times) { block_times = this; }
BlockTimes::~BlockTimes() { block_times = outer_; }

double BlockTimes::seconds_on(int threads) const {
  check<ValueError>(threads >= 1, "block times", "need at least 1 thread; got ", threads);
  double total = 0;
  std::vector<double> busy;
  for (const std::vector<double>& blocks : calls_) {
    busy.assign(static_cast<std::size_t>(threads), 0);
    for (const double seconds : blocks) *std::min_element(busy.begin(), busy.end()) += seconds;
    total += *std::max_element(busy.begin(), busy.end());
  }
  return total;
}

void BlockTimes::keep_fastest(const BlockTimes& repetition) {
  const auto& other = repetition.calls_;
  const auto as_many = [](const std::vector<double>& a, const std::vector<double>& b) { return a.size() == b.size(); };
  if (!std::equal(calls_.begin(), calls_.end(), other.begin(), other.end(), as_many)) {
    if (repetition.seconds() < seconds()) calls_ = other;
    return;
  }
  for (std::size_t call = 0; call < calls_.size(); ++call) {
    for (std::size_t block = 0; block < calls_[call].size(); ++block) {
      calls_[call][block] = std::min(calls_[call][block], other[call][block]);
    }
  }
}

void parallel_for(std::int64_t n, std::int64_t grain, detail::BlockBody body) {
  check<ValueError>(grain >= 1, "parallel_for", "needs a grain of at least 1; got ", grain);
  const std::int64_t blocks = block_count(n, grain);
  if (blocks == 0) return;
  const auto run_block = [&](std::int64_t block) {
    const std::int64_t begin = block * grain;
    body(begin, n - begin > grain ? begin + grain : n);
  };
  // A lone block is not a region: what it calls is shared out, and counts.
  if (block_times != nullptr && blocks > 1 && !detail::inside_parallel_region()) {
    using Clock = std::chrono::steady_clock;
    const SerialScope serial;
    std::vector<double> seconds;
    seconds.reserve(static_cast<std::size_t>(blocks));
    for (std::int64_t block = 0; block < blocks; ++block) {
      const auto start = Clock::now();
      run_block(block);
      seconds.push_back(std::chrono::duration<double>(Clock::now() - start).count());
    }
    block_times->calls_.push_back(std::move(seconds));
    return;
  }
  if (blocks == 1 || detail::inside_parallel_region() || num_threads() == 1) {
    for (std::int64_t block = 0; block < blocks; ++block) run_block(block);
    return;
  }
  const bool flushed = denormals_flushed();
  const auto guarded = [&](std::int64_t begin, std::int64_t end) {
    const SerialScope serial;
    if (denormals_flushed() != flushed) flush_denormals(flushed);
    for (std::int64_t block = begin; block < end; ++block) run_block(block);
  };
  detail::run_blocks(blocks, guarded);
}

#if defined(__SSE2__)
namespace {
constexpr unsigned kFlushBits = 0x8040;  // flush-to-zero and denormals-are-zero
}
void flush_denormals(bool on) { _mm_setcsr(on ? _mm_getcsr() | kFlushBits : _mm_getcsr() & ~kFlushBits); }
bool denormals_flushed() { return (_mm_getcsr() & kFlushBits) == kFlushBits; }
#else
void flush_denormals(bool) {}
bool denormals_flushed() { return false; }
#endif

}  // namespace tally
