#include "tests/ops/references.h"

namespace tally::testing {

void add_matmul_references(References& references) {
  references["matmul"] = [](std::span<const Tensor> in, const ops::OpOptions& options) -> std::vector<Tensor> {
    const bool ta = options.flag("transpose_a", false), tb = options.flag("transpose_b", false);
    const Tensor &a = in[0], &b = in[1];
    Shape shape = a.shape();
    shape.set(-2, a.dim(ta ? -1 : -2));
    shape.set(-1, b.dim(tb ? -2 : -1));
    const std::int64_t m = shape[-2], n = shape[-1], k = a.dim(ta ? -2 : -1);
    const std::vector<double> va = a.to_doubles(), vb = b.to_doubles();
    std::vector<double> c(static_cast<std::size_t>(shape.numel()));
    const bool shared = b.rank() == 2;
    const std::int64_t batch = m * n == 0 ? 0 : shape.numel() / (m * n);
    for (std::int64_t s = 0; s < batch; ++s) {
      for (std::int64_t i = 0; i < m; ++i) {
        for (std::int64_t j = 0; j < n; ++j) {
          double sum = 0;
          for (std::int64_t l = 0; l < k; ++l) {
            sum += va[static_cast<std::size_t>(s * m * k + (ta ? l * m + i : i * k + l))] *
                   vb[static_cast<std::size_t>((shared ? 0 : s * k * n) + (tb ? j * k + l : l * n + j))];
          }
          c[static_cast<std::size_t>((s * m + i) * n + j)] = sum;
        }
      }
    }
    return {Tensor::from(c, shape)};
  };
}

}  // namespace tally::testing
