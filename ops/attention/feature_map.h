#pragma once

#include <cstdint>

#include "tally/autograd/var.h"
#include "tally/core/words.h"

namespace tally::ops {

/// phi of queries and keys of linear attention, of a head's part x [d].
enum class FeatureKind : std::uint8_t {
  relu,           ///< max(x, 0)
  elu,            ///< elu(x) + 1 (Katharopoulos et al., arXiv 2006.16236)
  split_softmax,  ///< softmax of (x, -x), m = 2 d (Hedgehog, arXiv 2402.04347)
  unit,           ///< x / sqrt(|x|^2 + 1e-6), as keys of delta rules
  linrec,         ///< elu(x) brought to length 1 (LinRec, SIGIR 2023)
  taylor2,        ///< (1, x, x_i x_j / sqrt(2)), m = 1 + d + d^2: phi(q) phi(k) = 1 + s + s^2 / 2 with s = q k (Based)
};
constexpr auto words(FeatureKind) {
  using W = Word<FeatureKind>;
  return std::array{
      W{"relu", FeatureKind::relu}, W{"elu", FeatureKind::elu},       W{"split_softmax", FeatureKind::split_softmax},
      W{"unit", FeatureKind::unit}, W{"linrec", FeatureKind::linrec}, W{"taylor2", FeatureKind::taylor2}};
}

/// Added to the squared length of linrec: an elu of zeros has none, which the released code divides by.
inline constexpr double kLinRecEpsilon = 1e-12;

/// m, the features of a head of width d.
constexpr std::int64_t feature_width(FeatureKind kind, std::int64_t d) {
  switch (kind) {
    case FeatureKind::split_softmax:
      return 2 * d;
    case FeatureKind::taylor2:
      return 1 + d + d * d;
    default:
      return d;
  }
}

struct FeatureMapOptions {
  std::int64_t heads = 1;
  FeatureKind kind = FeatureKind::elu;
};

/// Features [T, heads * m] of rows x [T, heads * d], head by head. f32 or f64. Composed of ops that keep what their
/// gradients need. Throws ShapeError, DTypeError; ValueError for no heads.
Var feature_map(const Var& x, const FeatureMapOptions& options = {});

}  // namespace tally::ops
