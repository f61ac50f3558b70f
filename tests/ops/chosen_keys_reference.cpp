// References of attentions that choose their keys: row by row from the definition.
#include <algorithm>
#include <cmath>
#include <functional>

#include "tests/ops/references.h"

namespace tally::testing {
namespace {

using Row = std::vector<double>;

/// A head's rows of one sequence.
std::vector<Row> rows_of(const Tensor& x, std::int64_t heads, std::int64_t head, std::int64_t begin, std::int64_t end) {
  const std::vector<double> all = x.to_doubles();
  const std::int64_t columns = x.dim(1), width = columns / heads;
  std::vector<Row> rows;
  for (std::int64_t i = begin; i < end; ++i) {
    const auto first = all.begin() + i * columns + head * width;
    rows.emplace_back(first, first + width);
  }
  return rows;
}

double product(const Row& a, const Row& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

/// softmax(scores) times values.
Row attend(const Row& scores, const std::vector<Row>& values, std::size_t width) {
  Row out(width, 0.0);
  const double largest = *std::max_element(scores.begin(), scores.end());
  double sum = 0;
  for (const double score : scores) sum += std::exp(score - largest);
  for (std::size_t j = 0; j < scores.size(); ++j) {
    for (std::size_t c = 0; c < width; ++c) out[c] += std::exp(scores[j] - largest) / sum * values[j][c];
  }
  return out;
}

using Body =
    std::function<std::vector<Row>(std::int64_t sequence, std::int64_t head, std::int64_t begin, std::int64_t end)>;

/// Calls body for every head of every sequence; it returns the output's rows.
Tensor by_head(const Tensor& values, const Tensor& offsets, std::int64_t heads, const Body& body) {
  const std::vector<double> bounds = offsets.to_doubles();
  const std::int64_t columns = values.dim(1), width = columns / heads;
  std::vector<double> out(static_cast<std::size_t>(values.numel()));
  for (std::size_t s = 0; s + 1 < bounds.size(); ++s) {
    const auto begin = static_cast<std::int64_t>(bounds[s]), end = static_cast<std::int64_t>(bounds[s + 1]);
    for (std::int64_t h = 0; h < heads; ++h) {
      const std::vector<Row> rows = body(static_cast<std::int64_t>(s), h, begin, end);
      for (std::size_t i = 0; i < rows.size(); ++i)
        std::copy(rows[i].begin(), rows[i].end(),
                  out.begin() + (begin + static_cast<std::int64_t>(i)) * columns + h * width);
    }
  }
  return Tensor::from(out, values.shape());
}

double scale_of(const ops::OpOptions& options, std::size_t width) {
  return options.number("scale", 0) != 0 ? options.number("scale", 0) : 1 / std::sqrt(static_cast<double>(width));
}

std::vector<Tensor> linformer(std::span<const Tensor> in, const ops::OpOptions& options) {
  const std::int64_t heads = options.integer("heads", 1);
  const std::vector<double> e = in[3].to_doubles(), f = in[4].to_doubles();
  const std::int64_t projected = in[3].dim(0), columns = in[3].dim(1);
  const auto project = [&](const std::vector<double>& matrix, const std::vector<Row>& x) {
    std::vector<Row> out;
    for (std::int64_t p = 0; p < projected; ++p) {
      Row row(x[0].size(), 0.0);
      for (std::size_t t = 0; t < x.size(); ++t) {
        for (std::size_t c = 0; c < row.size(); ++c)
          row[c] += matrix[static_cast<std::size_t>(p * columns) + t] * x[t][c];
      }
      out.push_back(row);
    }
    return out;
  };
  return {by_head(in[2], in[5], heads, [&](std::int64_t, std::int64_t h, std::int64_t begin, std::int64_t end) {
    std::vector<Row> out;
    if (begin == end) return out;
    const std::vector<Row> keys = project(e, rows_of(in[1], heads, h, begin, end));
    const std::vector<Row> values = project(f, rows_of(in[2], heads, h, begin, end));
    for (const Row& query : rows_of(in[0], heads, h, begin, end)) {
      Row scores;
      for (const Row& key : keys) scores.push_back(scale_of(options, query.size()) * product(query, key));
      out.push_back(attend(scores, values, values[0].size()));
    }
    return out;
  })};
}

std::vector<Tensor> lsh(std::span<const Tensor> in, const ops::OpOptions& options) {
  const std::int64_t heads = options.integer("heads", 1), chunk = options.integer("chunk", 64);
  const bool causal = options.text("mask", "causal") == "causal";
  const std::vector<double> rotations = in[2].to_doubles();
  const std::int64_t rounds = in[2].dim(0), half = in[2].dim(1);
  return {by_head(in[1], in[3], heads, [&](std::int64_t, std::int64_t h, std::int64_t begin, std::int64_t end) {
    const std::vector<Row> queries = rows_of(in[0], heads, h, begin, end),
                           values = rows_of(in[1], heads, h, begin, end);
    const std::size_t n = queries.size();
    // Bucket of every row in every round, and how many rows of the bucket came before.
    std::vector<std::vector<std::int64_t>> bucket, rank;
    for (std::int64_t r = 0; r < rounds; ++r) {
      bucket.emplace_back();
      rank.emplace_back();
      for (std::size_t i = 0; i < n; ++i) {
        const std::size_t width = queries[i].size();
        Row products;
        for (std::int64_t b = 0; b < half; ++b) {
          const auto at = rotations.begin() + (r * half + b) * static_cast<std::int64_t>(width);
          products.push_back(product(queries[i], Row(at, at + static_cast<std::int64_t>(width))));
        }
        for (std::int64_t b = 0; b < half; ++b) products.push_back(-products[static_cast<std::size_t>(b)]);
        bucket.back().push_back(std::max_element(products.begin(), products.end()) - products.begin());
        rank.back().push_back(std::count(bucket.back().begin(), bucket.back().end() - 1, bucket.back().back()));
      }
    }
    std::vector<Row> out;
    for (std::size_t i = 0; i < n; ++i) {
      Row scores;
      std::vector<Row> seen;
      for (std::size_t r = 0; r < bucket.size(); ++r) {
        for (std::size_t j = 0; j < (causal ? i + 1 : n); ++j) {
          const std::int64_t apart = rank[r][i] / chunk - rank[r][j] / chunk;
          if (bucket[r][i] != bucket[r][j] || apart < 0 || apart > 1) continue;
          const double norm = std::sqrt(product(queries[j], queries[j]));
          const double cosine = norm > 0 ? product(queries[i], queries[j]) / norm : 0;
          scores.push_back(i == j ? -1000 : scale_of(options, queries[i].size()) * cosine);
          seen.push_back(values[j]);
        }
      }
      out.push_back(attend(scores, seen, values[i].size()));
    }
    return out;
  })};
}

/// Soft permutation with plain products of exponentials, in the same order of normalisations.
std::vector<Row> permutation(const Tensor& logits, std::int64_t first, std::int64_t n, bool causal,
                             std::int64_t iterations, double temperature) {
  const std::vector<double> all = logits.to_doubles();
  const auto count = static_cast<std::size_t>(n);
  std::vector<Row> p(count, Row(count, 0.0));
  const auto seen = [&](std::size_t i) { return causal ? i : count; };
  for (std::size_t i = 0; i < count; ++i) {
    const double* row = all.data() + (first + static_cast<std::int64_t>(i)) * logits.dim(1);
    double largest = -1e300;
    for (std::size_t j = 0; j < seen(i); ++j) largest = std::max(largest, row[j] / temperature);
    for (std::size_t j = 0; j < seen(i); ++j) p[i][j] = std::exp(row[j] / temperature - largest);
  }
  const auto normalise_rows = [&] {
    for (Row& row : p) {
      double sum = 0;
      for (const double each : row) sum += each;
      for (double& each : row) each = sum > 0 ? each / sum : 0;
    }
  };
  normalise_rows();
  for (std::int64_t step = 0; step < iterations; ++step) {
    const std::vector<Row> before = p;
    for (std::size_t i = 0; i < count; ++i) {
      for (std::size_t j = 0; j < seen(i); ++j) {
        double sum = 0;
        for (std::size_t other = 0; other < (causal ? i + 1 : count); ++other) sum += before[other][j];
        p[i][j] = before[i][j] / sum;
      }
    }
    normalise_rows();
  }
  return p;
}

std::vector<Tensor> sinkhorn(std::span<const Tensor> in, const ops::OpOptions& options) {
  const std::int64_t heads = options.integer("heads", 1), block = options.integer("block", 64);
  const bool causal = options.text("mask", "causal") == "causal";
  const std::vector<double> bounds = in[4].to_doubles();
  const auto blocks_of = [&](double begin, double end) {
    return (static_cast<std::int64_t>(end - begin) + block - 1) / block;
  };
  return {by_head(in[2], in[4], heads, [&](std::int64_t s, std::int64_t h, std::int64_t begin, std::int64_t end) {
    std::int64_t first = 0;
    for (std::size_t before = 0; before < static_cast<std::size_t>(s); ++before)
      first += blocks_of(bounds[before], bounds[before + 1]);
    const std::int64_t n = blocks_of(bounds[static_cast<std::size_t>(s)], bounds[static_cast<std::size_t>(s) + 1]);
    const std::vector<Row> p =
        permutation(in[3], first, n, causal, options.integer("iterations", 8), options.number("temperature", 0.75));
    const std::vector<Row> queries = rows_of(in[0], heads, h, begin, end), keys = rows_of(in[1], heads, h, begin, end),
                           values = rows_of(in[2], heads, h, begin, end);
    std::vector<Row> out;
    for (std::size_t i = 0; i < queries.size(); ++i) {
      const std::size_t b = i / static_cast<std::size_t>(block), start = b * static_cast<std::size_t>(block);
      Row scores;
      std::vector<Row> seen;
      const auto show = [&](const Row& key, const Row& value) {
        scores.push_back(scale_of(options, key.size()) * product(queries[i], key));
        seen.push_back(value);
      };
      for (std::size_t j = start; j < std::min(keys.size(), start + static_cast<std::size_t>(block)); ++j) {
        if (j <= i || !causal) show(keys[j], values[j]);
      }
      for (std::size_t r = 0; r < static_cast<std::size_t>(block) && (b > 0 || !causal); ++r) {
        Row key(keys[i].size(), 0.0), value(values[i].size(), 0.0);
        double weight = 0;  // of the blocks that have such a row
        for (std::size_t other = 0; other < p.size(); ++other) {
          const std::size_t row = other * static_cast<std::size_t>(block) + r;
          if (row >= keys.size()) continue;
          weight += p[b][other];
          for (std::size_t c = 0; c < key.size(); ++c) key[c] += p[b][other] * keys[row][c];
          for (std::size_t c = 0; c < value.size(); ++c) value[c] += p[b][other] * values[row][c];
        }
        if (weight == 0) continue;
        for (double& each : key) each /= weight;
        for (double& each : value) each /= weight;
        show(key, value);
      }
      out.push_back(attend(scores, seen, values[i].size()));
    }
    return out;
  })};
}

}  // namespace

void add_chosen_keys_references(References& references) {
  references["linformer_attention"] = linformer;
  references["lsh_attention"] = lsh;
  references["sinkhorn_attention"] = sinkhorn;
}

}  // namespace tally::testing
