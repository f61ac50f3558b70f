#pragma once

#include <zlib.h>

#include <string>

#include "tally/core/error.h"

namespace tally::test {

/// The bytes as one gzip member.
inline std::string gzip(const std::string& bytes) {
  z_stream stream{};
  check<IoError>(::deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) == Z_OK, "gzip",
                 "cannot start");
  std::string out(::deflateBound(&stream, bytes.size()) + 64, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
  stream.avail_in = static_cast<uInt>(bytes.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  const int end = ::deflate(&stream, Z_FINISH);
  out.resize(stream.total_out);
  ::deflateEnd(&stream);
  check<IoError>(end == Z_STREAM_END, "gzip", "did not come to an end");
  return out;
}

}  // namespace tally::test
