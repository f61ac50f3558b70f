// Compiled once per SIMD target (Highway re-includes this file).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tally/ops/kernels/rotary.cpp"
#include <hwy/foreach_target.h>
// Highway must come after foreach_target.
#include <hwy/highway.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <deque>
#include <memory>
#include <mutex>
#include <numbers>
#include <optional>
#include <vector>

#include "tally/core/parallel.h"
#include "tally/ops/kernels/rotary.h"
#include "tally/ops/kernels/scratch.h"
#include "tally/ops/kernels/vectors-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tally::kernels {
namespace HWY_NAMESPACE {
namespace {

using F = hn::ScalableTag<float>;

void turn_halves_f32(const float* x, float* y, const float* cosines, const float* sines, std::int64_t pairs) {
  const F d;
  for_each_vector(d, pairs, [&](std::int64_t j, std::int64_t lanes) HWY_ATTR {
    const auto c = load_lanes(d, cosines + j, lanes), s = load_lanes(d, sines + j, lanes);
    const auto a = load_lanes(d, x + j, lanes), b = load_lanes(d, x + pairs + j, lanes);
    store_lanes(hn::NegMulAdd(b, s, hn::Mul(a, c)), d, y + j, lanes);
    store_lanes(hn::MulAdd(a, s, hn::Mul(b, c)), d, y + pairs + j, lanes);
  });
}

void turn_interleaved_f32(const float* x, float* y, const float* cosines, const float* sines, std::int64_t pairs) {
  const F d;
  const auto all = static_cast<std::int64_t>(hn::Lanes(d));
  HWY_ALIGN float part[2 * HWY_MAX_BYTES / sizeof(float)] = {};
  for_each_vector(d, pairs, [&](std::int64_t j, std::int64_t lanes) HWY_ATTR {
    const auto c = load_lanes(d, cosines + j, lanes), s = load_lanes(d, sines + j, lanes);
    const float* from = x + 2 * j;
    float* to = y + 2 * j;
    if (lanes < all) {
      std::copy_n(from, 2 * lanes, part);
      from = to = part;
    }
    hn::Vec<F> a, b;
    hn::LoadInterleaved2(d, from, a, b);
    hn::StoreInterleaved2(hn::NegMulAdd(b, s, hn::Mul(a, c)), hn::MulAdd(a, s, hn::Mul(b, c)), d, to);
    if (lanes < all) std::copy_n(part, 2 * lanes, y + 2 * j);
  });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace tally::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tally::kernels {
namespace {

HWY_EXPORT(turn_halves_f32);
HWY_EXPORT(turn_interleaved_f32);

constexpr std::int64_t kRows = 64;     // of a task
constexpr std::int64_t kFineBits = 6;  // a position's lowest bits
constexpr std::int64_t kFine = 1 << kFineBits;

struct Turn {
  double cosine, sine;
};

/// Angles by which pairs turn from one position to the next, and turns that every call of such a base needs.
class Frequencies {
 public:
  Frequencies(std::int64_t pairs, double base)
      : pairs_(pairs), base_(base), frequencies_(static_cast<std::size_t>(pairs)) {
    for (std::int64_t i = 0; i < pairs; ++i) {
      frequencies_[static_cast<std::size_t>(i)] =
          std::pow(static_cast<long double>(base), -static_cast<long double>(i) / static_cast<long double>(pairs));
    }
    fine_ = turns(1);
    std::int64_t step = kFine;
    for (std::vector<Turn>& digit : digits_) {
      digit = turns(step);
      step *= kFine;
    }
  }

  /// Those of the last calls are kept: their sines and cosines would cost as much as the rows of a small call.
  static std::shared_ptr<const Frequencies> of(std::int64_t pairs, double base) {
    static std::mutex mutex;
    static std::deque<std::shared_ptr<const Frequencies>> kept;
    const std::lock_guard lock(mutex);
    for (const auto& each : kept) {
      if (each->pairs_ == pairs && each->base_ == base) return each;
    }
    if (kept.size() == 8) kept.pop_front();
    return kept.emplace_back(std::make_shared<const Frequencies>(pairs, base));
  }

  const Turn* fine(std::int64_t position) const { return fine_.data() + position * pairs_; }
  /// Of a multiple of kFine; null where that is not kept.
  const Turn* kept(std::int64_t multiple) const {
    return multiple >= 0 && multiple < kFine ? digits_[0].data() + multiple * pairs_ : nullptr;
  }
  /// Of any multiple: the product of the turns of its digits. Histories of up to 16 million events thus take as long
  /// an event as short ones. `room` is for what is not kept.
  const Turn* of_multiple(std::int64_t multiple, Turn* room) const {
    if (const Turn* turn = kept(multiple)) return turn;
    if (multiple < 0 || multiple >= kFine * kFine * kFine) return made(multiple << kFineBits, room);
    std::copy_n(kept(multiple % kFine), pairs_, room);
    for (std::size_t k = 1; (multiple /= kFine) > 0; ++k) {
      const Turn* digit = digits_[k].data() + multiple % kFine * pairs_;
      for (std::int64_t i = 0; i < pairs_; ++i) {
        room[i] = {room[i].cosine * digit[i].cosine - room[i].sine * digit[i].sine,
                   room[i].sine * digit[i].cosine + room[i].cosine * digit[i].sine};
      }
    }
    return room;
  }

 private:
  const Turn* made(std::int64_t position, Turn* to) const {
    constexpr long double kWhole = 2 * std::numbers::pi_v<long double>, kNear = 4096;
    for (std::int64_t i = 0; i < pairs_; ++i) {
      const long double angle = static_cast<long double>(position) * frequencies_[static_cast<std::size_t>(i)];
      // Of many turns the rounding of 2 pi would show; the functions in extended precision know it to any length, but
      // take longer.
      if (std::abs(angle) < kNear) {
        const auto rest = static_cast<double>(std::remainder(angle, kWhole));
        to[i] = {std::cos(rest), std::sin(rest)};
      } else {
        to[i] = {static_cast<double>(std::cos(angle)), static_cast<double>(std::sin(angle))};
      }
    }
    return to;
  }

  /// Of the first kFine multiples of a step.
  std::vector<Turn> turns(std::int64_t step) const {
    std::vector<Turn> all(static_cast<std::size_t>(kFine * pairs_));
    for (std::int64_t i = 0; i < kFine; ++i) made(i * step, all.data() + i * pairs_);
    return all;
  }

  std::int64_t pairs_;
  double base_;
  std::vector<long double> frequencies_;
  std::vector<Turn> fine_;                   // of the first kFine positions
  std::array<std::vector<Turn>, 3> digits_;  // of multiples of kFine, of its square and of its cube
};

/// The turns of positions. A position is a multiple of kFine and a rest, and its turn the product of theirs. Positions
/// below kFine^2 find both; of others the multiples have a table of their own, or, where that would be larger than the
/// rows, are computed as they are read, the same bits.
class Turns {
 public:
  Turns(std::span<const std::int64_t> positions, std::int64_t pairs, double base)
      : pairs_(pairs), frequencies_(Frequencies::of(pairs, base)) {
    if (positions.empty()) return;
    const auto [least, most] = std::minmax_element(positions.begin(), positions.end());
    first_coarse_ = *least >> kFineBits;
    const std::int64_t last = *most >> kFineBits, count = last - first_coarse_ + 1;
    if (frequencies_->kept(first_coarse_) != nullptr && frequencies_->kept(last) != nullptr) return;
    if (count > static_cast<std::int64_t>(positions.size())) return;
    coarse_ = Table(count * pairs_);
    parallel_for(count, kFine / 8, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        Turn* to = coarse_.data() + i * pairs_;
        const Turn* turn = frequencies_->of_multiple(first_coarse_ + i, to);
        if (turn != to) std::copy_n(turn, pairs_, to);
      }
    });
  }

  /// Of one position; `room` of `pairs` turns is for those that no table has.
  template <class T>
  void of(std::int64_t position, bool inverse, Turn* room, T* cosines, T* sines) const {
    const std::int64_t multiple = position >> kFineBits;
    const Turn* a = frequencies_->fine(position & (kFine - 1));
    const Turn* b = coarse_.absent() ? frequencies_->of_multiple(multiple, room)
                                     : coarse_.data() + (multiple - first_coarse_) * pairs_;
    for (std::int64_t i = 0; i < pairs_; ++i) {
      cosines[i] = static_cast<T>(a[i].cosine * b[i].cosine - a[i].sine * b[i].sine);
      const double sine = a[i].sine * b[i].cosine + a[i].cosine * b[i].sine;
      sines[i] = static_cast<T>(inverse ? -sine : sine);
    }
  }

 private:
  /// A table in the memory of kernels' buffers.
  class Table {
   public:
    Table() = default;
    explicit Table(std::int64_t turns) : doubles_(2 * turns) {}
    bool absent() const { return doubles_.absent(); }
    Turn* data() { return reinterpret_cast<Turn*>(doubles_.data()); }
    const Turn* data() const { return reinterpret_cast<const Turn*>(doubles_.data()); }

   private:
    Scratch<double> doubles_;
  };

  std::int64_t pairs_, first_coarse_ = 0;
  std::shared_ptr<const Frequencies> frequencies_;
  Table coarse_;
};

void turn(bool interleaved, const float* x, float* y, const float* cosines, const float* sines, std::int64_t pairs) {
  if (interleaved) {
    HWY_DYNAMIC_DISPATCH(turn_interleaved_f32)(x, y, cosines, sines, pairs);
  } else {
    HWY_DYNAMIC_DISPATCH(turn_halves_f32)(x, y, cosines, sines, pairs);
  }
}

void turn(bool interleaved, const double* x, double* y, const double* cosines, const double* sines,
          std::int64_t pairs) {
  for (std::int64_t i = 0; i < pairs; ++i) {
    const std::int64_t first = interleaved ? 2 * i : i, second = interleaved ? 2 * i + 1 : pairs + i;
    const double a = x[first], b = x[second];
    y[first] = a * cosines[i] - b * sines[i];
    y[second] = b * cosines[i] + a * sines[i];
  }
}

}  // namespace

template <class T>
void rotate(const RotaryPlan<T>& plan, bool inverse, const T* x, T* y) {
  const std::int64_t pairs = plan.pairs, turned = 2 * pairs, width = plan.heads * plan.head_width;
  const auto rows = static_cast<std::int64_t>(plan.positions.size());
  const bool by_base = plan.cosines == nullptr;
  std::optional<Turns> turns;
  if (by_base) turns.emplace(plan.positions, pairs, plan.base);
  parallel_for(rows, kRows, [&](std::int64_t begin, std::int64_t end) {
    std::vector<T> own(static_cast<std::size_t>(turned));
    std::vector<Turn> room(static_cast<std::size_t>(by_base ? pairs : 0));
    for (std::int64_t row = begin; row < end; ++row) {
      const std::int64_t position = plan.positions[static_cast<std::size_t>(row)];
      const T *cosines = own.data(), *sines = own.data() + pairs;
      if (by_base) {
        turns->of(position, inverse, room.data(), own.data(), own.data() + pairs);
      } else {
        cosines = plan.cosines + position * pairs;
        const T* given = plan.sines + position * pairs;
        if (inverse) {
          std::transform(given, given + pairs, own.data() + pairs, [](T sine) { return -sine; });
        } else {
          sines = given;
        }
      }
      for (std::int64_t head = 0; head < plan.heads; ++head) {
        const T* from = x + row * width + head * plan.head_width;
        T* to = y + row * width + head * plan.head_width;
        turn(plan.interleaved, from, to, cosines, sines, pairs);
        if (from != to) std::copy(from + turned, from + plan.head_width, to + turned);
      }
    }
  });
}

template void rotate(const RotaryPlan<float>&, bool, const float*, float*);
template void rotate(const RotaryPlan<double>&, bool, const double*, double*);

void packed_positions(std::span<const std::int64_t> bounds, const std::int64_t* starts, std::int64_t* positions) {
  for (std::size_t i = 0; i + 1 < bounds.size(); ++i) {
    const std::int64_t start = starts == nullptr ? 0 : starts[i];
    for (std::int64_t t = bounds[i]; t < bounds[i + 1]; ++t) positions[t] = start + (t - bounds[i]);
  }
}

}  // namespace tally::kernels
#endif  // HWY_ONCE
