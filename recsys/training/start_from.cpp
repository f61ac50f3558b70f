#include "tally/recsys/training/start_from.h"

#include <algorithm>
#include <cstring>

namespace tally::recsys {
namespace {

/// Copies row `from[i]` of a tensor to row i of another of the same width, where there is one (-1: none).
void copy_rows(const Tensor& source, const std::vector<std::int32_t>& from, Tensor& target) {
  const Tensor rows = source.contiguous();
  check<ShapeError>(target.is_contiguous(), "start_from", "needs contiguous weights; got ", target.shape());
  const std::size_t bytes = from.empty() ? 0 : target.bytes() / from.size();
  std::byte* const to = target.mutable_raw_data();
  const std::byte* const read = rows.raw_data();
  for (std::size_t i = 0; i < from.size(); ++i) {
    if (from[i] >= 0) std::memcpy(to + i * bytes, read + static_cast<std::size_t>(from[i]) * bytes, bytes);
  }
}

bool same_but_rows(const Tensor& a, const Tensor& b) {
  if (a.dtype() != b.dtype() || a.rank() != b.rank()) return false;
  for (int d = 1; d < a.rank(); ++d) {
    if (a.dim(d) != b.dim(d)) return false;
  }
  return true;
}

}  // namespace

StartedFrom start_from(SequenceModel& model, const IdMap& items, SequenceModel& other, const IdMap& other_items,
                       RngKey key) {
  StartedFrom result;
  std::vector<std::int32_t> place(static_cast<std::size_t>(items.size()), -1);
  for (std::int32_t i = 0; i < items.size(); ++i) {
    const std::optional<std::int32_t> known = other_items.find(items.name(i));
    if (known) place[static_cast<std::size_t>(i)] = *known;
    ++(known ? result.known_items : result.new_items);
  }
  result.left_items = other_items.size() - result.known_items;
  check<IoError>(result.known_items > 0, "start_from", "needs a run with items of this data; none of its ",
                 other_items.size(), " items is among these ", items.size());
  const std::vector<std::string> per_item = model.item_tensors(), others_per_item = other.item_tensors();
  const auto holds = [](const std::vector<std::string>& list, const std::string& path) {
    return std::find(list.begin(), list.end(), path) != list.end();
  };
  const nn::TensorList source = other.state();
  for (const auto& [path, tensor] : model.state()) {
    const auto found =
        std::find_if(source.begin(), source.end(), [&path = path](const auto& each) { return each.path == path; });
    if (found == source.end() || holds(per_item, path) != holds(others_per_item, path)) continue;
    if (holds(per_item, path)) {
      if (!same_but_rows(*found->tensor, *tensor)) continue;
      copy_rows(*found->tensor, place, *tensor);
    } else {
      if (found->tensor->shape() != tensor->shape() || found->tensor->dtype() != tensor->dtype()) continue;
      tensor->copy_from(*found->tensor);
    }
    result.tensors.push_back(path);
  }
  check<IoError>(!result.tensors.empty(), "start_from", "needs a run with a weight of the name and shape of one of ",
                 model.name(), "; ", other.name(), " there has none");
  model.initialize_from_weights(key);
  return result;
}

}  // namespace tally::recsys
