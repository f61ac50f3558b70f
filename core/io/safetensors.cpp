// Safetensors bytes to tensors. Everything here distrusts the file.

#include "tally/core/io/safetensors.h"

#include <algorithm>
#include <array>
#include <optional>
#include <vector>

#include "tally/core/io/json_members.h"
#include "tally/core/io/stored_elements.h"

namespace tally {
namespace {

using detail::ByteSource;
using detail::StoredType;

/// A tensor as the header describes it; offsets from the first byte after the header.
struct Entry {
  std::string name;
  StoredType type;
  Shape shape;
  std::int64_t begin;
  std::int64_t end;
};

std::optional<StoredType> stored_type(std::string_view name) {
  constexpr std::array<std::pair<std::string_view, StoredType>, 13> kTypes = {{{"BOOL", StoredType::boolean},
                                                                               {"U8", StoredType::u8},
                                                                               {"I8", StoredType::i8},
                                                                               {"I16", StoredType::i16},
                                                                               {"U16", StoredType::u16},
                                                                               {"F16", StoredType::f16},
                                                                               {"BF16", StoredType::bf16},
                                                                               {"I32", StoredType::i32},
                                                                               {"U32", StoredType::u32},
                                                                               {"F32", StoredType::f32},
                                                                               {"F64", StoredType::f64},
                                                                               {"I64", StoredType::i64},
                                                                               {"U64", StoredType::u64}}};
  for (const auto& [known, type] : kTypes) {
    if (known == name) return type;
  }
  return std::nullopt;
}

/// Values of one member of the header, which metadata are the longest of.
constexpr std::int64_t kMostMemberValues = 100'000;

/// Reads one file; the members say what every message needs.
class Reader {
 public:
  Reader(ByteSource& source, const SafetensorsLimits& limits) : source_(source), limits_(limits) {}

  TensorFile read() {
    TensorFile result;
    const std::vector<Entry> entries = read_header(result.metadata);
    check_tiling(entries);
    for (const Entry& entry : entries) {
      result.tensors.emplace(entry.name, detail::read_elements(source_, data_begin_ + entry.begin, entry.type,
                                                               entry.shape, false, where(entry.name)));
    }
    return result;
  }

 private:
  template <class... Parts>
  void require(bool ok, const Parts&... parts) const {
    check<IoError>(ok, source_.name(), parts...);
  }
  std::string where(std::string_view tensor) const {
    constexpr std::size_t kShown = 100;
    return detail::join(source_.name(), ": tensor \"", tensor.substr(0, kShown), tensor.size() > kShown ? "..." : "",
                        '"');
  }

  /// What the header says of tensors. A member of it becomes an entry before the next is read: its JSON would take ten
  /// times the memory.
  std::vector<Entry> read_header(std::map<std::string, std::string>& metadata) {
    require(source_.size() >= 8, "needs at least the 8 bytes of the header length; got ", source_.size());
    std::array<unsigned char, 8> bytes{};
    source_.read(bytes.data(), 8, 0);
    std::uint64_t length = 0;
    for (std::size_t i = 0; i < 8; ++i) length |= static_cast<std::uint64_t>(bytes[i]) << (8 * i);
    require(length > 0, "has a header length of 0 at offset 0; the least is 2, for {}");
    require(length <= static_cast<std::uint64_t>(limits_.max_header_bytes), "needs a header of at most ",
            limits_.max_header_bytes, " bytes; the length at offset 0 says ", length);
    require(length <= static_cast<std::uint64_t>(source_.size() - 8),
            "ends within its header: the length at offset 0 says ", length, " and ", source_.size() - 8,
            " bytes follow");
    std::string text(static_cast<std::size_t>(length), '\0');
    source_.read(text.data(), text.size(), 8);
    data_begin_ = 8 + static_cast<std::int64_t>(length);
    // The header's column 1 is offset 8 of the file. A tensor is at most 12 values: itself, three fields, two offsets,
    // sizes.
    const JsonLimits json_limits{.max_bytes = limits_.max_header_bytes, .max_values = (limits_.max_tensors + 1) * 16};
    std::vector<Entry> entries;
    parse_json_members(text, source_.name() + ": header", json_limits, kMostMemberValues,
                       [&](const JsonMember& member) {
                         if (member.name == "__metadata__") {
                           metadata = read_metadata(member.value);
                           return;
                         }
                         require(static_cast<std::int64_t>(entries.size()) < limits_.max_tensors, "needs at most ",
                                 limits_.max_tensors, " tensors; got more");
                         entries.push_back(read_entry(member));
                       });
    return entries;
  }

  std::map<std::string, std::string> read_metadata(const Json& value) const {
    require(value.is(Json::Kind::object), "needs __metadata__ to be an object of strings; got ", name_of(value.kind()));
    std::map<std::string, std::string> metadata;
    for (const auto& [key, text] : value.members()) {
      require(text.is(Json::Kind::string), "needs strings in __metadata__; \"", key, "\" is ", name_of(text.kind()));
      metadata.emplace(key, text.as_string());
    }
    return metadata;
  }

  Entry read_entry(const JsonMember& member) const {
    const std::string place = where(member.name);
    const auto need = [&](bool ok, const auto&... parts) { check<IoError>(ok, place, parts...); };
    need(static_cast<std::int64_t>(member.name.size()) <= limits_.max_name_bytes, "needs a name of at most ",
         limits_.max_name_bytes, " bytes; got ", member.name.size());
    need(member.value.is(Json::Kind::object), "needs an object; got ", name_of(member.value.kind()));
    for (const JsonMember& field : member.value.members()) {
      need(field.name == "dtype" || field.name == "shape" || field.name == "data_offsets", "has the unknown field \"",
           field.name, "\"");
    }
    const auto field = [&](std::string_view name) -> const Json& {
      const Json* found = member.value.find(name);
      need(found != nullptr, "lacks the field ", name);
      return *found;
    };
    const Json& dtype = field("dtype");
    need(dtype.is(Json::Kind::string), "needs dtype to be a string; got ", name_of(dtype.kind()));
    const std::optional<StoredType> type = stored_type(dtype.as_string());
    need(type.has_value(), "has the dtype \"", dtype.as_string(),
         "\"; known are BOOL, U8, I8, I16, U16, F16, BF16, I32, U32, F32, F64, I64, U64");

    const std::vector<std::int64_t> sizes = read_numbers(field("shape"), "shape", place);
    need(sizes.size() <= static_cast<std::size_t>(kMaxRank), "needs at most ", kMaxRank, " dimensions; got ",
         sizes.size());
    const std::vector<std::int64_t> offsets = read_numbers(field("data_offsets"), "data_offsets", place);
    need(offsets.size() == 2, "needs two data_offsets; got ", offsets.size());
    need(offsets[0] <= offsets[1], "has data_offsets that end before they begin: [", offsets[0], ", ", offsets[1], "]");
    std::int64_t bytes = 0;
    need(detail::checked_bytes(sizes.data(), sizes.size(), detail::size_of(*type), bytes),
         "has a shape whose size in bytes does not fit into 63 bits: ", field("shape").dump());
    need(bytes == offsets[1] - offsets[0], "needs ", bytes, " bytes for its shape ", field("shape").dump(),
         "; its data_offsets [", offsets[0], ", ", offsets[1], "] hold ", offsets[1] - offsets[0]);
    return {member.name, *type, Shape(std::span(sizes)), offsets[0], offsets[1]};
  }

  static std::vector<std::int64_t> read_numbers(const Json& value, std::string_view field, const std::string& place) {
    check<IoError>(value.is(Json::Kind::array), place, "needs ", field, " to be an array; got ", name_of(value.kind()));
    std::vector<std::int64_t> numbers;
    for (const Json& element : value.elements()) {
      check<IoError>(element.is(Json::Kind::integer) && element.as_integer() >= 0, place, "needs ", field,
                     " of integers that are not negative; got ", name_of(element.kind()), " ",
                     element.size() == 0 ? element.dump().substr(0, 40) : "...");
      numbers.push_back(element.as_integer());
    }
    return numbers;
  }

  /// The one rule against holes, overlaps, polyglots and small files that claim large tensors: in the order of their
  /// offsets, each tensor begins where the one before ends, the first at 0, the last at the end of the file.
  void check_tiling(const std::vector<Entry>& entries) const {
    std::vector<const Entry*> order;
    for (const Entry& entry : entries) order.push_back(&entry);
    std::sort(order.begin(), order.end(), [](const Entry* a, const Entry* b) {
      return a->begin != b->begin ? a->begin < b->begin : a->end < b->end;
    });
    const std::int64_t available = source_.size() - data_begin_;
    std::int64_t reached = 0;
    for (const Entry* entry : order) {
      check<IoError>(entry->end <= available, where(entry->name), "ends at offset ", data_begin_ + available,
                     " where the file does; its data_offsets [", entry->begin, ", ", entry->end, "] need ",
                     entry->end - available, " bytes more");
      check<IoError>(entry->begin <= reached, where(entry->name), "leaves a hole of ", entry->begin - reached,
                     " bytes before it, at offset ", data_begin_ + reached);
      check<IoError>(entry->begin == reached, where(entry->name), "overlaps the tensor before it, at offset ",
                     data_begin_ + entry->begin);
      reached = entry->end;
    }
    require(reached == available, "has ", available - reached, " bytes that belong to no tensor, from offset ",
            data_begin_ + reached, " on");
  }

  ByteSource& source_;
  const SafetensorsLimits& limits_;
  std::int64_t data_begin_ = 0;
};

}  // namespace

const Tensor& TensorFile::at(const std::string& name) const {
  const auto found = tensors.find(name);
  if (found != tensors.end()) return found->second;
  std::string names;
  for (const auto& [other, tensor] : tensors) {
    if (names.size() > 400) {
      names += ", ...";
      break;
    }
    names += (names.empty() ? "" : ", ") + other;
  }
  fail<IndexError>("tensors", "needs a tensor \"", name, "\"; got ", names.empty() ? "none" : names);
}

TensorFile load_safetensors(const std::filesystem::path& path, const SafetensorsLimits& limits) {
  ByteSource source(path);
  return Reader(source, limits).read();
}

TensorFile decode_safetensors(std::string_view bytes, const std::string& name, const SafetensorsLimits& limits) {
  ByteSource source(bytes, name);
  return Reader(source, limits).read();
}

}  // namespace tally
