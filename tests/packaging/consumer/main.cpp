// A program outside the tree: fills a tensor, multiplies two matrices, prints the product, gives a few of many options.
#include <iostream>

#include "tally/core/blas.h"
#include "tally/core/tensor.h"
#include "tally/nn/optim/optimizer.h"
#include "tally/recsys/config/data_config.h"

int main() {
  const tally::Tensor a = tally::Tensor::full({2, 3}, 2.0), b = tally::Tensor::full({3, 2}, 0.5);
  tally::Tensor c({2, 2});
  tally::blas::gemm(tally::blas::Transpose::no, tally::blas::Transpose::no, 2, 2, 3, 1.0f, a.data<float>(), 3,
                    b.data<float>(), 2, 0.0f, c.mutable_data<float>(), 2);
  std::cout << c << '\n';
  const tally::optim::ParameterGroup frozen{.frozen = true};
  const tally::recsys::DataConfig data{.path = "events.csv"};
  if (!frozen.frozen || data.path.empty()) return 1;
  return c.to_doubles() == std::vector<double>{3, 3, 3, 3} ? 0 : 1;
}
