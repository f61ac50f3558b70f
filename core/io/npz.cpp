#include "tally/core/io/npz.h"

#include <zlib.h>

#include <algorithm>
#include <array>
#include <limits>
#include <new>
#include <vector>

#include "tally/core/error.h"
#include "tally/core/io/file.h"
#include "tally/core/io/json.h"
#include "tally/core/io/npy.h"
#include "tally/core/io/stored_elements.h"

namespace tally {
namespace {

using detail::ByteSource;

// APPNOTE.TXT of PKWARE, 4.3 and 4.5.3: records begin with these, all numbers are little-endian.
constexpr std::uint32_t kLocal = 0x04034b50, kCentral = 0x02014b50, kEnd = 0x06054b50, kEnd64 = 0x06064b50,
                        kLocator64 = 0x07064b50;
constexpr std::size_t kLocalSize = 30, kCentralSize = 46, kEndSize = 22, kEnd64Size = 56, kLocatorSize = 20;
constexpr std::uint32_t kIn64 = 0xFFFFFFFF;  ///< the number stands in the zip64 field
constexpr std::uint16_t kIn64Count = 0xFFFF;
constexpr std::uint16_t kZip64Field = 1, kUtf8Flag = 0x800, kEncryptedFlag = 1;
constexpr std::uint16_t kVersion = 45, kFirstOfJanuary1980 = 0x21;
constexpr std::int64_t kDeflateRatio = 1032;  ///< at most so many bytes come out of one

std::uint64_t number(std::string_view bytes, std::size_t at, std::size_t width) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < width; ++i) {
    value |= std::uint64_t{static_cast<unsigned char>(bytes[at + i])} << (8 * i);
  }
  return value;
}
void put(std::string& bytes, std::uint64_t value, std::size_t width) {
  for (std::size_t i = 0; i < width; ++i) bytes += static_cast<char>((value >> (8 * i)) & 0xFF);
}

std::uint32_t checksum(std::string_view bytes, std::uint32_t sum = 0) {
  constexpr std::size_t kMost = std::numeric_limits<uInt>::max();  // zlib counts in 32 bits
  for (std::size_t at = 0; at < bytes.size(); at += kMost) {
    const std::string_view part = bytes.substr(at, kMost);
    sum = static_cast<std::uint32_t>(
        ::crc32(sum, reinterpret_cast<const Bytef*>(part.data()), static_cast<uInt>(part.size())));
  }
  return sum;
}

/// What the directory at the archive's end says of a member.
struct Member {
  std::string name;
  std::uint16_t flags = 0, method = 0;
  std::uint32_t crc = 0;
  std::int64_t stored = 0, size = 0, offset = 0;
};

// Writing.

/// The local header of a member, or its entry in the directory.
std::string header_of(const Member& member, bool central) {
  const bool large = member.size >= std::int64_t{kIn64};
  const bool far = central && member.offset >= std::int64_t{kIn64};
  std::string extra;
  if (large || far) {
    put(extra, kZip64Field, 2);
    put(extra, (large ? 16U : 0U) + (far ? 8U : 0U), 2);
    if (large)
      put(extra, static_cast<std::uint64_t>(member.size), 8), put(extra, static_cast<std::uint64_t>(member.stored), 8);
    if (far) put(extra, static_cast<std::uint64_t>(member.offset), 8);
  }
  std::string bytes;
  put(bytes, central ? kCentral : kLocal, 4);
  if (central) put(bytes, kVersion, 2);
  put(bytes, kVersion, 2);
  put(bytes, member.flags, 2);
  put(bytes, member.method, 2);
  put(bytes, 0, 2);  // midnight
  put(bytes, kFirstOfJanuary1980, 2);
  put(bytes, member.crc, 4);
  put(bytes, large ? kIn64 : static_cast<std::uint64_t>(member.stored), 4);
  put(bytes, large ? kIn64 : static_cast<std::uint64_t>(member.size), 4);
  put(bytes, member.name.size(), 2);
  put(bytes, extra.size(), 2);
  if (central) {
    put(bytes, 0, 2);  // comment
    put(bytes, 0, 2);  // disk
    put(bytes, 0, 2);  // text or not
    put(bytes, 0, 4);  // permissions: the reader's own
    put(bytes, far ? kIn64 : static_cast<std::uint64_t>(member.offset), 4);
  }
  return bytes + member.name + extra;
}

std::string end_of(std::int64_t count, std::int64_t directory, std::int64_t directory_size) {
  const bool large =
      count >= std::int64_t{kIn64Count} || directory >= std::int64_t{kIn64} || directory_size >= std::int64_t{kIn64};
  std::string bytes;
  if (large) {
    put(bytes, kEnd64, 4);
    put(bytes, kEnd64Size - 12, 8);
    put(bytes, kVersion, 2), put(bytes, kVersion, 2);
    put(bytes, 0, 4), put(bytes, 0, 4);
    put(bytes, static_cast<std::uint64_t>(count), 8), put(bytes, static_cast<std::uint64_t>(count), 8);
    put(bytes, static_cast<std::uint64_t>(directory_size), 8), put(bytes, static_cast<std::uint64_t>(directory), 8);
    put(bytes, kLocator64, 4), put(bytes, 0, 4);
    put(bytes, static_cast<std::uint64_t>(directory + directory_size), 8), put(bytes, 1, 4);
  }
  put(bytes, kEnd, 4);
  put(bytes, 0, 2), put(bytes, 0, 2);
  for (int i = 0; i < 2; ++i) put(bytes, large ? kIn64Count : static_cast<std::uint64_t>(count), 2);
  put(bytes, large ? kIn64 : static_cast<std::uint64_t>(directory_size), 4);
  put(bytes, large ? kIn64 : static_cast<std::uint64_t>(directory), 4);
  put(bytes, 0, 2);
  return bytes;
}

/// Hands the archive to write(bytes), piece by piece.
template <class Write>
void write_npz(const std::map<std::string, Tensor>& tensors, Write&& write) {
  std::string directory;
  std::int64_t offset = 0;
  for (const auto& [name, tensor] : tensors) {
    check<ValueError>(!name.empty() && name.size() < 65000 && find_invalid_utf8(name) == std::string::npos &&
                          name.find('\0') == std::string::npos,
                      "save_npz", "needs names of UTF-8 without NUL, not empty and below 65,000 bytes; got '", name,
                      "'");
    check<ValueError>(tensor.defined(), "save_npz", "needs defined tensors; '", name, "' is not");
    const std::string bytes = encode_npy(tensor);
    Member member{.name = name + ".npy", .flags = kUtf8Flag, .crc = checksum(bytes)};
    member.stored = member.size = static_cast<std::int64_t>(bytes.size());
    member.offset = offset;
    const std::string local = header_of(member, false);
    write(local);
    write(bytes);
    offset += static_cast<std::int64_t>(local.size()) + member.stored;
    directory += header_of(member, true);
  }
  write(directory);
  write(end_of(static_cast<std::int64_t>(tensors.size()), offset, static_cast<std::int64_t>(directory.size())));
}

// Reading.

class Archive {
 public:
  Archive(ByteSource& source, const NpzLimits& limits) : source_(source), limits_(limits) {}

  std::map<std::string, Tensor> read() {
    find_directory();
    const std::vector<Member> members = read_directory();
    std::map<std::string, Tensor> tensors;
    std::int64_t end = 0, total = 0;
    for (const Member& member : members) {
      const auto refuse_unless = [&](bool holds, const auto&... parts) {
        check<IoError>(holds, source_.name(), "member '", member.name, "' ", parts...);
      };
      refuse_unless(member.name.ends_with(".npy"), "is no npy file");
      refuse_unless((member.flags & kEncryptedFlag) == 0, "is encrypted");
      refuse_unless(member.method == 0 || member.method == 8,
                    "is compressed by another method than deflate: ", member.method);
      refuse_unless(member.method == 8 ? member.size / kDeflateRatio <= member.stored : member.size == member.stored,
                    "cannot have ", member.size, " bytes: ", member.stored, " are stored");
      total += member.size;
      refuse_unless(total <= limits_.max_bytes, "makes more than ", limits_.max_bytes, " bytes of all members");
      refuse_unless(member.offset >= end, "overlaps the one before");
      const std::int64_t begin = data_of(member);
      end = begin + member.stored;
      refuse_unless(end <= directory_, "reaches into the directory at offset ", directory_);
      const std::string bytes = bytes_of(member, begin);
      refuse_unless(checksum(bytes) == member.crc, "has another checksum than the directory says");
      const std::string name = member.name.substr(0, member.name.size() - 4);
      refuse_unless(tensors.emplace(name, decode_npy(bytes, source_.name() + ": " + member.name)).second,
                    "is there twice");
    }
    return tensors;
  }

 private:
  std::string part(std::int64_t offset, std::int64_t size, const char* what) {
    check<IoError>(offset >= 0 && size >= 0 && offset <= source_.size() && size <= source_.size() - offset,
                   source_.name(), "needs ", what, " at offset ", offset, ", which lies outside its ", source_.size(),
                   " bytes");
    std::string bytes(static_cast<std::size_t>(size), '\0');
    source_.read(bytes.data(), bytes.size(), offset);
    return bytes;
  }

  void find_directory() {
    // The last record may be followed by a comment of up to 65,535 bytes.
    const std::int64_t size = std::min<std::int64_t>(source_.size(), kEndSize + 65535), first = source_.size() - size;
    const std::string tail = part(first, size, "an end");
    std::size_t at = tail.size() < kEndSize ? std::string::npos : tail.size() - kEndSize;
    while (at != std::string::npos &&
           (number(tail, at, 4) != kEnd || number(tail, at + 20, 2) + at + kEndSize != tail.size())) {
      at = at == 0 ? std::string::npos : at - 1;
    }
    check<IoError>(at != std::string::npos, source_.name(), "is no zip archive: it has no end of a directory");
    count_ = number(tail, at + 10, 2);
    directory_size_ = static_cast<std::int64_t>(number(tail, at + 12, 4));
    directory_ = static_cast<std::int64_t>(number(tail, at + 16, 4));
    std::int64_t end = first + static_cast<std::int64_t>(at);
    if (count_ == kIn64Count || directory_size_ == kIn64 || directory_ == kIn64) {
      const std::string locator = part(end - static_cast<std::int64_t>(kLocatorSize), kLocatorSize, "a zip64 locator");
      check<IoError>(number(locator, 0, 4) == kLocator64, source_.name(), "needs a zip64 locator before offset ", end);
      end = static_cast<std::int64_t>(number(locator, 8, 8));
      const std::string record = part(end, kEnd64Size, "a zip64 end of the directory");
      check<IoError>(number(record, 0, 4) == kEnd64, source_.name(), "needs a zip64 end of the directory at offset ",
                     end);
      count_ = number(record, 32, 8);
      directory_size_ = static_cast<std::int64_t>(number(record, 40, 8));
      directory_ = static_cast<std::int64_t>(number(record, 48, 8));
    }
    check<IoError>(directory_ >= 0 && directory_size_ >= 0 && directory_ <= end && directory_size_ == end - directory_,
                   source_.name(), "says that its directory has ", directory_size_, " bytes from offset ", directory_,
                   " on, and it ends at ", end);
    check<IoError>(count_ <= static_cast<std::uint64_t>(directory_size_) / kCentralSize, source_.name(), "says that ",
                   count_, " members stand in a directory of ", directory_size_, " bytes");
  }

  /// In the order in which they lie in the file.
  std::vector<Member> read_directory() {
    const std::string bytes = part(directory_, directory_size_, "a directory");
    std::vector<Member> members;
    std::size_t at = 0;
    for (std::uint64_t i = 0; i < count_; ++i) {
      const auto holds = [&](std::size_t size) { return size <= bytes.size() - at; };
      check<IoError>(holds(kCentralSize) && number(bytes, at, 4) == kCentral, source_.name(),
                     "needs a member's entry at offset ", directory_ + static_cast<std::int64_t>(at));
      const std::size_t name = number(bytes, at + 28, 2), extra = number(bytes, at + 30, 2),
                        comment = number(bytes, at + 32, 2);
      check<IoError>(holds(kCentralSize + name + extra + comment), source_.name(), "ends within member ", i,
                     " of its directory");
      Member member;
      member.flags = static_cast<std::uint16_t>(number(bytes, at + 8, 2));
      member.method = static_cast<std::uint16_t>(number(bytes, at + 10, 2));
      member.crc = static_cast<std::uint32_t>(number(bytes, at + 16, 4));
      member.name = bytes.substr(at + kCentralSize, name);
      std::array<std::uint64_t, 3> sizes{number(bytes, at + 24, 4), number(bytes, at + 20, 4),
                                         number(bytes, at + 42, 4)};
      take_large(std::string_view(bytes).substr(at + kCentralSize + name, extra), sizes, member.name);
      check<IoError>(find_invalid_utf8(member.name) == std::string::npos, source_.name(), "member ", i,
                     " has a name that is not UTF-8");
      for (const std::uint64_t size : sizes) {
        check<IoError>(size <= std::uint64_t{1} << 62, source_.name(), "member '", member.name, "' says a size of ",
                       size);
      }
      member.size = static_cast<std::int64_t>(sizes[0]);
      member.stored = static_cast<std::int64_t>(sizes[1]);
      member.offset = static_cast<std::int64_t>(sizes[2]);
      members.push_back(std::move(member));
      at += kCentralSize + name + extra + comment;
    }
    std::stable_sort(members.begin(), members.end(),
                     [](const Member& a, const Member& b) { return a.offset < b.offset; });
    return members;
  }

  /// Sizes that stand in the zip64 field, in the order size, stored, offset.
  void take_large(std::string_view extra, std::array<std::uint64_t, 3>& sizes, const std::string& member) const {
    std::string_view field;
    while (extra.size() >= 4) {
      const std::size_t size = std::min<std::size_t>(number(extra, 2, 2), extra.size() - 4);
      if (number(extra, 0, 2) == kZip64Field) field = extra.substr(4, size);
      extra.remove_prefix(4 + size);
    }
    for (std::uint64_t& size : sizes) {
      if (size != kIn64) continue;
      check<IoError>(field.size() >= 8, source_.name(), "member '", member, "' lacks sizes in its zip64 field");
      size = number(field, 0, 8);
      field.remove_prefix(8);
    }
  }

  /// Where a member's bytes begin.
  std::int64_t data_of(const Member& member) {
    const std::string local = part(member.offset, kLocalSize, "a member's header");
    check<IoError>(number(local, 0, 4) == kLocal, source_.name(), "needs the header of member '", member.name,
                   "' at offset ", member.offset);
    const auto name = static_cast<std::int64_t>(number(local, 26, 2)),
               extra = static_cast<std::int64_t>(number(local, 28, 2));
    const auto begin = member.offset + static_cast<std::int64_t>(kLocalSize);
    check<IoError>(part(begin, name, "a member's name") == member.name, source_.name(), "member '", member.name,
                   "' has another name at offset ", begin);
    return begin + name + extra;
  }

  std::string bytes_of(const Member& member, std::int64_t begin) {
    std::string stored = part(begin, member.stored, "a member's bytes");
    if (member.method == 0) return stored;
    std::string bytes(static_cast<std::size_t>(member.size), '\0');
    z_stream stream{};
    if (::inflateInit2(&stream, -15) != Z_OK) throw std::bad_alloc();  // no header: zip has its own
    std::size_t read = 0, made = 0;
    int status = Z_OK;
    while (status == Z_OK) {
      constexpr std::size_t kMost = std::numeric_limits<uInt>::max();  // zlib counts in 32 bits
      const std::size_t in = std::min(stored.size() - read, kMost), room = std::min(bytes.size() - made, kMost);
      char nothing = 0;  // zlib wants an address also where no room is left
      stream.next_in = reinterpret_cast<Bytef*>(stored.data() + read);
      stream.avail_in = static_cast<uInt>(in);
      stream.next_out = reinterpret_cast<Bytef*>(room == 0 ? &nothing : bytes.data() + made);
      stream.avail_out = static_cast<uInt>(room);
      status = ::inflate(&stream, Z_NO_FLUSH);
      const std::size_t took = in - stream.avail_in, gave = room - stream.avail_out;
      read += took, made += gave;
      if (status == Z_OK && took == 0 && gave == 0) status = Z_BUF_ERROR;
    }
    ::inflateEnd(&stream);
    check<IoError>(status == Z_STREAM_END && made == bytes.size() && read == stored.size(), source_.name(), "member '",
                   member.name, "' does not become its ", member.size, " bytes again: deflate's data are damaged");
    return bytes;
  }

  ByteSource& source_;
  const NpzLimits& limits_;
  std::uint64_t count_ = 0;
  std::int64_t directory_ = 0, directory_size_ = 0;
};

}  // namespace

void save_npz(const std::filesystem::path& path, const std::map<std::string, Tensor>& tensors) {
  AtomicFile file(path);
  write_npz(tensors, [&](std::string_view bytes) { file.write(bytes); });
  file.commit();
}

std::string encode_npz(const std::map<std::string, Tensor>& tensors) {
  std::string all;
  write_npz(tensors, [&](std::string_view bytes) { all += bytes; });
  return all;
}

std::map<std::string, Tensor> load_npz(const std::filesystem::path& path, const NpzLimits& limits) {
  ByteSource source(path);
  return Archive(source, limits).read();
}

std::map<std::string, Tensor> decode_npz(std::string_view bytes, const std::string& name, const NpzLimits& limits) {
  ByteSource source(bytes, name);
  return Archive(source, limits).read();
}

}  // namespace tally
