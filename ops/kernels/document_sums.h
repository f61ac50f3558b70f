#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "tally/core/kernels.h"
#include "tally/core/parallel.h"
#include "tally/ops/kernels/scratch.h"

namespace tally::kernels {

/// Rows of a segment of a document, which is summed in one go.
inline constexpr std::int64_t kSegmentRows = 2048;

/// A sum of `size` doubles over the rows of each document. Calls add(document, begin, end, sums) to add rows [begin,
/// end) of one to sums, which begin at zero, then finish(document, sums) once for each. Parallel over segments of
/// documents, whose sums are joined in a fixed tree. A document without rows has sums of zero.
template <class Add, class Finish>
void sum_documents(std::span<const std::int64_t> bounds, std::int64_t size, Add&& add, Finish&& finish) {
  struct Segment {
    std::int64_t document, begin, end;
    std::int64_t kept;  ///< where its sums are kept; -1 when it is its document's only one
  };
  struct Long {
    std::int64_t document, kept, count;
  };
  std::vector<Segment> segments;
  std::vector<Long> longs;
  std::int64_t kept = 0;
  for (std::int64_t document = 0; document + 1 < static_cast<std::int64_t>(bounds.size()); ++document) {
    const std::int64_t row = bounds[static_cast<std::size_t>(document)],
                       next = bounds[static_cast<std::size_t>(document + 1)],
                       count = block_count(next - row, kSegmentRows);
    if (count <= 1) {
      segments.push_back({document, row, next, -1});
      continue;
    }
    longs.push_back({document, kept, count});
    for (std::int64_t begin = row; begin < next; begin += kSegmentRows)
      segments.push_back({document, begin, std::min(begin + kSegmentRows, next), kept++});
  }
  Scratch<double> partial(kept * size);
  parallel_for(static_cast<std::int64_t>(segments.size()), 1, [&](std::int64_t i, std::int64_t) {
    const Segment& segment = segments[static_cast<std::size_t>(i)];
    Scratch<double> own;
    if (segment.kept < 0) own = Scratch<double>(size);
    double* const sums = segment.kept < 0 ? own.data() : partial.data() + segment.kept * size;
    std::fill_n(sums, size, 0.0);
    add(segment.document, segment.begin, segment.end, sums);
    if (segment.kept < 0) finish(segment.document, sums);
  });
  parallel_for(static_cast<std::int64_t>(longs.size()), 1, [&](std::int64_t i, std::int64_t) {
    const Long& each = longs[static_cast<std::size_t>(i)];
    double* const sums = partial.data() + each.kept * size;
    for (std::int64_t width = 1; width < each.count; width *= 2) {
      for (std::int64_t s = 0; s + width < each.count; s += 2 * width)
        add_into(sums + s * size, sums + (s + width) * size, size);
    }
    finish(each.document, sums);
  });
}

}  // namespace tally::kernels
