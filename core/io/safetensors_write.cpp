// Tensors to safetensors bytes.

#include <algorithm>
#include <array>
#include <vector>

#include "tally/core/io/file.h"
#include "tally/core/io/json.h"
#include "tally/core/io/safetensors.h"

namespace tally {
namespace {

constexpr std::size_t kMaxWrittenHeader = 100'000'000;

/// Name in the format, and place in its order of types; files hold the types of the highest place first.
struct TypeInFile {
  std::string_view name;
  int place;
};

TypeInFile type_in_file(DType dtype) {
  switch (dtype) {
    case DType::u8:
      return {"U8", 0};
    case DType::i32:
      return {"I32", 1};
    case DType::f32:
      return {"F32", 2};
    case DType::f64:
      return {"F64", 3};
    case DType::i64:
      return {"I64", 4};
  }
  return {"F32", 2};
}

using NamedTensor = std::pair<const std::string, Tensor>;

std::vector<const NamedTensor*> in_file_order(const std::map<std::string, Tensor>& tensors) {
  std::vector<const NamedTensor*> order;
  for (const NamedTensor& entry : tensors) order.push_back(&entry);
  std::stable_sort(order.begin(), order.end(), [](const NamedTensor* a, const NamedTensor* b) {
    return type_in_file(a->second.dtype()).place > type_in_file(b->second.dtype()).place;
  });
  return order;
}

void check_text(std::string_view what, std::string_view text) {
  check<ValueError>(find_invalid_utf8(text) == std::string_view::npos && text.find('\0') == std::string_view::npos,
                    "save_safetensors", "needs UTF-8 without NUL; got the ", what, " \"", text, "\"");
}

/// Length and padded header, which the bytes of the tensors follow in the given order.
std::string header(const std::vector<const NamedTensor*>& order, const std::map<std::string, std::string>& metadata) {
  std::string text = "{";
  if (!metadata.empty()) {
    text += "\"__metadata__\":{";
    for (const auto& [key, value] : metadata) {
      check_text("metadata key", key);
      check_text("metadata value", value);
      append_json_string(text, key);
      text += ':';
      append_json_string(text, value);
      text += ',';
    }
    text.back() = '}';
    text += ',';
  }
  std::size_t begin = 0;
  for (const NamedTensor* entry : order) {
    const auto& [name, tensor] = *entry;
    check_text("tensor name", name);
    check<ValueError>(name != "__metadata__", "save_safetensors", "cannot name a tensor __metadata__");
    check<ValueError>(tensor.defined(), "save_safetensors", "needs defined tensors; \"", name, "\" is undefined");
    append_json_string(text, name);
    text += ":{\"dtype\":\"";
    text += type_in_file(tensor.dtype()).name;
    text += "\",\"shape\":[";
    for (int i = 0; i < tensor.rank(); ++i) text += (i == 0 ? "" : ",") + std::to_string(tensor.dim(i));
    text += "],\"data_offsets\":[" + std::to_string(begin) + "," + std::to_string(begin + tensor.bytes()) + "]},";
    begin += tensor.bytes();
  }
  if (text.back() == ',') text.pop_back();
  text += '}';
  text.resize((text.size() + 7) / 8 * 8, ' ');
  check<ValueError>(text.size() <= kMaxWrittenHeader, "save_safetensors", "needs a header of at most ",
                    kMaxWrittenHeader, " bytes; got ", text.size());
  std::string result(8, '\0');
  for (std::size_t i = 0; i < 8; ++i) result[i] = static_cast<char>(text.size() >> (8 * i));
  return result + text;
}

template <class Write>
void write_safetensors(const std::map<std::string, Tensor>& tensors, const std::map<std::string, std::string>& metadata,
                       Write&& write) {
  const std::vector<const NamedTensor*> order = in_file_order(tensors);
  write(header(order, metadata));
  for (const NamedTensor* entry : order) {
    const Tensor whole = entry->second.contiguous();
    if (whole.bytes() > 0) write(std::string_view(reinterpret_cast<const char*>(whole.raw_data()), whole.bytes()));
  }
}

}  // namespace

std::string encode_safetensors(const std::map<std::string, Tensor>& tensors,
                               const std::map<std::string, std::string>& metadata) {
  std::string bytes;
  write_safetensors(tensors, metadata, [&](std::string_view part) { bytes += part; });
  return bytes;
}

void save_safetensors(const std::filesystem::path& path, const std::map<std::string, Tensor>& tensors,
                      const std::map<std::string, std::string>& metadata) {
  AtomicFile file(path);
  write_safetensors(tensors, metadata, [&](std::string_view part) { file.write(part); });
  file.commit();
}

}  // namespace tally
