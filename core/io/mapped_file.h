#pragma once

#include <cstddef>
#include <filesystem>
#include <span>

namespace tally {

/// The bytes of a regular file as memory, read when they are touched. Writes to them are seen by this mapping alone and
/// never reach the file (each touched page is copied). A file that is replaced by renaming stays as it was; one that
/// somebody shortens in place ends the process when its lost bytes are touched, as with any mapping.
class MappedFile {
 public:
  MappedFile() = default;
  /// Throws IoError naming the path when it cannot be opened or mapped, or is no regular file.
  explicit MappedFile(const std::filesystem::path& path);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  std::span<std::byte> private_bytes() { return {data_, size_}; }

 private:
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace tally
