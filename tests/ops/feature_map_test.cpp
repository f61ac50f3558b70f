#include "tally/ops/attention/feature_map.h"

#include <catch2/catch.hpp>
#include <cmath>

#include "tally/ops/catalog.h"

namespace feature_map_test {

using namespace tally;
using ops::FeatureKind;

TEST_CASE("inner products of Taylor features are the exponential's expansion", "[feature_map]") {
  const Tensor q = ops::sample_normal({7, 5}, 1), k = ops::sample_normal({7, 5}, 2);
  const auto dots = [](const Tensor& a, const Tensor& b) {
    std::vector<double> all;
    for (std::int64_t i = 0; i < a.dim(0); ++i) {
      double sum = 0;
      for (std::int64_t c = 0; c < a.dim(1); ++c)
        sum += a.data<double>()[i * a.dim(1) + c] * b.data<double>()[i * b.dim(1) + c];
      all.push_back(sum);
    }
    return all;
  };
  const std::vector<double> s = dots(q, k),
                            got = dots(ops::feature_map(Var(q), {.kind = FeatureKind::taylor2}).value(),
                                       ops::feature_map(Var(k), {.kind = FeatureKind::taylor2}).value());
  for (std::size_t i = 0; i < s.size(); ++i) CHECK(got[i] == Approx(1 + s[i] + s[i] * s[i] / 2));
}

TEST_CASE("features of heads are those of each alone", "[feature_map]") {
  const Tensor x = ops::sample_normal({9, 12}, 3);
  for (const auto& [word, kind] : ops::words(FeatureKind())) {
    INFO(word);
    const Tensor whole = ops::feature_map(Var(x), {.heads = 3, .kind = kind}).value();
    const std::int64_t m = ops::feature_width(kind, 4);
    CHECK(whole.shape() == Shape{9, 3 * m});
    for (std::int64_t head = 0; head < 3; ++head) {
      const Tensor alone =
          ops::feature_map(Var(x.slice(1, head * 4, head * 4 + 4).contiguous()), {.kind = kind}).value();
      CHECK(identical(alone, whole.slice(1, head * m, (head + 1) * m).contiguous()));
    }
  }
}

TEST_CASE("a row of zeros has features that are finite", "[feature_map]") {
  for (const auto& [word, kind] : ops::words(FeatureKind())) {
    INFO(word);
    CHECK(all_finite(ops::feature_map(Var(Tensor::zeros({1, 4})), {.kind = kind}).value()));
  }
}

}  // namespace feature_map_test
