#include "tally/ops/lookup/lookup_call.h"

#include <cmath>

#include "tally/ops/kernels/lookup_order.h"

namespace tally::ops::detail {
namespace {

/// `outside(x)` of any element is refused.
template <class Outside>
Tensor checked_gate(std::string_view op, std::string_view name, std::string_view domain, const Var& gate,
                    std::int64_t rows, Outside&& outside) {
  if (!gate.defined()) return {};
  check<ShapeError>(gate.rank() == 1 && gate.dim(0) == rows, op, "needs ", name, " [T] with T = ", rows, "; got ",
                    gate.shape());
  Tensor values = gate.value().contiguous();
  dispatch_floating(values.dtype(), op, [&]<class T>(T) {
    const std::span<const T> all = values.span<T>();
    for (std::size_t i = 0; i < all.size(); ++i)
      check<ValueError>(!outside(all[i]), op, "needs ", name, domain, "; got ", all[i], " at row ", i);
  });
  return values;
}

}  // namespace

// Comparisons are negated so that NaN is outside.
Tensor checked_log_decay(std::string_view op, const Var& log_decay, std::int64_t rows) {
  return checked_gate(op, "log_decay", " of at most 0", log_decay, rows, [](auto x) { return !(x <= 0); });
}

Tensor checked_gain(std::string_view op, const Var& gain, std::int64_t rows) {
  return checked_gate(op, "gain", " in [0, 1]", gain, rows, [](auto x) { return !(x >= 0 && x <= 1); });
}

SortedLookups::SortedLookups(std::string_view op, const Tensor& places, std::int64_t count, std::int64_t rows) {
  check<DTypeError>(places.dtype() == DType::i64, op, "needs places of type i64; got ", places.dtype());
  check<ShapeError>(places.rank() == 1 && places.dim(0) == count, op, "needs places [M] with M = ", count,
                    ", one for each query; got ", places.shape());
  const Tensor given = places.contiguous();
  const std::span<const std::int64_t> all = given.span<std::int64_t>();
  for (std::size_t i = 0; i < all.size(); ++i)
    check<ValueError>(all[i] >= 0 && all[i] < rows, op, "needs places in [0, ", rows, "); got ", all[i], " for query ",
                      i);
  places_ = Tensor({count}, DType::i64);
  lookups_ = Tensor({count}, DType::i64);
  kernels::sort_lookups(all, places_.mutable_span<std::int64_t>(), lookups_.mutable_span<std::int64_t>());
}

kernels::LookupOrder SortedLookups::over(const Offsets& documents) const {
  return {documents.bounds(), places_.span<std::int64_t>(), lookups_.span<std::int64_t>()};
}

std::vector<std::int64_t> sample_places(std::int64_t count, std::int64_t rows, std::uint64_t stream) {
  const Tensor drawn = sample_integers({count}, stream, rows);
  const std::span<const std::int64_t> all = drawn.span<std::int64_t>();
  return {all.begin(), all.end()};
}

Tensor sample_log_decay(std::int64_t rows, std::uint64_t stream, double strength) {
  Tensor values = sample_normal({rows}, stream);
  for (double& value : values.mutable_span<double>()) value = -0.01 - strength * std::abs(value);
  return values;
}

Tensor sample_gain(std::int64_t rows, std::uint64_t stream) {
  Tensor values = sample_normal({rows}, stream);
  for (double& value : values.mutable_span<double>()) value = 0.5 + 0.45 * std::tanh(value);
  return values;
}

}  // namespace tally::ops::detail
