#include "tally/core/io/stored_elements.h"

#include <fcntl.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <vector>

#include "tally/core/error.h"

namespace tally::detail {
namespace {

static_assert(std::endian::native == std::endian::little, "tensor files are read and written as little-endian bytes");

/// IEEE half precision, any value, exactly.
float from_half(std::uint16_t bits) {
  const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000u) << 16;
  const std::uint32_t exponent = (bits >> 10) & 31u;
  const std::uint32_t fraction = bits & 0x3FFu;
  if (exponent == 0) {
    // A multiple of 2^-24; as a normal float, so that flushing denormals can't change it.
    const float magnitude = static_cast<float>(fraction) * 0x1p-24f;
    return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(magnitude));
  }
  const std::uint32_t wide = exponent == 31 ? 0x7F800000u : (exponent + 112u) << 23;
  return std::bit_cast<float>(sign | wide | (fraction << 13));
}

template <class T>
T load(const char* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));  // Elements of a file need not be aligned.
  return value;
}

template <class From, class To, class Convert>
void convert(const char* from, std::size_t count, To* to, Convert&& one) {
  for (std::size_t i = 0; i < count; ++i) to[i] = static_cast<To>(one(load<From>(from + i * sizeof(From))));
}

void swap_bytes(char* bytes, std::size_t count, std::size_t width) {
  for (std::size_t i = 0; i < count; ++i) std::reverse(bytes + i * width, bytes + (i + 1) * width);
}

/// Whether the stored bytes are those of the loaded type.
bool is_native(StoredType type) {
  switch (type) {
    case StoredType::u8:
    case StoredType::i32:
    case StoredType::f32:
    case StoredType::f64:
    case StoredType::i64:
      return true;
    default:
      return false;
  }
}

void convert_block(const char* from, std::size_t count, StoredType type, Tensor& out, std::size_t first,
                   std::string_view what) {
  const auto same = [](auto value) { return value; };
  switch (type) {
    case StoredType::boolean:
      return convert<std::uint8_t>(from, count, out.mutable_data<std::uint8_t>() + first,
                                   [](std::uint8_t value) { return value != 0; });
    case StoredType::i8:
      return convert<std::int8_t>(from, count, out.mutable_data<std::int32_t>() + first, same);
    case StoredType::i16:
      return convert<std::int16_t>(from, count, out.mutable_data<std::int32_t>() + first, same);
    case StoredType::u16:
      return convert<std::uint16_t>(from, count, out.mutable_data<std::int32_t>() + first, same);
    case StoredType::f16:
      return convert<std::uint16_t>(from, count, out.mutable_data<float>() + first, from_half);
    case StoredType::bf16:
      return convert<std::uint16_t>(from, count, out.mutable_data<float>() + first, [](std::uint16_t bits) {
        return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
      });
    case StoredType::u32:
      return convert<std::uint32_t>(from, count, out.mutable_data<std::int64_t>() + first, same);
    case StoredType::u64:
      return convert<std::uint64_t>(from, count, out.mutable_data<std::int64_t>() + first, [&](std::uint64_t value) {
        check<IoError>(value >> 63 == 0, what, "holds the unsigned 64-bit value ", value, ", which is beyond i64");
        return value;
      });
    default:
      break;
  }
}

}  // namespace

std::size_t size_of(StoredType type) {
  switch (type) {
    case StoredType::boolean:
    case StoredType::u8:
    case StoredType::i8:
      return 1;
    case StoredType::i16:
    case StoredType::u16:
    case StoredType::f16:
    case StoredType::bf16:
      return 2;
    case StoredType::i32:
    case StoredType::u32:
    case StoredType::f32:
      return 4;
    case StoredType::f64:
    case StoredType::i64:
    case StoredType::u64:
      return 8;
  }
  return 0;
}

DType loaded_dtype(StoredType type) {
  switch (type) {
    case StoredType::boolean:
    case StoredType::u8:
      return DType::u8;
    case StoredType::i8:
    case StoredType::i16:
    case StoredType::u16:
    case StoredType::i32:
      return DType::i32;
    case StoredType::f16:
    case StoredType::bf16:
    case StoredType::f32:
      return DType::f32;
    case StoredType::f64:
      return DType::f64;
    case StoredType::u32:
    case StoredType::i64:
    case StoredType::u64:
      return DType::i64;
  }
  return DType::f32;
}

ByteSource::ByteSource(std::string_view bytes, std::string name)
    : name_(std::move(name)), bytes_(bytes), size_(static_cast<std::int64_t>(bytes.size())) {}

ByteSource::ByteSource(const std::filesystem::path& path)
    : name_(path.string()), file_(path, O_RDONLY | O_NONBLOCK), size_(file_.regular_size()) {}

void ByteSource::read(void* out, std::size_t count, std::int64_t offset) {
  if (file_.is_open()) {
    file_.read_exactly(out, count, offset);
  } else if (count > 0) {
    std::memcpy(out, bytes_.substr(static_cast<std::size_t>(offset), count).data(), count);
  }
}

Tensor read_elements(ByteSource& source, std::int64_t offset, StoredType type, const Shape& shape, bool big_endian,
                     std::string_view what) {
  Tensor result(shape, loaded_dtype(type));
  const std::size_t width = size_of(type);
  const auto total = static_cast<std::size_t>(shape.numel());
  if (total == 0) return result;
  if (is_native(type)) {
    std::byte* const out = result.mutable_raw_data();
    source.read(out, total * width, offset);
    if (big_endian) swap_bytes(reinterpret_cast<char*>(out), total, width);
    return result;
  }
  std::vector<char> block(std::min(total, std::size_t{1} << 16) * width);
  const std::size_t per_block = block.size() / width;
  for (std::size_t first = 0; first < total; first += per_block) {
    const std::size_t count = std::min(per_block, total - first);
    source.read(block.data(), count * width, offset + static_cast<std::int64_t>(first * width));
    if (big_endian) swap_bytes(block.data(), count, width);
    convert_block(block.data(), count, type, result, first, what);
  }
  return result;
}

bool checked_bytes(const std::int64_t* sizes, std::size_t rank, std::size_t element_bytes, std::int64_t& bytes) {
  bytes = static_cast<std::int64_t>(element_bytes);
  bool is_empty = false;
  for (std::size_t i = 0; i < rank; ++i) {
    if (sizes[i] == 0) {
      is_empty = true;
    } else if (__builtin_mul_overflow(bytes, sizes[i], &bytes)) {
      return false;
    }
  }
  if (is_empty) bytes = 0;
  return true;
}

}  // namespace tally::detail
