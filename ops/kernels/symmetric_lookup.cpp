#include "tally/ops/kernels/symmetric_lookup.h"

#include <algorithm>
#include <vector>

#include "tally/core/blas.h"
#include "tally/core/parallel.h"
#include "tally/ops/kernels/document_sums.h"
#include "tally/ops/kernels/packed_square.h"
#include "tally/ops/kernels/packed_symmetric.h"
#include "tally/ops/kernels/scratch.h"

namespace tally::kernels {
namespace {

using blas::Transpose;

constexpr std::int64_t kBlock = 256;  // queries of a block, at most
// Up to so many queries read the packed matrix as it stands: unpacking takes as long as a few of them.
constexpr std::int64_t kFew = 4;

}  // namespace

template <class T>
void symmetric_products(const SymmetricLookupPlan<T>& plan, MatrixRows<const T> queries, T* output) {
  const std::int64_t width = plan.width;
  struct Block {
    std::int64_t document, first, count;
  };
  std::vector<Block> blocks;
  for (std::size_t document = 0; document + 1 < plan.bounds.size(); ++document) {
    const std::int64_t end = plan.bounds[document + 1];
    for (std::int64_t first = plan.bounds[document]; first < end; first += kBlock)
      blocks.push_back({static_cast<std::int64_t>(document), first, std::min(kBlock, end - first)});
  }
  parallel_for(static_cast<std::int64_t>(blocks.size()), 1, [&](std::int64_t i, std::int64_t) {
    const Block& block = blocks[static_cast<std::size_t>(i)];
    const T* packed = plan.packed.data + block.document * plan.packed.stride;
    const T* from = queries.data + block.first * queries.stride;
    T* to = output + block.first * width;
    if (block.count <= kFew) {
      for (std::int64_t r = 0; r < block.count; ++r)
        packed_symmetric_product(packed, from + r * queries.stride, width, to + r * width);
      return;
    }
    Scratch<T> square(width * width);
    unpack_symmetric(packed, width, square.data());
    blas::gemm(Transpose::no, Transpose::no, block.count, width, width, T{1}, from, queries.stride, square.data(),
               width, T{0}, to, width);
  });
}

template <class T>
void symmetric_lookup_gradient(const SymmetricLookupPlan<T>& plan, MatrixRows<const T> queries,
                               const T* gradient_output, T* gradient) {
  const std::int64_t width = plan.width, size = packed_symmetric_size(width);
  const auto add = [&](std::int64_t, std::int64_t begin, std::int64_t end, double* sums) {
    if (begin == end) return;
    Scratch<T> square(width * width);
    for (std::int64_t first = begin; first < end; first += kBlock) {
      const std::int64_t count = std::min(kBlock, end - first);
      blas::gemm(Transpose::yes, Transpose::no, width, width, count, T{1}, gradient_output + first * width, width,
                 queries.data + first * queries.stride, queries.stride, T{0}, square.data(), width);
      add_both_triangles(square.data(), width, sums);
    }
  };
  sum_documents(plan.bounds, size, add, [&](std::int64_t document, const double* sums) {
    T* to = gradient + document * size;
    for (std::int64_t i = 0; i < size; ++i) to[i] = static_cast<T>(sums[i]);
  });
}

template void symmetric_products(const SymmetricLookupPlan<float>&, MatrixRows<const float>, float*);
template void symmetric_products(const SymmetricLookupPlan<double>&, MatrixRows<const double>, double*);
template void symmetric_lookup_gradient(const SymmetricLookupPlan<float>&, MatrixRows<const float>, const float*,
                                        float*);
template void symmetric_lookup_gradient(const SymmetricLookupPlan<double>&, MatrixRows<const double>, const double*,
                                        double*);

}  // namespace tally::kernels
