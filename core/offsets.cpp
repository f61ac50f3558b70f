#include "tally/core/offsets.h"

#include <algorithm>
#include <vector>

namespace tally {

Offsets::Offsets() : Offsets(Tensor::zeros({1}, DType::i64)) {}

Offsets::Offsets(Tensor bounds) : bounds_(std::move(bounds)), data_(nullptr) {
  check<DTypeError>(bounds_.defined() && bounds_.dtype() == DType::i64, "offsets", "needs i64");
  check<ShapeError>(bounds_.rank() == 1 && bounds_.numel() >= 1, "offsets", "needs shape [sequences + 1]; got ",
                    bounds_.shape());
  bounds_ = bounds_.unique() ? bounds_.contiguous() : bounds_.clone();
  data_ = bounds_.data<std::int64_t>();
  check<ValueError>(data_[0] == 0, "offsets", "needs 0 at position 0; got ", data_[0]);
  for (std::int64_t i = 0; i < count(); ++i) {
    check<ValueError>(data_[i] <= data_[i + 1], "offsets", "must not fall; got ", data_[i], " then ", data_[i + 1],
                      " at position ", i + 1);
  }
}

Offsets Offsets::from_lengths(std::span<const std::int64_t> lengths) {
  std::vector<std::int64_t> bounds{0};
  for (const std::int64_t length : lengths) bounds.push_back(bounds.back() + length);
  return Offsets(Tensor::from(bounds, {static_cast<std::int64_t>(bounds.size())}));
}

Offsets Offsets::single(std::int64_t rows) { return Offsets(Tensor::from<std::int64_t>({0, rows}, {2})); }

std::int64_t Offsets::longest() const {
  std::int64_t longest = 0;
  for (std::int64_t i = 0; i < count(); ++i) longest = std::max(longest, length(i));
  return longest;
}

void Offsets::check_rows(std::int64_t rows, std::string_view op) const {
  check<ShapeError>(total() == rows, op, "needs offsets that end at the number of rows ", rows, "; got ", total());
}

}  // namespace tally
