#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>

#include "tally/core/tensor.h"

namespace tally {

/// Named tensors, and strings about them.
struct TensorFile {
  std::map<std::string, Tensor> tensors;
  std::map<std::string, std::string> metadata;

  /// Throws IndexError naming the tensor that is missing and those that are there.
  const Tensor& at(const std::string& name) const;
};

/// Writes a safetensors file (format: huggingface/safetensors) with the bytes the reference implementation would write:
/// tensors by element type (i64, f64, f32, i32, u8), then by name; header padded to 8 bytes; metadata sorted by key.
/// The file is replaced whole or not at all. Tensors that are not contiguous are written as their contiguous copies.
/// Throws ValueError for an undefined tensor, for names and metadata that are not UTF-8 or hold NUL, and for the name
/// "__metadata__"; IoError when writing fails.
void save_safetensors(const std::filesystem::path& path, const std::map<std::string, Tensor>& tensors,
                      const std::map<std::string, std::string>& metadata = {});
/// The bytes that save_safetensors writes.
std::string encode_safetensors(const std::map<std::string, Tensor>& tensors,
                               const std::map<std::string, std::string>& metadata = {});

struct SafetensorsLimits {
  std::int64_t max_header_bytes = 100'000'000;  ///< the reference's own bound
  std::int64_t max_tensors = 1'000'000;
  std::int64_t max_name_bytes = 65536;
};

/// Reads a safetensors file. Element types without a DType are converted where every value fits: BOOL and U8 to u8; I8,
/// I16, U16 and I32 to i32; F16, BF16 and F32 to f32; U32, I64 and U64 to i64 (U64 values from 2^63 on are refused);
/// other types are refused by name. The whole header is checked against the size of the file before anything is
/// allocated for a tensor: the tensors must tile the bytes after the header without hole, overlap or rest; metadata are
/// at most 100,000 strings. Memory beside the tensors' is in proportion to the header. Throws
/// IoError naming file, tensor and offset for everything malformed.
TensorFile load_safetensors(const std::filesystem::path& path, const SafetensorsLimits& limits = {});
/// load_safetensors of bytes in memory; `name` stands in messages.
TensorFile decode_safetensors(std::string_view bytes, const std::string& name = "safetensors",
                              const SafetensorsLimits& limits = {});

}  // namespace tally
