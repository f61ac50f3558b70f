#include "tally/core/io/gzip.h"

#include <zlib.h>

#include <algorithm>
#include <limits>
#include <new>

#include "tally/core/error.h"

namespace tally {

std::string gzip(std::string_view bytes) {
  z_stream stream{};
  // 15: the largest window; 16: a gzip header, in which zlib writes neither name nor time.
  if (::deflateInit2(&stream, Z_BEST_COMPRESSION, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK) {
    throw std::bad_alloc();
  }
  std::string out(::deflateBound(&stream, static_cast<uLong>(bytes.size())), '\0');
  std::size_t read = 0;
  int status = Z_OK;
  while (status == Z_OK) {
    // zlib counts in 32 bits.
    constexpr std::size_t kMost = std::numeric_limits<uInt>::max();
    const std::size_t in = std::min(bytes.size() - read, kMost), room = std::min(out.size() - stream.total_out, kMost);
    stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data() + read));
    stream.avail_in = static_cast<uInt>(in);
    stream.next_out = reinterpret_cast<Bytef*>(out.data() + stream.total_out);
    stream.avail_out = static_cast<uInt>(room);
    status = ::deflate(&stream, read + in == bytes.size() ? Z_FINISH : Z_NO_FLUSH);
    read += in - stream.avail_in;
  }
  out.resize(stream.total_out);
  ::deflateEnd(&stream);
  check<IoError>(status == Z_STREAM_END, "gzip", "could not compress ", bytes.size(), " bytes");
  return out;
}

}  // namespace tally
