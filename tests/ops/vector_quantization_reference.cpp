#include <algorithm>
#include <cmath>

#include "tests/ops/references.h"

namespace tally::testing {
namespace {

using Row = std::vector<double>;

/// Rows of a matrix or of a stack of matrices.
std::vector<Row> rows_of(const Tensor& tensor) {
  const Row all = tensor.to_doubles();
  const auto width = static_cast<std::size_t>(tensor.dim(-1));
  std::vector<Row> rows(static_cast<std::size_t>(tensor.shape().without(-1).numel()), Row(width));
  for (std::size_t i = 0; i < all.size(); ++i) rows[i / width][i % width] = all[i];
  return rows;
}

double product(const Row& a, const Row& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

/// M c, c or 2 c.
Row projected(const std::string& similarity, const std::vector<Row>& bilinear, const Row& codeword) {
  Row result = codeword;
  for (std::size_t i = 0; i < codeword.size(); ++i) {
    if (similarity == "bilinear") result[i] = product(bilinear[i], codeword);
    if (similarity == "squared_distance") result[i] = 2 * codeword[i];
  }
  return result;
}

std::vector<Tensor> quantized(std::span<const Tensor> in, const ops::OpOptions& options) {
  const std::string similarity = options.text("similarity", "bilinear");
  const bool soft = options.text("assignment", "hard") == "soft", residual = options.flag("residual", true);
  const double temperature = options.number("temperature", 0.7);
  const std::int64_t books = in[1].dim(0), words = in[1].dim(1), width = in[1].dim(2);
  const std::vector<Row> x = rows_of(in[0]), codewords = rows_of(in[1]);
  const std::vector<Row> bilinear = in[2].defined() ? rows_of(in[2]) : std::vector<Row>();
  std::vector<double> reconstruction, logits;
  std::vector<std::int64_t> codes;
  for (const Row& row : x) {
    Row rest = row, sum(row.size(), 0.0);
    for (std::int64_t b = 0; b < books; ++b) {
      Row scores;
      for (std::int64_t w = 0; w < words; ++w) {
        const Row& c = codewords[static_cast<std::size_t>(b * words + w)];
        double score = product(rest, projected(similarity, bilinear, c));
        if (similarity == "squared_distance") score -= product(c, c);
        scores.push_back(score);
      }
      std::size_t best = 0;
      for (std::size_t w = 1; w < scores.size(); ++w) {
        if (scores[w] > scores[best]) best = w;
      }
      double total = 0;
      for (const double score : scores) total += std::exp((score - scores[best]) / temperature);
      Row left = rest;
      for (std::size_t w = 0; w < scores.size(); ++w) {
        const double weight =
            soft ? std::exp((scores[w] - scores[best]) / temperature) / total : (w == best ? 1.0 : 0.0);
        const Row& c = codewords[static_cast<std::size_t>(b * words) + w];
        for (std::size_t i = 0; i < c.size(); ++i) {
          sum[i] += weight * c[i];
          left[i] -= weight * c[i];
        }
        logits.push_back(scores[w] / temperature);
      }
      if (residual) rest = left;
      codes.push_back(static_cast<std::int64_t>(best));
    }
    reconstruction.insert(reconstruction.end(), sum.begin(), sum.end());
  }
  const std::int64_t rows = in[0].dim(0);
  return {Tensor::from(reconstruction, {rows, width}), Tensor::from(logits, {rows, books, words}),
          Tensor::from(codes, {rows, books}).to(words <= 256 ? DType::u8 : DType::i32)};
}

std::vector<Tensor> tables(std::span<const Tensor> in, const ops::OpOptions& options) {
  const std::string similarity = options.text("similarity", "bilinear");
  const std::int64_t books = in[0].dim(0), words = in[0].dim(1), width = in[0].dim(2), columns = books * words;
  const std::int64_t wanted = options.integer("books_together", 0);
  const std::int64_t together = std::min(books, wanted > 0 ? wanted : std::max<std::int64_t>(256 / words, 1));
  const bool needed = options.flag("residual", true) && together > 1;
  const std::int64_t height = needed ? columns : 0, size = needed ? together * words : 0;
  const bool squared = similarity == "squared_distance";
  if (width == 0) {
    return {Tensor({columns, 0}, DType::f64), Tensor::zeros({height, size}, DType::f64),
            Tensor::zeros({squared ? columns : 0}, DType::f64)};
  }
  const std::vector<Row> codewords = rows_of(in[0]);
  const std::vector<Row> bilinear = in[1].defined() ? rows_of(in[1]) : std::vector<Row>();
  std::vector<double> all_projected, products, bias;
  for (std::int64_t a = 0; a < columns; ++a) {
    const Row& c = codewords[static_cast<std::size_t>(a)];
    const Row row = projected(similarity, bilinear, c);
    all_projected.insert(all_projected.end(), row.begin(), row.end());
    if (squared) bias.push_back(-product(c, c));
    for (std::int64_t j = 0; j < size; ++j) {
      const std::int64_t b = a / size * size + j;
      const bool later = b < columns && b / words > a / words;
      products.push_back(later ? product(c, projected(similarity, bilinear, codewords[static_cast<std::size_t>(b)]))
                               : 0);
    }
  }
  return {Tensor::from(all_projected, {columns, width}), Tensor::from(products, {height, size}),
          Tensor::from(bias, {squared ? columns : 0})};
}

std::vector<Tensor> product_quantized(std::span<const Tensor> in, const ops::OpOptions& options) {
  ops::OpOptions of_part = options;
  if (!of_part.contains("similarity")) of_part.set("similarity", std::string("squared_distance"));
  const std::int64_t rows = in[0].dim(0), books = in[1].dim(0), words = in[1].dim(1), width = in[1].dim(2);
  std::vector<double> reconstruction(static_cast<std::size_t>(rows * books * width));
  std::vector<double> logits(static_cast<std::size_t>(rows * books * words));
  std::vector<double> codes(static_cast<std::size_t>(rows * books));
  for (std::int64_t b = 0; b < books; ++b) {
    const std::vector<Tensor> part = quantized(
        std::vector<Tensor>{in[0].slice(1, b * width, (b + 1) * width), in[1].slice(0, b, b + 1), Tensor()}, of_part);
    const auto place = [&](const Tensor& from, std::int64_t size, std::vector<double>& to) {
      const Row values = from.to_doubles();
      for (std::int64_t i = 0; i < rows * size; ++i) {
        to[static_cast<std::size_t>((i / size * books + b) * size + i % size)] = values[static_cast<std::size_t>(i)];
      }
    };
    place(part[0], width, reconstruction);
    place(part[1], words, logits);
    place(part[2], 1, codes);
  }
  return {Tensor::from(reconstruction, {rows, books * width}), Tensor::from(logits, {rows, books, words}),
          Tensor::from(codes, {rows, books}).to(words <= 256 ? DType::u8 : DType::i32)};
}

std::vector<Tensor> decoded(std::span<const Tensor> in, const ops::OpOptions& options) {
  const std::int64_t books = in[0].dim(0), words = in[0].dim(1), width = in[0].dim(2), rows = in[1].dim(0);
  const std::int64_t columns = options.flag("concatenate", false) ? books * width : width;
  const Row codebooks = in[0].to_doubles(), codes = in[1].to_doubles();
  std::vector<double> out(static_cast<std::size_t>(rows * columns));
  for (std::int64_t i = 0; i < rows * books * width; ++i) {
    const std::int64_t column = i % width, book = i / width % books, row = i / width / books;
    const auto code = static_cast<std::int64_t>(codes[static_cast<std::size_t>(row * books + book)]);
    out[static_cast<std::size_t>(row * columns + (columns == width ? 0 : book * width) + column)] +=
        codebooks[static_cast<std::size_t>((book * words + code) * width + column)];
  }
  return {Tensor::from(out, {rows, columns})};
}

}  // namespace

void add_vector_quantization_references(References& references) {
  references["decode_codes"] = decoded;
  references["product_quantization"] = product_quantized;
  references["vector_quantization"] = quantized;
  references["vector_quantization_tables"] = tables;
}

}  // namespace tally::testing
