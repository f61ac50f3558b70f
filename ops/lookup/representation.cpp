#include "tally/ops/lookup/representation.h"

#include <algorithm>
#include <cmath>

#include "tally/core/io/fingerprint.h"
#include "tally/core/kernels.h"
#include "tally/ops/kernels/packed_symmetric.h"

namespace tally::ops {
namespace {

constexpr std::string_view kRepresentation = "representation";
constexpr std::uint32_t kSavedMagic = 0x52594C54;  // "TLYR"
constexpr std::uint32_t kSavedVersion = 1;
constexpr double kLeastTakenBack = 1e-6;  // product of decays: errors of 1e-16 become 1e-10, and pile up over rows

void check_gate(std::string_view what, double gate) {
  check<ValueError>(gate >= 0 && gate <= 1, kRepresentation, "needs a ", what, " within [0, 1]; got ", gate);
}

}  // namespace

Representation::Representation(std::int64_t width) : width_(width) {
  check<ValueError>(width > 0, kRepresentation, "needs a width of at least 1; got ", width);
  packed_.resize(static_cast<std::size_t>(kernels::packed_symmetric_size(width)));
}

std::vector<double> Representation::finite_row(std::string_view what, std::span<const float> row) const {
  check<ShapeError>(static_cast<std::int64_t>(row.size()) == width_, kRepresentation, "needs a ", what, " of ", width_,
                    " elements; got ", row.size());
  for (std::size_t i = 0; i < row.size(); ++i) {
    check<ValueError>(std::isfinite(row[i]), kRepresentation, "needs finite elements; element ", i, " of the ", what,
                      " is ", row[i]);
  }
  return {row.begin(), row.end()};
}

void Representation::append(std::span<const float> row, double decay, double gain) {
  const std::vector<double> x = finite_row("row", row);
  check_gate("decay", decay);
  check_gate("gain", gain);
  kernels::packed_symmetric_update(packed_.data(), decay, gain, x.data(), width_);
  log_decay_ += std::log(decay);
  ++rows_;
}

void Representation::remove(std::span<const float> row, double gain) {
  check<ValueError>(log_decay_ == 0, kRepresentation,
                    "rows can be removed only where none has decayed; the decays' product is ", decay());
  check<ValueError>(rows_ > 0, kRepresentation, "there is no row to remove");
  const std::vector<double> x = finite_row("row", row);
  check_gate("gain", gain);
  kernels::packed_symmetric_update(packed_.data(), 1, -gain, x.data(), width_);
  --rows_;
}

void Representation::take_back(std::span<const float> row, double decay, double gain) {
  check<ValueError>(rows_ > 0, kRepresentation, "there is no row to take back");
  const std::vector<double> x = finite_row("row", row);
  check_gate("decay", decay);
  check_gate("gain", gain);
  const double taken_back = taken_back_ + std::log(decay);
  check<ValueError>(taken_back >= std::log(kLeastTakenBack), kRepresentation,
                    "cannot take back decays whose product is below ", kLeastTakenBack, ", for errors grow by as much");
  kernels::packed_symmetric_update(packed_.data(), 1, -gain, x.data(), width_);
  kernels::scale(packed_.data(), 1 / decay, static_cast<std::int64_t>(packed_.size()));
  taken_back_ = taken_back;
  log_decay_ = std::min(0.0, log_decay_ - std::log(decay));
  --rows_;
}

double Representation::decay() const { return std::exp(log_decay_); }

void Representation::merge(const Representation& later) {
  check<ShapeError>(later.width_ == width_, kRepresentation, "needs documents of one width to merge; got ", width_,
                    " and ", later.width_);
  const auto count = static_cast<std::int64_t>(packed_.size());
  // A document may be merged with itself: what it adds is taken before it decays.
  const std::vector<double> added = later.packed_;
  kernels::scale(packed_.data(), later.decay(), count);
  kernels::add_into(packed_.data(), added.data(), count);
  rows_ += later.rows_;
  log_decay_ += later.log_decay_;
  taken_back_ = std::min(taken_back_, later.taken_back_);
}

void Representation::look_up(std::span<const float> query, std::span<float> out) const {
  const std::vector<double> x = finite_row("query", query);
  check<ShapeError>(out.size() == query.size(), kRepresentation, "needs room for ", width_, " elements; got ",
                    out.size());
  std::vector<double> product(x.size());
  kernels::packed_symmetric_product(packed_.data(), x.data(), width_, product.data());
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = static_cast<float>(product[i]);
}

double Representation::score(std::span<const float> query) const {
  const std::vector<double> x = finite_row("query", query);
  return kernels::packed_symmetric_form(packed_.data(), x.data(), width_);
}

Tensor Representation::to_tensor() const {
  Tensor packed({1, static_cast<std::int64_t>(packed_.size())});
  float* to = packed.mutable_data<float>();
  for (std::size_t i = 0; i < packed_.size(); ++i) to[i] = static_cast<float>(packed_[i]);
  return packed;
}

std::string Representation::save() const {
  std::string bytes;
  write_value(bytes, kSavedMagic);
  write_value(bytes, kSavedVersion);
  write_value(bytes, width_);
  write_value(bytes, rows_);
  write_value(bytes, log_decay_);
  write_value(bytes, taken_back_);
  write_values(bytes, std::span<const double>(packed_));
  write_value(bytes, fingerprint(bytes));
  return bytes;
}

Representation Representation::load(std::string_view bytes, std::int64_t width) {
  Representation loaded(width);
  ByteReader reader(bytes, kRepresentation);
  check<IoError>(reader.read<std::uint32_t>() == kSavedMagic, kRepresentation,
                 "these bytes are no saved representation");
  const auto version = reader.read<std::uint32_t>();
  check<IoError>(version == kSavedVersion, kRepresentation, "needs version ", kSavedVersion,
                 " of the saved layout; got ", version);
  const auto saved_width = reader.read<std::int64_t>();
  check<ShapeError>(saved_width == width, kRepresentation, "needs a representation of width ", width, "; got ",
                    saved_width);
  loaded.rows_ = reader.read<std::int64_t>();
  loaded.log_decay_ = reader.read<double>();
  loaded.taken_back_ = reader.read<double>();
  reader.read(std::span(loaded.packed_));
  const std::size_t checked = bytes.size() - reader.left();
  const auto saved = reader.read<std::uint64_t>();
  reader.expect_end();
  check<IoError>(saved == fingerprint(bytes.substr(0, checked)), kRepresentation, "the saved bytes are damaged");
  return loaded;
}

}  // namespace tally::ops
