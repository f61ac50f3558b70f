#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "tally/core/tensor.h"

namespace tally {

/// Writes NumPy's npy format, version 1.0, little-endian, row-major, with the bytes numpy.save writes. The file is
/// replaced whole or not at all. Throws ValueError for an undefined tensor, IoError when writing fails.
void save_npy(const std::filesystem::path& path, const Tensor& tensor);
/// The bytes that save_npy writes.
std::string encode_npy(const Tensor& tensor);

struct NpyOptions {
  bool allow_trailing = false;  ///< accept bytes after the last element, as numpy.load does
};

/// Reads an npy file of version 1, 2 or 3. Booleans and u1 become u8; i1, i2, u2 and i4 become i32; f2, <V2 (which is
/// how NumPy saves ml_dtypes.bfloat16) and f4 f32; f8 f64; u4, i8 and u8 i64 (values from 2^63 on are refused).
/// Big-endian elements and column-major order are converted. Objects (pickles), strings, dates, complex numbers and
/// records are refused, as is everything malformed, with an IoError naming file and offset. The size of the file is
/// checked before anything is allocated.
Tensor load_npy(const std::filesystem::path& path, const NpyOptions& options = {});
/// load_npy of bytes in memory; `name` stands in messages.
Tensor decode_npy(std::string_view bytes, const std::string& name = "npy", const NpyOptions& options = {});

}  // namespace tally
