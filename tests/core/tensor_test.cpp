#include "tally/core/tensor.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <sstream>
#include <utility>

#include "tally/core/offsets.h"

namespace tensor_test {

using namespace tally;

namespace {

using Doubles = std::vector<double>;
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

Tensor counting(const Shape& shape, DType dtype = DType::f32) {
  return Tensor::arange(shape.numel(), dtype).reshape(shape);
}

}  // namespace

TEST_CASE("tensors are made with the values they are asked for", "[tensor]") {
  CHECK_FALSE(Tensor().defined());
  CHECK(Tensor::zeros({2, 2}, DType::u8).to_doubles() == Doubles(4, 0.0));
  CHECK(Tensor::full({3}, -2.5, DType::f64).to_doubles() == Doubles(3, -2.5));
  CHECK(Tensor::full({2}, 7, DType::i64).to_doubles() == Doubles(2, 7.0));
  CHECK(Tensor::scalar(4).shape() == Shape{});
  CHECK(Tensor::scalar(4).item() == 4);
  CHECK(Tensor::arange(4, DType::i32).to_doubles() == Doubles{0, 1, 2, 3});
  CHECK(Tensor::from({1.5f, 2.5f}, {2, 1}).to_doubles() == Doubles{1.5, 2.5});
  CHECK(Tensor::from(std::vector<std::int64_t>{5, 6}, {2}).dtype() == DType::i64);
  CHECK_THROWS_AS(Tensor::from({1.0f, 2.0f}, {3}), ShapeError);
  CHECK(Tensor({0, 5}).numel() == 0);
  CHECK(Tensor({0, 5}).is_contiguous());
  CHECK(Tensor({2, 3}, DType::f64).bytes() == 48);
}

TEST_CASE("copies share, clones do not", "[tensor]") {
  Tensor a = Tensor::zeros({2});
  CHECK(a.unique());
  Tensor shared = a;
  CHECK_FALSE(a.unique());
  Tensor cloned = a.clone();
  a.mutable_data<float>()[0] = 3;
  CHECK(shared.to_doubles() == Doubles{3, 0});
  CHECK(cloned.to_doubles() == Doubles{0, 0});
  CHECK(a.shares_storage_with(shared));
  CHECK_FALSE(a.shares_storage_with(cloned));
  CHECK_FALSE(Tensor().shares_storage_with(Tensor()));
}

TEST_CASE("writing moves the version of the storage, reading does not", "[tensor]") {
  Tensor a = Tensor::zeros({4});
  const Tensor view = a.slice(0, 1, 3);
  const auto before = a.version();
  (void)a.data<float>();
  (void)a.span<float>();
  (void)a.raw_data();
  (void)a.to_doubles();
  CHECK(a.version() == before);
  (void)a.mutable_data<float>();
  CHECK(a.version() == before + 1);
  CHECK(view.version() == a.version());
  a.fill(2);
  CHECK(a.version() == before + 2);
  a.copy_from(Tensor::zeros({4}));
  CHECK(a.version() == before + 3);
  (void)a.mutable_raw_data();
  CHECK(a.version() == before + 4);
  CHECK(Tensor().version() == 0);
}

TEST_CASE("views have the strides and elements of their definition", "[tensor]") {
  const Tensor a = counting({2, 3, 4});
  CHECK(a.stride(0) == 12);
  CHECK(a.stride(-1) == 1);

  const Tensor t = a.transpose(0, 2);
  CHECK(t.shape() == Shape{4, 3, 2});
  CHECK_FALSE(t.is_contiguous());
  CHECK(t.shares_storage_with(a));
  const Doubles transposed = t.to_doubles();
  for (int i = 0; i < 4; ++i) {
    for (int j = 0; j < 3; ++j) {
      for (int k = 0; k < 2; ++k) {
        CHECK(transposed[static_cast<std::size_t>((i * 3 + j) * 2 + k)] == k * 12 + j * 4 + i);
      }
    }
  }
  CHECK(t.contiguous().is_contiguous());
  CHECK(t.contiguous().to_doubles() == transposed);
  CHECK(t.clone().to_doubles() == transposed);
  CHECK(identical(t.transpose(0, 2), a));

  const Tensor s = a.slice(1, 1, 3).slice(-1, 2, 4);
  CHECK(s.to_doubles() == Doubles{6, 7, 10, 11, 18, 19, 22, 23});
  CHECK(s.shares_storage_with(a));
  CHECK(s.reshape({-1}).to_doubles() == s.to_doubles());
  CHECK_FALSE(s.reshape({-1}).shares_storage_with(a));
  CHECK(a.slice(0, 1, 2).is_contiguous());
  CHECK(a.slice(0, 2, 2).numel() == 0);
  CHECK(a.slice(2, 4, 4).to_doubles().empty());
  CHECK_THROWS_AS(a.slice(0, 0, 3), IndexError);
  CHECK_THROWS_AS(a.slice(0, 2, 1), IndexError);
  CHECK_THROWS_AS(a.slice(0, -1, 1), IndexError);
  CHECK_THROWS_AS(a.slice(3, 0, 1), ShapeError);
}

TEST_CASE("what is made contiguous has the strides of its shape, along sizes of 1 too", "[tensor]") {
  const Tensor column = counting({8, 1});
  for (const Tensor& row : {column.transpose(0, 1), column.reshape({8}).expand({1, 8})}) {
    CHECK(row.is_contiguous());
    CHECK(row.contiguous().stride(0) == 8);
    CHECK(row.contiguous().shares_storage_with(column));
    CHECK(row.contiguous().to_doubles() == column.to_doubles());
  }
  CHECK(counting({1, 8}).transpose(0, 1).contiguous().stride(1) == 1);
  CHECK_FALSE(Tensor().contiguous().defined());
}

TEST_CASE("no view is made of nothing", "[tensor]") {
  CHECK_THROWS_AS(Tensor().reshape({1}), ValueError);
  CHECK_THROWS_AS(Tensor().reshape(Shape{}), ValueError);
  CHECK_THROWS_AS(Tensor().expand({2}), ValueError);
  CHECK_THROWS_AS(Tensor().transpose(0, 0), ValueError);
  CHECK_THROWS_AS(Tensor().slice(0, 0, 0), ValueError);
}

TEST_CASE("elements are read by index, of views too, and refused outside", "[tensor]") {
  const Tensor x = Tensor::from({1, 2, 3, 4, 5, 6}, {2, 3}), view = x.transpose(0, 1).slice(0, 1, 3);
  for (int i = 0; i < 2; ++i) {
    for (std::int64_t j = 0; j < 3; ++j) CHECK(x(i, j) == static_cast<double>(3 * i + j + 1));
  }
  CHECK(view(1, 0) == 3);
  CHECK(view(0, 1) == 5);
  CHECK(Tensor::scalar(2.5)() == 2.5);
  CHECK_THROWS_WITH(x(1, 3), Catch::Contains("needs an index in [0, 3) for dimension 1 of shape [2, 3]; got 3"));
  CHECK_THROWS_AS(x(-1, 0), IndexError);
  CHECK_THROWS_AS(x(1), ShapeError);
  CHECK_THROWS_AS(Tensor()(), ShapeError);
}

TEST_CASE("reshape keeps elements in order and refuses other counts", "[tensor]") {
  const Tensor a = counting({2, 6});
  CHECK(a.reshape({3, 4}).shares_storage_with(a));
  CHECK(a.reshape({3, -1}).shape() == Shape{3, 4});
  CHECK(a.reshape({-1, 2, 2}).shape() == Shape{3, 2, 2});
  CHECK(Tensor::zeros({0, 3}).reshape({0}).shape() == Shape{0});
  CHECK_THROWS_AS(a.reshape({5, -1}), ShapeError);
  CHECK_THROWS_AS(a.reshape({-1, -1}), ShapeError);
  CHECK_THROWS_AS(a.reshape({0, -1}), ShapeError);
  CHECK_THROWS_AS(a.reshape({-2, -6}), ShapeError);
  CHECK_THROWS_WITH(a.reshape({-2, 6}),
                    Catch::Contains("[reshape] needs sizes of at least 0") && Catch::Contains("got -2"));
  CHECK_THROWS_AS(a.reshape({13}), ShapeError);
  CHECK_THROWS_WITH(a.reshape({13}), Catch::Contains("[2, 6]") && Catch::Contains("[13]"));
}

TEST_CASE("expand repeats without copying", "[tensor]") {
  const Tensor a = Tensor::from({1.0f, 2.0f}, {2, 1});
  const Tensor b = a.expand({3, 2, 2});
  CHECK(b.to_doubles() == Doubles{1, 1, 2, 2, 1, 1, 2, 2, 1, 1, 2, 2});
  CHECK(b.stride(0) == 0);
  CHECK(b.stride(2) == 0);
  CHECK(b.shares_storage_with(a));
  CHECK(Tensor::scalar(5).expand({2}).to_doubles() == Doubles{5, 5});
  CHECK(a.expand({2, 0}).numel() == 0);
  CHECK_THROWS_AS(a.expand({2}), ShapeError);
  CHECK_THROWS_AS(a.expand({3, 2}), ShapeError);
  Tensor writable = b;
  CHECK_THROWS_AS(writable.mutable_data<float>(), ShapeError);
}

TEST_CASE("wrong access is refused", "[tensor]") {
  Tensor a = counting({2, 3});
  CHECK_THROWS_AS(a.data<double>(), DTypeError);
  CHECK_THROWS_AS(a.mutable_data<std::int64_t>(), DTypeError);
  CHECK_THROWS_WITH(a.data<double>(), Catch::Contains("f32") && Catch::Contains("f64"));
  CHECK_THROWS_AS(a.transpose(0, 1).data<float>(), ShapeError);
  CHECK_NOTHROW(a.transpose(0, 1).strided_data<float>());
  CHECK_THROWS_AS(a.transpose(0, 1).raw_data(), ShapeError);
  CHECK_THROWS_AS(a.transpose(0, 1).fill(1), ShapeError);
  CHECK_THROWS_AS(a.item(), ShapeError);
  Tensor nothing;
  CHECK_THROWS_AS(nothing.data<float>(), ValueError);
  CHECK_THROWS_AS(nothing.raw_data(), ValueError);
  CHECK_THROWS_AS(nothing.mutable_raw_data(), ValueError);
  CHECK_THROWS_AS(nothing.to_doubles(), ValueError);
  CHECK_THROWS_AS(nothing.item(), ShapeError);
  CHECK_THROWS_AS(a.copy_from(Tensor::zeros({3, 2})), ShapeError);
  CHECK_THROWS_AS(a.copy_from(Tensor::zeros({2, 3}, DType::f64)), DTypeError);
  CHECK_THROWS_AS(a.dim(2), ShapeError);
  CHECK_THROWS_AS(a.transpose(0, -3), ShapeError);
}

TEST_CASE("copy_from takes strided sources, its own transpose included", "[tensor]") {
  Tensor a = counting({2, 2});
  a.copy_from(counting({2, 2}).transpose(0, 1));
  CHECK(a.to_doubles() == Doubles{0, 2, 1, 3});
  a.copy_from(a.transpose(0, 1));
  CHECK(a.to_doubles() == Doubles{0, 1, 2, 3});
  a.copy_from(a);
  CHECK(a.to_doubles() == Doubles{0, 1, 2, 3});
}

TEST_CASE("conversion truncates toward zero and refuses what does not fit", "[tensor]") {
  const Tensor a = Tensor::from({-1.9, 0.5, 2.9}, {3});
  CHECK(a.to(DType::i32).to_doubles() == Doubles{-1, 0, 2});
  CHECK(a.to(DType::f64).shares_storage_with(a));
  CHECK(a.to(DType::f32).dtype() == DType::f32);
  CHECK(counting({2, 2}).transpose(0, 1).to(DType::i64).to_doubles() == Doubles{0, 2, 1, 3});
  CHECK(Tensor::scalar(1e300, DType::f64).to(DType::f32).item() == kInfinity);
  CHECK(std::isnan(Tensor::scalar(kNaN, DType::f64).to(DType::f32).item()));
  CHECK(Tensor::scalar(255.9, DType::f64).to(DType::u8).item() == 255);
  CHECK(Tensor::scalar(-0.9, DType::f64).to(DType::u8).item() == 0);
  CHECK(Tensor::scalar(-2147483648.0, DType::f64).to(DType::i32).item() == -2147483648.0);
  CHECK_THROWS_AS(Tensor::scalar(2147483648.0, DType::f64).to(DType::i32), ValueError);
  CHECK_THROWS_AS(Tensor::scalar(9223372036854775808.0, DType::f64).to(DType::i64), ValueError);
  CHECK_THROWS_AS(Tensor::scalar(kNaN).to(DType::i64), ValueError);
  CHECK_THROWS_AS(Tensor::scalar(kInfinity).to(DType::i32), ValueError);
  CHECK_THROWS_AS(Tensor::scalar(-1, DType::i64).to(DType::u8), ValueError);
  CHECK_THROWS_AS(Tensor::scalar(256, DType::i64).to(DType::u8), ValueError);
  CHECK_THROWS_AS(Tensor::full({2}, 300, DType::u8), ValueError);
  CHECK_THROWS_WITH(Tensor::full({2}, 1e39), Catch::Contains("needs values within the range of f32; got 1e+39"));
  CHECK(Tensor::full({2}, -kInfinity).to_doubles() == Doubles(2, -kInfinity));
  CHECK(Tensor::full({1}, 3.4028234663852886e38).item() == 3.4028234663852886e38);
}

TEST_CASE("identical compares bit patterns", "[tensor]") {
  CHECK(identical(Tensor::scalar(kNaN), Tensor::scalar(kNaN)));
  CHECK_FALSE(identical(Tensor::scalar(0.0), Tensor::scalar(-0.0)));
  CHECK_FALSE(identical(Tensor::zeros({2}), Tensor::zeros({2, 1})));
  CHECK_FALSE(identical(Tensor::zeros({2}), Tensor::zeros({2}, DType::i32)));
  CHECK_FALSE(identical(Tensor::zeros({2}), Tensor::from({0.0f, 1.0f}, {2})));
  CHECK(identical(Tensor::zeros({0}), Tensor::zeros({0})));
  CHECK(identical(Tensor(), Tensor()));
  CHECK_FALSE(identical(Tensor(), Tensor::zeros({0})));
}

TEST_CASE("all_finite finds one bad element anywhere", "[tensor]") {
  for (const double bad : {kNaN, kInfinity, -kInfinity}) {
    for (const DType dtype : {DType::f32, DType::f64}) {
      for (std::size_t at : {0, 7, 36}) {
        Doubles values(37, 1e38);
        CHECK(all_finite(Tensor::from(values, {37}).to(dtype)));
        values[at] = bad;
        CHECK_FALSE(all_finite(Tensor::from(values, {37}).to(dtype)));
      }
    }
  }
  CHECK(all_finite(Tensor::zeros({3}, DType::i64)));
  CHECK(all_finite(Tensor::zeros({0})));
}

TEST_CASE("tensors print type, shape and the first elements", "[tensor]") {
  std::ostringstream out;
  out << Tensor::from({1.5f, -2.0f}, {2}) << ' ' << Tensor();
  CHECK(out.str() == "f32[2] {1.5, -2} undefined");
  std::ostringstream many;
  many << Tensor::zeros({100}, DType::u8);
  CHECK_THAT(many.str(), Catch::EndsWith(", ...}"));
}

TEST_CASE("offsets stay what they were when they were checked", "[tensor]") {
  Tensor bounds = Tensor::from<std::int64_t>({0, 2, 3}, {3});
  const Offsets offsets(bounds), part(bounds.slice(0, 0, 2));
  bounds.mutable_data<std::int64_t>()[1] = 100;
  CHECK(offsets.at(1) == 2);
  CHECK(part.at(1) == 2);
  const std::int64_t* const place = bounds.data<std::int64_t>();
  bounds.mutable_data<std::int64_t>()[1] = 1;
  CHECK(Offsets(std::move(bounds)).bounds().data() == place);
}

}  // namespace tensor_test
