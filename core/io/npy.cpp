#include "tally/core/io/npy.h"

#include <algorithm>
#include <array>
#include <optional>
#include <vector>

#include "tally/core/io/file.h"
#include "tally/core/io/stored_elements.h"

namespace tally {
namespace {

using detail::ByteSource;
using detail::StoredType;

constexpr std::string_view kMagic = "\x93NUMPY";
constexpr std::size_t kMaxHeader = 65536;

/// What the header's dictionary says.
struct Header {
  StoredType type = StoredType::f32;
  bool big_endian = false;
  bool fortran_order = false;
  std::vector<std::int64_t> sizes;
};

/// Reads exactly a dictionary of the three keys, once each: strings in single or double quotes, True or False, and a
/// tuple of plain decimal numbers. Python would evaluate much more; nothing else is needed and nothing else is taken.
class HeaderParser {
 public:
  HeaderParser(std::string_view text, std::size_t file_offset, const std::string& name)
      : text_(text), file_offset_(file_offset), name_(name) {}

  Header parse() {
    Header header;
    bool has_descr = false, has_order = false, has_shape = false;
    expect('{');
    while (!take('}')) {
      const std::string key(quoted());
      expect(':');
      if (key == "descr") {
        once(has_descr, key);
        parse_descr(header);
      } else if (key == "fortran_order") {
        once(has_order, key);
        header.fortran_order = boolean();
      } else if (key == "shape") {
        once(has_shape, key);
        header.sizes = tuple();
      } else {
        refuse("has the unknown key '", key, "'");
      }
      if (!take(',')) {
        expect('}');
        break;
      }
    }
    skip_space();
    if (at_ < text_.size()) refuse("has text after the dictionary");
    if (!has_descr) refuse("lacks the key 'descr'");
    if (!has_order) refuse("lacks the key 'fortran_order'");
    if (!has_shape) refuse("lacks the key 'shape'");
    return header;
  }

 private:
  template <class... Parts>
  [[noreturn]] void refuse(const Parts&... parts) const {
    fail<IoError>(name_, parts..., ", at offset ", file_offset_ + at_);
  }
  void skip_space() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\t')) ++at_;
  }
  bool take(char wanted) {
    skip_space();
    if (at_ == text_.size() || text_[at_] != wanted) return false;
    ++at_;
    return true;
  }
  void expect(char wanted) {
    if (!take(wanted)) refuse("needs '", wanted, "' in its header");
  }
  void once(bool& seen, std::string_view key) const {
    if (seen) refuse("has the key '", key, "' twice");
    seen = true;
  }
  std::string_view quoted() {
    skip_space();
    const char quote = at_ < text_.size() ? text_[at_] : '\0';
    if (quote != '\'' && quote != '"') refuse("needs a quoted string in its header");
    const std::size_t begin = at_ + 1;
    const std::size_t end = text_.find_first_of("'\"\\\n", begin);
    if (end == std::string_view::npos || text_[end] != quote) refuse("has a malformed string in its header");
    at_ = end + 1;
    return text_.substr(begin, end - begin);
  }
  bool boolean() {
    skip_space();
    for (const std::string_view word : {"True", "False"}) {
      if (!text_.substr(at_).starts_with(word)) continue;
      at_ += word.size();
      return word == "True";
    }
    refuse("needs True or False for fortran_order");
  }
  std::vector<std::int64_t> tuple() {
    std::vector<std::int64_t> sizes;
    bool has_comma = false;
    skip_space();
    if (!take('(')) refuse("needs a tuple (...) for shape");
    while (!take(')')) {
      sizes.push_back(number());
      if (sizes.size() > static_cast<std::size_t>(kMaxRank)) refuse("needs at most ", kMaxRank, " dimensions");
      if (take(',')) {
        has_comma = true;
        continue;
      }
      if (sizes.size() == 1 && !has_comma) refuse("needs a comma in a tuple of one, (3,)");
      if (!take(')')) refuse("needs plain decimal sizes with commas between for shape");
      break;
    }
    return sizes;
  }
  std::int64_t number() {
    skip_space();
    const std::size_t begin = at_;
    std::int64_t value = 0;
    for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_) {
      if (__builtin_mul_overflow(value, 10, &value) || __builtin_add_overflow(value, text_[at_] - '0', &value)) {
        refuse("has a size that does not fit into 63 bits");
      }
    }
    const bool has_leading_zero = at_ - begin > 1 && text_[begin] == '0';
    if (at_ == begin || has_leading_zero) refuse("needs plain decimal sizes with commas between for shape");
    return value;
  }
  void parse_descr(Header& header) {
    skip_space();
    if (at_ < text_.size() && text_[at_] == '[') refuse("holds records (a structured dtype), which are not supported");
    const std::string_view descr = quoted();
    std::string_view code = descr;
    char order = '=';
    if (!code.empty() && std::string_view("<>=|").find(code[0]) != std::string_view::npos) {
      order = code[0];
      code.remove_prefix(1);
    }
    constexpr std::array<std::pair<std::string_view, StoredType>, 12> kTypes = {{{"b1", StoredType::boolean},
                                                                                 {"i1", StoredType::i8},
                                                                                 {"u1", StoredType::u8},
                                                                                 {"i2", StoredType::i16},
                                                                                 {"u2", StoredType::u16},
                                                                                 {"i4", StoredType::i32},
                                                                                 {"u4", StoredType::u32},
                                                                                 {"i8", StoredType::i64},
                                                                                 {"u8", StoredType::u64},
                                                                                 {"f2", StoredType::f16},
                                                                                 {"f4", StoredType::f32},
                                                                                 {"f8", StoredType::f64}}};
    // What NumPy makes of ml_dtypes.bfloat16, of which it knows no more than that it has two bytes.
    if (descr == "<V2") {
      header.type = StoredType::bf16;
      return;
    }
    for (const auto& [known, type] : kTypes) {
      if (known != code) continue;
      // '|' says that order does not matter, which holds for single bytes only.
      if (order == '|' && detail::size_of(type) > 1) break;
      header.type = type;
      header.big_endian = order == '>';
      return;
    }
    if (!code.empty() && code[0] == 'O') refuse("holds Python objects (a pickle), which are never loaded");
    refuse("has the element type '", descr, "', which is not supported");
  }

  std::string_view text_;
  std::size_t file_offset_;
  const std::string& name_;
  std::size_t at_ = 0;
};

std::string_view descr_of(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return "<f4";
    case DType::f64:
      return "<f8";
    case DType::i32:
      return "<i4";
    case DType::i64:
      return "<i8";
    case DType::u8:
      return "|u1";
  }
  return "";
}

std::string npy_header(const Tensor& tensor) {
  check<ValueError>(tensor.defined(), "save_npy", "needs a defined tensor");
  std::string shape;
  for (int i = 0; i < tensor.rank(); ++i) shape += (i == 0 ? "" : ", ") + std::to_string(tensor.dim(i));
  if (tensor.rank() == 1) shape += ',';
  std::string text =
      detail::join("{'descr': '", descr_of(tensor.dtype()), "', 'fortran_order': False, 'shape': (", shape, "), }");
  // NumPy leaves room for the first size to grow to 21 digits in place, then pads to a multiple of 64; at least one
  // space.
  if (tensor.rank() > 0) text.append(21 - std::to_string(tensor.dim(0)).size(), ' ');
  constexpr std::size_t kBefore = 10;  // magic, version, length
  text.append(64 - (kBefore + text.size() + 1) % 64, ' ');
  text += '\n';
  std::string header(kMagic);
  header += '\x01';
  header += '\x00';
  header += static_cast<char>(text.size() & 0xFF);
  header += static_cast<char>(text.size() >> 8);
  return header + text;
}

Tensor read_npy(ByteSource& source, const NpyOptions& options) {
  const std::string& name = source.name();
  const std::int64_t size = source.size();
  check<IoError>(size >= 10, name, "needs at least the 10 bytes before an npy header; got ", size);
  std::array<unsigned char, 12> start{};
  source.read(start.data(), static_cast<std::size_t>(std::min<std::int64_t>(size, 12)), 0);
  check<IoError>(std::equal(kMagic.begin(), kMagic.end(), start.begin(),
                            [](char a, unsigned char b) { return static_cast<unsigned char>(a) == b; }),
                 name, "is no npy file: it does not begin with \\x93NUMPY");
  const int major = start[6], minor = start[7];
  check<IoError>(major >= 1 && major <= 3 && minor == 0, name, "needs npy version 1.0, 2.0 or 3.0 at offset 6; got ",
                 major, ".", minor);
  const std::size_t length_bytes = major == 1 ? 2 : 4;
  const std::size_t header_begin = 8 + length_bytes;
  check<IoError>(size >= static_cast<std::int64_t>(header_begin), name, "ends within its header length, at offset ",
                 size);
  std::size_t length = 0;
  for (std::size_t i = 0; i < length_bytes; ++i) length |= static_cast<std::size_t>(start[8 + i]) << (8 * i);
  check<IoError>(length <= kMaxHeader, name, "needs a header of at most ", kMaxHeader,
                 " bytes; the length at offset 8 says ", length);
  const std::int64_t data_begin = static_cast<std::int64_t>(header_begin + length);
  check<IoError>(data_begin <= size, name, "ends within its header: the length at offset 8 says ", length, " and ",
                 size - static_cast<std::int64_t>(header_begin), " bytes follow");
  std::string text(length, '\0');
  source.read(text.data(), length, static_cast<std::int64_t>(header_begin));
  Header header = HeaderParser(text, header_begin, name).parse();

  std::int64_t bytes = 0;
  check<IoError>(detail::checked_bytes(header.sizes.data(), header.sizes.size(), detail::size_of(header.type), bytes),
                 name, "has a shape whose size in bytes does not fit into 63 bits");
  const std::int64_t available = size - data_begin;
  check<IoError>(bytes <= available, name, "needs ", bytes, " bytes of elements from offset ", data_begin, " on; got ",
                 available);
  check<IoError>(bytes == available || options.allow_trailing, name, "has ", available - bytes,
                 " bytes after its elements, from offset ", data_begin + bytes, " on");
  if (header.fortran_order) std::reverse(header.sizes.begin(), header.sizes.end());
  const Shape shape{std::span<const std::int64_t>(header.sizes)};
  Tensor result = detail::read_elements(source, data_begin, header.type, shape, header.big_endian, name);
  if (!header.fortran_order) return result;
  for (int i = 0, j = result.rank() - 1; i < j; ++i, --j) result = result.transpose(i, j);
  return result.contiguous();
}

}  // namespace

std::string encode_npy(const Tensor& tensor) {
  std::string bytes = npy_header(tensor);
  const Tensor whole = tensor.contiguous();
  if (whole.bytes() > 0) bytes.append(reinterpret_cast<const char*>(whole.raw_data()), whole.bytes());
  return bytes;
}

void save_npy(const std::filesystem::path& path, const Tensor& tensor) {
  AtomicFile file(path);
  file.write(npy_header(tensor));
  const Tensor whole = tensor.contiguous();
  if (whole.bytes() > 0) file.write(whole.raw_data(), whole.bytes());
  file.commit();
}

Tensor load_npy(const std::filesystem::path& path, const NpyOptions& options) {
  ByteSource source(path);
  return read_npy(source, options);
}

Tensor decode_npy(std::string_view bytes, const std::string& name, const NpyOptions& options) {
  ByteSource source(bytes, name);
  return read_npy(source, options);
}

}  // namespace tally
