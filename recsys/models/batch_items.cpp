#include "tally/recsys/models/batch_items.h"

#include "tally/core/error.h"

namespace tally::recsys {

BatchItems BatchItems::all(std::int64_t catalogue) {
  BatchItems items;
  items.ids_ = Tensor::arange(catalogue, DType::i32);
  items.catalogue_ = catalogue;
  return items;
}

BatchItems BatchItems::marked(std::span<const std::uint8_t> marks, bool all_candidates) {
  BatchItems items;
  items.all_candidates_ = all_candidates;
  items.catalogue_ = static_cast<std::int64_t>(marks.size());
  items.row_of_ = Tensor({items.catalogue_}, DType::i32);
  auto row_of = items.row_of_.mutable_span<std::int32_t>();
  std::vector<std::int32_t> ids;
  for (std::size_t i = 0; i < marks.size(); ++i) {
    row_of[i] = marks[i] != 0 ? static_cast<std::int32_t>(ids.size()) : -1;
    if (marks[i] != 0) ids.push_back(static_cast<std::int32_t>(i));
  }
  items.ids_ = Tensor::from(ids, {static_cast<std::int64_t>(ids.size())});
  if (items.is_all()) items.row_of_ = Tensor();
  return items;
}

Tensor BatchItems::rows(const Tensor& items) const {
  Tensor result(items.shape(), DType::i32);
  const Tensor source = items.contiguous();
  const auto* item = source.data<std::int32_t>();
  const auto* row_of = row_of_.defined() ? row_of_.data<std::int32_t>() : nullptr;
  auto* out = result.mutable_data<std::int32_t>();
  for (std::int64_t i = 0; i < items.numel(); ++i) {
    const std::int32_t id = item[i];
    out[i] = row_of == nullptr || id < 0 || id >= catalogue_ ? id : row_of[id];
    const bool absent = id < -1 || id >= catalogue_ || (id >= 0 && out[i] < 0);
    check<IndexError>(!absent, "BatchItems", "needs items of the batch; got ", id, " at position ", i);
  }
  return result;
}

}  // namespace tally::recsys
