#include "tally/recsys/run/convert_weights.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <set>
#include <unordered_map>

#include "tally/core/io/json_fields.h"
#include "tally/ops/elementwise/elementwise.h"

namespace tally::recsys {
namespace {

constexpr const char* kName = "weights";

/// Where a tensor of the model comes from.
struct MappedTensor {
  std::string path, from;
  std::int64_t skip = 0, part = 0, parts = 1;
  double factor = 1;
};

struct WeightMap {
  std::vector<MappedTensor> tensors;
  std::vector<std::string> unused;
};

WeightMap read_map(const Json& json) {
  JsonFields fields(json, "map");
  WeightMap map;
  const Json tensors = fields.require<Json>("tensors");
  check<ConfigError>(tensors.is(Json::Kind::object), "map.tensors", "needs an object of names by paths");
  for (const auto& [path, value] : tensors.members()) {
    MappedTensor each{.path = path, .from = {}};
    if (value.is(Json::Kind::string)) {
      each.from = value.as_string();
    } else {
      JsonFields of(value, "map.tensors." + path);
      each.from = of.require<std::string>("from");
      each.skip = of.get<std::int64_t>("skip", 0);
      each.part = of.get<std::int64_t>("part", 0);
      each.parts = of.get<std::int64_t>("parts", 1);
      each.factor = of.get<double>("factor", 1);
      of.finish();
    }
    const auto stars = [](const std::string& text) { return std::count(text.begin(), text.end(), '*'); };
    check<ConfigError>(each.parts >= 1 && each.part >= 0 && each.part < each.parts, "map.tensors." + path,
                       "needs a part in [0, parts); got ", each.part, " of ", each.parts);
    check<ConfigError>(each.skip >= 0, "map.tensors." + path, "needs to skip at least 0; got ", each.skip);
    check<ConfigError>(stars(path) <= 1 && stars(each.from) <= stars(path), "map.tensors." + path,
                       "needs at most one * in a path, and one in the name only where the path has it; got '",
                       each.from, "'");
    map.tensors.push_back(std::move(each));
  }
  map.unused = fields.get<std::vector<std::string>>("unused", {});
  fields.finish();
  return map;
}

/// What * of a pattern stands for in a text that matches; nothing where it does not. A pattern without * is itself.
std::optional<std::string> star_in(const std::string& pattern, const std::string& text) {
  const std::size_t star = pattern.find('*');
  if (star == std::string::npos) return pattern == text ? std::optional<std::string>("") : std::nullopt;
  const std::string_view before = std::string_view(pattern).substr(0, star),
                         after = std::string_view(pattern).substr(star + 1);
  if (text.size() < before.size() + after.size() || !text.starts_with(before) || !text.ends_with(after)) return {};
  return text.substr(before.size(), text.size() - before.size() - after.size());
}

Shape without_ones(const Shape& shape) {
  std::vector<std::int64_t> sizes;
  for (int d = 0; d < shape.rank(); ++d) {
    if (shape[d] != 1) sizes.push_back(shape[d]);
  }
  return Shape(std::span<const std::int64_t>(sizes));
}

/// The rows of items by id.
Tensor rows_of_items(const Tensor& table, const IdMap& items, const std::vector<std::string>& rows,
                     const std::string& path) {
  if (rows.empty()) return table;
  check<IoError>(table.rank() >= 1 && table.dim(0) == static_cast<std::int64_t>(rows.size()), kName,
                 "needs an id for "
                 "each of the rows of what becomes ",
                 path, ", ", table.shape(), "; got ", rows.size(), " ids");
  std::unordered_map<std::string_view, std::int64_t> place;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const auto [known, added] = place.emplace(rows[i], static_cast<std::int64_t>(i));
    check<IoError>(added || !items.find(rows[i]), kName, "need one row for each item; '", rows[i],
                   "' is the id of rows ", known->second + 1, " and ", i + 1);
  }
  Shape shape = table.shape();
  shape.set(0, items.size());
  Tensor result(shape, table.dtype());
  const Tensor dense = table.contiguous();
  const std::size_t bytes = dense.bytes() / rows.size();
  for (std::int32_t item = 0; item < items.size(); ++item) {
    const auto found = place.find(items.name(item));
    check<IoError>(found != place.end(), kName, "needs a row for each item; none has the id '", items.name(item), "'");
    std::memcpy(result.mutable_raw_data() + static_cast<std::size_t>(item) * bytes,
                dense.raw_data() + static_cast<std::size_t>(found->second) * bytes, bytes);
  }
  return result;
}

}  // namespace

void convert_weights(SequenceModel& model, const IdMap& items, const std::map<std::string, Tensor>& tensors,
                     const Json& json, const std::vector<std::string>& rows) {
  const WeightMap map = read_map(json);
  const std::vector<std::string> per_item = model.item_tensors();
  const nn::TensorList state = model.state();
  std::vector<Tensor> values;
  std::set<std::string> taken;
  std::string missing;
  const auto list = [](std::string& text, const std::string& item) { text += (text.empty() ? "" : ", ") + item; };
  for (const auto& [path, tensor] : state) {
    values.emplace_back();
    const MappedTensor* mapped = nullptr;
    std::string name;
    for (const MappedTensor& each : map.tensors) {
      const std::optional<std::string> star = star_in(each.path, path);
      if (!star) continue;
      mapped = &each, name = each.from;
      if (const std::size_t at = name.find('*'); at != std::string::npos) name.replace(at, 1, *star);
      break;
    }
    const auto found = mapped == nullptr ? tensors.end() : tensors.find(name);
    if (found == tensors.end()) {
      list(missing, mapped == nullptr ? path + " (not in the map)" : path + " (from " + name + ')');
      continue;
    }
    taken.insert(name);
    Tensor value = found->second;
    check<IoError>(is_floating(value.dtype()) == is_floating(tensor->dtype()), kName, "do not fit: ", path, " is of ",
                   tensor->dtype(), ", ", name, " of ", value.dtype());
    check<IoError>(
        value.rank() >= 1 && mapped->skip <= value.dim(0) && (value.dim(0) - mapped->skip) % mapped->parts == 0, kName,
        "cannot be cut: ", name, ' ', value.shape(), " has no ", mapped->parts, " equal parts for ", path,
        " behind the first ", mapped->skip);
    const std::int64_t size = (value.dim(0) - mapped->skip) / mapped->parts;
    const std::int64_t begin = mapped->skip + mapped->part * size;
    value = value.slice(0, begin, begin + size);
    if (std::find(per_item.begin(), per_item.end(), path) != per_item.end()) {
      value = rows_of_items(value, items, rows, path);
    }
    check<IoError>(without_ones(value.shape()) == without_ones(tensor->shape()), kName, "do not fit: ", path, " needs ",
                   tensor->shape(), "; got ", value.shape(), " of ", name);
    value = value.to(tensor->dtype()).contiguous().reshape(tensor->shape());
    if (mapped->factor != 1) value = (Var(value) * mapped->factor).value();
    check<IoError>(all_finite(value), kName, "need finite numbers within the range of ", tensor->dtype(), "; ", name,
                   " has others for ", path);
    values.back() = value;
  }
  std::string left;
  for (const auto& [name, tensor] : tensors) {
    const bool unused = std::any_of(map.unused.begin(), map.unused.end(), [&name = name](const std::string& pattern) {
      return star_in(pattern, name).has_value();
    });
    if (!taken.contains(name) && !unused) list(left, name);
  }
  check<IoError>(missing.empty() && left.empty(), kName, "are not those of ", model.name(),
                 missing.empty() ? "" : "; missing: " + missing, left.empty() ? "" : "; left over: " + left);
  for (std::size_t i = 0; i < state.size(); ++i) state[i].tensor->copy_from(values[i]);
}

}  // namespace tally::recsys
