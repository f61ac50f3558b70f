#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>

#include "tally/core/tensor.h"

namespace tally {

/// Writes NumPy's npz format: a zip archive of npy files NAME.npy, not compressed, in the order of names, as
/// numpy.savez makes it but for times, of which there are none: equal tensors give equal bytes. The file is replaced
/// whole or not at all. Throws ValueError for an undefined tensor and for a name that is empty, not UTF-8 or holds NUL;
/// IoError when writing fails.
void save_npz(const std::filesystem::path& path, const std::map<std::string, Tensor>& tensors);
/// The bytes that save_npz writes.
std::string encode_npz(const std::map<std::string, Tensor>& tensors);

struct NpzLimits {
  std::int64_t max_bytes = std::int64_t{1} << 40;  ///< of all members as they are when not compressed
};

/// Reads an npz file as numpy.savez and numpy.savez_compressed write it, zip64 or not. Members are npy files, whose
/// names lose ".npy"; each is read as load_npy would. Refused with an IoError naming file and member: members that are
/// no npy files, encrypted or compressed by anything but deflate, of one name, or overlapping; sizes and checksums that
/// do not hold. A member's memory is at most what deflate can make of the bytes that are there.
std::map<std::string, Tensor> load_npz(const std::filesystem::path& path, const NpzLimits& limits = {});
/// load_npz of bytes in memory; `name` stands in messages.
std::map<std::string, Tensor> decode_npz(std::string_view bytes, const std::string& name = "npz",
                                         const NpzLimits& limits = {});

}  // namespace tally
