// Compiled once per SIMD target (Highway re-includes this file); what does not need SIMD stands under HWY_ONCE.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tally/core/random.cpp"
#include <hwy/foreach_target.h>
// Highway must come after foreach_target.
#include <hwy/highway.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <numbers>
#include <numeric>
#include <utility>

#include "tally/core/random.h"

#ifndef TALLY_CORE_RANDOM_ONCE
#define TALLY_CORE_RANDOM_ONCE
namespace tally {
namespace {
/// Of the four words of a counter.
constexpr std::int64_t kBlockBytes = 16;
}  // namespace
}  // namespace tally
#endif  // TALLY_CORE_RANDOM_ONCE

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

  HWY_INLINE void store(std::byte* out) const {
    HWY_ALIGN std::uint64_t pairs[2 * HWY_MAX_BYTES / sizeof(std::uint64_t)];
    hn::StoreInterleaved2(pair(c0, c1), pair(c2, c3), D(), pairs);
    std::memcpy(out, pairs, 16 * hn::Lanes(D()));
  }
};

/// Vectors drawn at a time: one chain of multiplications alone would wait for its latency, and so many have room in the
/// registers.
constexpr int kChains = HWY_MAX_BYTES >= 64 ? 4 : 2;

template <std::size_t N>
HWY_INLINE void draw(RngKey key, std::array<Counters, N>& chains) {
  auto k0 = static_cast<std::uint32_t>(key.seed), k1 = static_cast<std::uint32_t>(key.seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const auto v0 = hn::Set(Counters::D(), k0), v1 = hn::Set(Counters::D(), k1);
    for (Counters& each : chains) each.round(v0, v1);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
}
#endif

/// Of `rows` rows, a row's `stride` bytes after the one before, the `blocks` blocks of four words for the counters
/// (first_block + i, row, stream), wherever they stand.
void philox_blocks(RngKey key, std::uint32_t row, std::int64_t rows, std::uint32_t first_block, std::int64_t blocks,
                   std::byte* out, std::int64_t stride) {
#if HWY_TARGET != HWY_SCALAR
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(Counters::D()));
  const std::int64_t vectors = (blocks + lanes - 1) / lanes;
  struct Place {
    std::int64_t row = 0, vector = 0;
  } next;
  const auto take = [&]() HWY_ATTR {
    const Place here = next;
    if (++next.vector == vectors) next = {next.row + 1, 0};
    return here;
  };
  const auto counters = [&](Place at) HWY_ATTR {
    return Counters(key, row + static_cast<std::uint32_t>(at.row),
                    first_block + static_cast<std::uint32_t>(at.vector * lanes));
  };
  const auto store = [&](const Counters& words, Place at) HWY_ATTR {
    const std::int64_t first = at.vector * lanes, count = std::min(lanes, blocks - first);
    std::byte* to = out + at.row * stride + kBlockBytes * first;
    if (count == lanes) return words.store(to);
    HWY_ALIGN std::byte part[2 * HWY_MAX_BYTES];
    words.store(part);
    std::memcpy(to, part, static_cast<std::size_t>(kBlockBytes * count));
  };
  const auto draw_some = [&]<std::size_t... I>(std::index_sequence<I...>) HWY_ATTR {
    const std::array<Place, sizeof...(I)> places{(static_cast<void>(I), take())...};
    std::array<Counters, sizeof...(I)> chains{counters(places[I])...};
    draw(key, chains);
    (store(chains[I], places[I]), ...);
  };
  // A part of a vector takes as long as a whole one, and less than one block after the other.
  std::int64_t left = rows * vectors;
  for (; left >= kChains; left -= kChains) draw_some(std::make_index_sequence<kChains>());
  for (; left > 0; --left) draw_some(std::make_index_sequence<1>());
#else
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t i = 0; i < blocks; ++i) {
      const auto words =
          philox4x32({first_block + static_cast<std::uint32_t>(i), row + static_cast<std::uint32_t>(r),
                      static_cast<std::uint32_t>(key.stream), static_cast<std::uint32_t>(key.stream >> 32)},
                     {static_cast<std::uint32_t>(key.seed), static_cast<std::uint32_t>(key.seed >> 32)});
      std::memcpy(out + r * stride + kBlockBytes * i, words.data(), kBlockBytes);
    }
  }
#endif
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

namespace {

static_assert(std::endian::native == std::endian::little, "parts of words are read in the order of memory");

/// Draws of rows as numbers of type T, several to a block of words.
template <class T>
struct Draws {
  static constexpr auto kPerBlock = static_cast<std::int64_t>(kBlockBytes / sizeof(T));

  static void check_place(std::uint64_t end_row, std::uint64_t first_column, std::int64_t n) {
    check<ValueError>(end_row <= std::uint64_t{1} << 32 &&
                          first_column + static_cast<std::uint64_t>(n) <= std::uint64_t{kPerBlock} << 32,
                      "random_bits", "needs a row below 2^32 and columns below ", std::uint64_t{kPerBlock} << 32,
                      "; got row ", end_row - 1, ", columns from ", first_column);
  }

  /// Whole blocks; the first column is a multiple of their size, and rows lie `stride` numbers apart.
  static void blocks(RngKey key, std::uint64_t row, std::int64_t rows, std::uint64_t first_column, std::int64_t count,
                     T* out, std::int64_t stride) {
    HWY_DYNAMIC_DISPATCH(philox_blocks)
    (key, static_cast<std::uint32_t>(row), rows, static_cast<std::uint32_t>(first_column / kPerBlock), count,
     reinterpret_cast<std::byte*>(out), stride * static_cast<std::int64_t>(sizeof(T)));
  }

  static void row(RngKey key, std::uint64_t row, std::uint64_t column, std::int64_t n, T* out) {
    if (n <= 0) return;
    check_place(row + 1, column, n);
    T part[kPerBlock];
    // Columns up to where a block begins come from the rest of the one before.
    if (const auto skip = static_cast<std::int64_t>(column % kPerBlock); skip != 0) {
      const std::int64_t count = std::min(n, kPerBlock - skip);
      blocks(key, row, 1, column, 1, part, 0);
      out = std::copy_n(part + skip, count, out);
      column += static_cast<std::uint64_t>(count);
      n -= count;
    }
    const std::int64_t whole = n / kPerBlock, rest = n % kPerBlock;
    if (whole > 0) blocks(key, row, 1, column, whole, out, 0);
    if (rest == 0) return;
    blocks(key, row, 1, column + static_cast<std::uint64_t>(n - rest), 1, part, 0);
    std::copy_n(part, rest, out + n - rest);
  }
};

}  // namespace

void random_bits(RngKey key, std::uint64_t row, std::uint64_t first_column, std::int64_t n, std::uint32_t* out) {
  Draws<std::uint32_t>::row(key, row, first_column, n, out);
}

void random_bits(RngKey key, std::uint64_t row, std::uint64_t first_column, std::int64_t n, std::uint16_t* out) {
  Draws<std::uint16_t>::row(key, row, first_column, n, out);
}

void random_bits(RngKey key, std::uint64_t first_row, std::int64_t rows, std::uint64_t first_column, std::int64_t n,
                 std::uint16_t* out, std::int64_t stride) {
  using Halves = Draws<std::uint16_t>;
  if (rows <= 0 || n <= 0) return;
  Halves::check_place(first_row + static_cast<std::uint64_t>(rows), first_column, n);
  const std::int64_t blocks = (n + Halves::kPerBlock - 1) / Halves::kPerBlock;
  check<ValueError>(first_column % Halves::kPerBlock == 0 && (rows == 1 || stride >= blocks * Halves::kPerBlock),
                    "random_bits", "needs a first column that is a multiple of ", Halves::kPerBlock,
                    " and room for whole ones in a row; got columns from ", first_column, ", rows ", stride, " apart");
  Halves::blocks(key, first_row, rows, first_column, blocks, out, stride);
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
