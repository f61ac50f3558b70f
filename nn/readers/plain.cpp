#include "tally/nn/readers/plain.h"

#include "tally/ops/lookup/softmax_lookup.h"
#include "tally/ops/tensor/shape.h"

namespace tally::nn {

Var StateReader::operator()(const Var& rows, const Var&, const Lookups& lookups, const Context&) const {
  return ops::gather(rows, lookups.places);
}

Var SoftmaxReader::operator()(const Var& rows, const Var& queries, const Lookups& lookups, const Context&) const {
  return ops::softmax_lookup(queries, rows, rows, lookups.places, lookups.offsets, {.scale = scale});
}

}  // namespace tally::nn
