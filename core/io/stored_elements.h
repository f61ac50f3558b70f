#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "tally/core/dtype.h"
#include "tally/core/io/file.h"
#include "tally/core/tensor.h"

/// What the readers of tensor files share: the element types that files hold, and bytes from a file or from memory.
namespace tally::detail {

/// Element types of files. Those without a DType of their own are converted to the nearest one that holds every value:
/// booleans to u8 (0 or 1), i8, i16 and u16 to i32, f16 and bf16 to f32, u32 and u64 to i64.
enum class StoredType : std::uint8_t { boolean, u8, i8, i16, u16, f16, bf16, i32, u32, f32, f64, i64, u64 };

std::size_t size_of(StoredType type);
DType loaded_dtype(StoredType type);

/// Bytes at offsets of a file or of memory.
class ByteSource {
 public:
  /// Of memory that outlives this; `name` stands in messages.
  ByteSource(std::string_view bytes, std::string name);
  /// Of a regular file; throws IoError for anything else.
  explicit ByteSource(const std::filesystem::path& path);

  const std::string& name() const { return name_; }
  std::int64_t size() const { return size_; }
  /// Throws IoError when the file has become shorter than it was.
  void read(void* out, std::size_t count, std::int64_t offset);

 private:
  std::string name_;
  std::string_view bytes_;
  FileDescriptor file_;
  std::int64_t size_ = 0;
};

/// Reads the elements of a tensor of `shape` that lie packed at `offset`, little-endian or, when `big_endian`, the
/// other way. The caller has checked that they lie within the source. Throws IoError beginning with `what` for a u64
/// value beyond 2^63 - 1.
Tensor read_elements(ByteSource& source, std::int64_t offset, StoredType type, const Shape& shape, bool big_endian,
                     std::string_view what);

/// Product of sizes and `element_bytes`; nothing on overflow of 63 bits. The sizes other than 0 must not overflow among
/// themselves, so that a 0 anywhere does not hide an absurd shape.
bool checked_bytes(const std::int64_t* sizes, std::size_t rank, std::size_t element_bytes, std::int64_t& bytes);

}  // namespace tally::detail
