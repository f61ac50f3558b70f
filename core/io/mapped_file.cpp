#include "tally/core/io/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>

#include <cerrno>
#include <utility>

#include "tally/core/error.h"
#include "tally/core/io/file.h"
#include "tally/core/io/reason.h"

namespace tally {

MappedFile::MappedFile(const std::filesystem::path& path) {
  const detail::FileDescriptor file(path, O_RDONLY);
  size_ = static_cast<std::size_t>(file.regular_size());
  if (size_ == 0) return;
  void* mapped = mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE, file.get(), 0);
  check<IoError>(mapped != MAP_FAILED, path.string(), "cannot map: ", reason_of(errno));
  data_ = static_cast<std::byte*>(mapped);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) munmap(data_, size_);
}

}  // namespace tally
