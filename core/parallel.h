#pragma once

#include <cstdint>
#include <memory>
#include <type_traits>
#include <vector>

namespace tally {

namespace detail {

/// A reference to a callable `void(int64, int64)`, without allocation. Valid only during the call it is passed to.
class BlockBody {
 public:
  template <class F>
  requires(!std::is_same_v<std::remove_cvref_t<F>, BlockBody>) BlockBody(F&& body)  // NOLINT: conversion is the point
      : object_(const_cast<void*>(static_cast<const void*>(std::addressof(body)))),
        call_([](void* object, std::int64_t begin, std::int64_t end) {
          (*static_cast<std::remove_reference_t<F>*>(object))(begin, end);
        }) {}
  void operator()(std::int64_t begin, std::int64_t end) const { call_(object_, begin, end); }

 private:
  void* object_;
  void (*call_)(void*, std::int64_t, std::int64_t);
};

}  // namespace detail

/// Number of threads that parallel regions use, this one included. The first default is TALLY_NUM_THREADS, else the
/// CPUs this process may run on, by affinity and by the container's quota.
int num_threads();
/// Sets it; also raises the scheduler's own limit, so that 8 threads really run on 2 cores. Must not be called inside a
/// parallel region. Throws ValueError outside 1 to 128.
void set_num_threads(int threads);

/// Calls `body(begin, end)` for the blocks [0, grain), [grain, 2 grain), ... of [0, n). Blocks depend on n and grain
/// only, never on threads, so results that are computed per block are the same bits for any number of threads.
///
/// Inside another parallel region, or a SerialScope, the blocks run one after the other on the calling thread. Bodies
/// must not touch tapes, allocate tensors that outlive them, or hold locks across a nested call. An exception of one
/// block ends the call; the first to arrive is rethrown.
void parallel_for(std::int64_t n, std::int64_t grain, detail::BlockBody body);

/// While alive, parallel_for on this thread runs its blocks serially.
class SerialScope {
 public:
  SerialScope();
  ~SerialScope();
  SerialScope(const SerialScope&) = delete;
  SerialScope& operator=(const SerialScope&) = delete;

 private:
  bool outer_;
};

/// While alive, parallel_for on this thread runs its blocks one after the other and keeps how long each took: from that
/// follows what more threads than a machine has would gain. Only calls outside parallel regions count; what lies within
/// their blocks is theirs.
class BlockTimes {
 public:
  BlockTimes();
  ~BlockTimes();
  BlockTimes(const BlockTimes&) = delete;
  BlockTimes& operator=(const BlockTimes&) = delete;

  /// Seconds of the blocks of each call so far, in order.
  const std::vector<std::vector<double>>& calls() const { return calls_; }
  /// Seconds of all blocks.
  double seconds() const { return seconds_on(1); }
  /// Seconds of the calls on so many threads, of which each takes the next block when it is free.
  double seconds_on(int threads) const;
  /// From a repetition of the same work: the shorter time of each block, so that one disturbance does not
  /// count; where the repetition was cut otherwise, all times of the faster one.
  void keep_fastest(const BlockTimes& repetition);

 private:
  friend void parallel_for(std::int64_t n, std::int64_t grain, detail::BlockBody body);

  BlockTimes* outer_;
  std::vector<std::vector<double>> calls_;
};

/// Number of blocks of parallel_for(n, grain, ...).
constexpr std::int64_t block_count(std::int64_t n, std::int64_t grain) { return n <= 0 ? 0 : (n - 1) / grain + 1; }

/// Sum (or another fold) over blocks: `leaf(begin, end)` gives a block's value, `join(a, b)` merges neighbours. The
/// tree of joins depends on the number of blocks only. Returns `identity` for n <= 0.
template <class Value, class Leaf, class Join>
Value parallel_reduce(std::int64_t n, std::int64_t grain, Value identity, Leaf&& leaf, Join&& join) {
  const std::int64_t blocks = block_count(n, grain);
  if (blocks == 0) return identity;
  std::vector<Value> values(static_cast<std::size_t>(blocks), identity);
  parallel_for(n, grain, [&](std::int64_t begin, std::int64_t end) {
    values[static_cast<std::size_t>(begin / grain)] = leaf(begin, end);
  });
  for (std::size_t width = 1; width < values.size(); width *= 2) {
    for (std::size_t i = 0; i + width < values.size(); i += 2 * width) values[i] = join(values[i], values[i + width]);
  }
  return values[0];
}

/// Flushes denormals to zero on the calling thread and on threads that start parallel work later, or stops doing so.
/// Denormals slow sgemm down by up to 77 times (docs/notes.md, Note [Denormals]); call before the first parallel
/// region.
void flush_denormals(bool on);
bool denormals_flushed();

}  // namespace tally
