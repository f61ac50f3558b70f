#include <catch2/catch.hpp>

#include "tally/recsys/models/sasrec.h"

namespace attention_times_test {

using namespace tally;
using namespace tally::recsys;

namespace {

/// Rows of the events' times: an attention that sees when events were.
struct Clock {
  std::int64_t width = 0;
  static constexpr void fields(auto& self, auto&& visit) { visit("width", self.width); }
  static Clock make(const NoOptions&, const nn::AttentionSettings& settings, RngKey) { return {settings.width}; }
  Var operator()(const Var&, const Var&, const nn::Sequence& sequence, const nn::Context&) const {
    REQUIRE(sequence.times.defined());
    Tensor rows({sequence.offsets.total(), width});
    for (std::int64_t i = 0; i < rows.numel(); ++i) {
      rows.mutable_data<float>()[i] = static_cast<float>(sequence.times.data<double>()[i / width] * (i % width));
    }
    return Var(rows);
  }
  std::string layout() const { return ""; }
};

}  // namespace

TEST_CASE("an attention of one's own sees the times of events", "[sasrec]") {
  nn::AttentionKinds kinds = nn::attention_kinds();
  kinds.add(nn::attention_row<Clock>("clock", "when it was", NoOptions{}));
  const SasRec model = SasRec::make({.items = 5, .width = 4, .blocks = 1, .attention = {kinds, "clock"}}, RngKey{1});
  const std::vector<std::int32_t> items{3, 1, 4};
  const std::vector<double> early{1, 2, 5}, late{1, 2, 9};
  const std::vector<std::span<const std::int32_t>> histories{items};
  const auto rows = [&](const std::vector<double>& times) {
    const std::vector<std::span<const double>> when{times};
    return model.encode(pack(histories, when), {}).value().to_doubles();
  };
  const std::vector<double> a = rows(early), b = rows(late);
  for (std::size_t i = 0; i < 8; ++i) CHECK(a[i] == b[i]);
  CHECK(a[9] != b[9]);
}

}  // namespace attention_times_test
