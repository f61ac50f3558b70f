// Compiled once per SIMD target (Highway re-includes this file); what does not need SIMD stands under HWY_ONCE.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tally/core/random.cpp"
#include <hwy/foreach_target.h>
// Highway must come after foreach_target.
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>
#include <numeric>

#include "tally/core/random.h"

HWY_BEFORE_NAMESPACE();
namespace tally {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

#if HWY_TARGET != HWY_SCALAR
/// 0, 1, 2, ...: Highway's Iota stores lane by lane and waits for the reload.
constexpr auto kCount = [] {
  std::array<std::uint64_t, HWY_MAX_BYTES / sizeof(std::uint64_t)> count{};
  for (std::size_t i = 0; i < count.size(); ++i) count[i] = i;
  return count;
}();

/// A vector of counters with consecutive first words. A word lives in the lower half of a 64-bit lane and the upper
/// half is ignored, as the multiplication does: its low result needs no extraction and its high one only a shift.
struct Counters {
  using D = hn::ScalableTag<std::uint64_t>;
  using V = hn::Vec<D>;
  static constexpr hn::Repartition<std::uint32_t, D> kWords{};

  V c0, c1, c2, c3;

  HWY_INLINE Counters(RngKey key, std::uint32_t row, std::uint32_t first_block)
      : c0(hn::Add(hn::LoadU(D(), kCount.data()), hn::Set(D(), first_block))),
        c1(hn::Set(D(), row)),
        c2(hn::Set(D(), key.stream & 0xFFFFFFFFu)),
        c3(hn::Set(D(), key.stream >> 32)) {}

  HWY_INLINE void round(V k0, V k1) {
    const V p0 = hn::MulEven(hn::BitCast(kWords, c0), hn::Set(kWords, 0xD2511F53u));
    const V p1 = hn::MulEven(hn::BitCast(kWords, c2), hn::Set(kWords, 0xCD9E8D57u));
    c0 = hn::Xor3(hn::ShiftRight<32>(p1), c1, k0);
    c1 = p1;
    c2 = hn::Xor3(hn::ShiftRight<32>(p0), c3, k1);
    c3 = p0;
  }

  static HWY_INLINE V pair(V first, V second) {
    return hn::BitCast(D(), hn::OddEven(hn::BitCast(kWords, hn::ShiftLeft<32>(second)), hn::BitCast(kWords, first)));
  }

  HWY_INLINE void store(std::uint32_t* out) const {
    HWY_ALIGN std::uint64_t pairs[2 * HWY_MAX_BYTES / sizeof(std::uint64_t)];
    hn::StoreInterleaved2(pair(c0, c1), pair(c2, c3), D(), pairs);
    std::memcpy(out, pairs, 16 * hn::Lanes(D()));
  }
};

/// Draws vectors of consecutive blocks, two at a time: one chain of multiplications alone would wait for its latency.
HWY_INLINE void draw(RngKey key, Counters& a, Counters* b) {
  auto k0 = static_cast<std::uint32_t>(key.seed), k1 = static_cast<std::uint32_t>(key.seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const auto v0 = hn::Set(Counters::D(), k0), v1 = hn::Set(Counters::D(), k1);
    a.round(v0, v1);
    if (b != nullptr) b->round(v0, v1);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
}
#endif

/// Blocks of four words for the counters (first_block + i, row, stream); writes 4 * blocks words.
void philox_blocks(RngKey key, std::uint32_t row, std::uint32_t first_block, std::int64_t blocks, std::uint32_t* out) {
  std::int64_t i = 0;
#if HWY_TARGET != HWY_SCALAR
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(Counters::D()));
  const auto counters = [&](std::int64_t at)
                            HWY_ATTR { return Counters(key, row, first_block + static_cast<std::uint32_t>(at)); };
  for (; i + 2 * lanes <= blocks; i += 2 * lanes) {
    Counters a = counters(i), b = counters(i + lanes);
    draw(key, a, &b);
    a.store(out + 4 * i);
    b.store(out + 4 * (i + lanes));
  }
  for (; i + lanes <= blocks; i += lanes) {
    Counters a = counters(i);
    draw(key, a, nullptr);
    a.store(out + 4 * i);
  }
  if (i < blocks) {
    // A part of a vector takes as long as a whole one, and less than one block after the other.
    Counters a = counters(i);
    draw(key, a, nullptr);
    HWY_ALIGN std::uint32_t words[4 * HWY_MAX_BYTES / sizeof(std::uint64_t)];
    a.store(words);
    std::copy_n(words, 4 * (blocks - i), out + 4 * i);
    i = blocks;
  }
#endif
  for (; i < blocks; ++i) {
    const auto words =
        philox4x32({first_block + static_cast<std::uint32_t>(i), row, static_cast<std::uint32_t>(key.stream),
                    static_cast<std::uint32_t>(key.stream >> 32)},
                   {static_cast<std::uint32_t>(key.seed), static_cast<std::uint32_t>(key.seed >> 32)});
    for (std::size_t w = 0; w < 4; ++w) out[4 * i + static_cast<std::int64_t>(w)] = words[w];
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace tally
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tally {
namespace {
HWY_EXPORT(philox_blocks);
}  // namespace

std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> c, std::array<std::uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53u} * c[0];
    const std::uint64_t p1 = std::uint64_t{0xCD9E8D57u} * c[2];
    c = {static_cast<std::uint32_t>(p1 >> 32) ^ c[1] ^ key[0], static_cast<std::uint32_t>(p1),
         static_cast<std::uint32_t>(p0 >> 32) ^ c[3] ^ key[1], static_cast<std::uint32_t>(p0)};
    key = {key[0] + 0x9E3779B9u, key[1] + 0xBB67AE85u};
  }
  return c;
}

RngKey RngKey::fold_in(std::uint64_t value) const {
  // Another key than that of draws, so that no child stream repeats a parent's numbers.
  const auto words = philox4x32(
      {static_cast<std::uint32_t>(value), static_cast<std::uint32_t>(value >> 32), static_cast<std::uint32_t>(stream),
       static_cast<std::uint32_t>(stream >> 32)},
      {static_cast<std::uint32_t>(seed) ^ 0x5851F42Du, static_cast<std::uint32_t>(seed >> 32) ^ 0x14057B7Eu});
  return {seed, words[0] | std::uint64_t{words[1]} << 32};
}

RngKey RngKey::fold_in(std::string_view name) const {
  std::uint64_t hash = 0xCBF29CE484222325u;  // FNV-1a
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3u;
  return fold_in(hash);
}

std::vector<RngKey> RngKey::split(int n) const {
  std::vector<RngKey> keys;
  keys.reserve(static_cast<std::size_t>(std::max(n, 0)));
  for (int i = 0; i < n; ++i) keys.push_back(fold_in(static_cast<std::uint64_t>(i)));
  return keys;
}

void random_bits(RngKey key, std::uint64_t row, std::uint64_t first_column, std::int64_t n, std::uint32_t* out) {
  if (n <= 0) return;
  check<ValueError>(
      row < (std::uint64_t{1} << 32) && first_column + static_cast<std::uint64_t>(n) <= (std::uint64_t{1} << 34),
      "random_bits", "needs a row below 2^32 and columns below 2^34; got row ", row, ", columns from ", first_column);
  const auto row32 = static_cast<std::uint32_t>(row);
  std::int64_t done = 0;
  // Columns up to the next multiple of four come from the rest of a block.
  if (const auto skip = static_cast<std::int64_t>(first_column % 4); skip != 0) {
    std::uint32_t block[4];
    HWY_DYNAMIC_DISPATCH(philox_blocks)(key, row32, static_cast<std::uint32_t>(first_column / 4), 1, block);
    for (std::int64_t w = skip; w < 4 && done < n; ++w) out[done++] = block[w];
  }
  const std::uint64_t column = first_column + static_cast<std::uint64_t>(done);
  const std::int64_t whole = (n - done) / 4;
  HWY_DYNAMIC_DISPATCH(philox_blocks)(key, row32, static_cast<std::uint32_t>(column / 4), whole, out + done);
  done += 4 * whole;
  if (done < n) {
    std::uint32_t block[4];
    HWY_DYNAMIC_DISPATCH(philox_blocks)
    (key, row32, static_cast<std::uint32_t>(column / 4) + static_cast<std::uint32_t>(whole), 1, block);
    for (int w = 0; done < n; ++w) out[done++] = block[w];
  }
}

double uniform(RngKey key, std::uint64_t row, std::uint64_t column) {
  std::uint32_t bits = 0;
  random_bits(key, row, column, 1, &bits);
  return (bits + 0.5) * 0x1p-32;
}

std::uint64_t uniform_below(RngKey key, std::uint64_t row, std::uint64_t column, std::uint64_t bound) {
  check<ValueError>(bound >= 1, "uniform_below", "needs a bound of at least 1; got ", bound);
  // 64 bits scaled to the bound: the bias is below bound / 2^64.
  std::uint32_t bits[2];
  random_bits(key, row, 2 * column, 2, bits);
  const std::uint64_t word = bits[0] | std::uint64_t{bits[1]} << 32;
  __extension__ using Wide = unsigned __int128;
  return static_cast<std::uint64_t>((Wide{word} * bound) >> 64);
}

namespace {

/// Calls fill(first, count, bits) for chunks of a tensor; `count` is a multiple of four except at the end.
template <class Fill>
void for_each_chunk(RngKey key, std::int64_t n, Fill&& fill) {
  constexpr std::int64_t kChunk = 1024;
  std::uint32_t bits[kChunk];
  for (std::int64_t first = 0; first < n; first += kChunk) {
    const std::int64_t count = std::min(kChunk, n - first);
    // Whole blocks, so that a pair of words is there for every pair of elements.
    random_bits(key, 0, static_cast<std::uint64_t>(first), (count + 3) / 4 * 4, bits);
    fill(first, count, bits);
  }
}

}  // namespace

void fill_uniform(RngKey key, Tensor& tensor, double low, double high) {
  dispatch_floating(tensor.dtype(), "fill_uniform", [&]<class T>(T) {
    T* out = tensor.mutable_data<T>();
    for_each_chunk(key, tensor.numel(), [&](std::int64_t first, std::int64_t count, const std::uint32_t* bits) {
      for (std::int64_t i = 0; i < count; ++i) {
        // 23 bits and a half keep the value inside the open interval in f32 too.
        const double u = ((bits[i] >> 9) + 0.5) * 0x1p-23;
        out[first + i] = static_cast<T>(low + (high - low) * u);
      }
    });
  });
}

void fill_normal(RngKey key, Tensor& tensor, double mean, double deviation) {
  dispatch_floating(tensor.dtype(), "fill_normal", [&]<class T>(T) {
    T* out = tensor.mutable_data<T>();
    for_each_chunk(key, tensor.numel(), [&](std::int64_t first, std::int64_t count, const std::uint32_t* bits) {
      for (std::int64_t i = 0; i < count; ++i) {
        // Box-Muller: a pair of words gives a pair of normals.
        const std::uint32_t* pair = bits + i / 2 * 2;
        const double radius = std::sqrt(-2.0 * std::log((pair[0] + 0.5) * 0x1p-32));
        const double angle = 2.0 * std::numbers::pi * ((pair[1] + 0.5) * 0x1p-32);
        out[first + i] = static_cast<T>(mean + deviation * radius * (i % 2 == 0 ? std::cos(angle) : std::sin(angle)));
      }
    });
  });
}

std::vector<std::int64_t> random_permutation(RngKey key, std::int64_t n) {
  std::vector<std::int64_t> order(static_cast<std::size_t>(n));
  std::iota(order.begin(), order.end(), std::int64_t{0});
  for (std::int64_t i = n - 1; i > 0; --i) {
    const std::uint64_t j = uniform_below(key, 0, static_cast<std::uint64_t>(i), static_cast<std::uint64_t>(i) + 1);
    std::swap(order[static_cast<std::size_t>(i)], order[j]);
  }
  return order;
}

}  // namespace tally
#endif  // HWY_ONCE
