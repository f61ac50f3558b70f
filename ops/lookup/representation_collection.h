#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <span>
#include <unordered_map>
#include <vector>

#include "tally/core/io/mapped_file.h"
#include "tally/core/tensor.h"
#include "tally/core/words.h"
#include "tally/ops/lookup/representation.h"

namespace tally::ops {

/// How a collection keeps its matrices.
enum class RepresentationStorage : std::uint32_t {
  f32,   ///< 2 k (k + 1) bytes a document
  int8,  ///< about k (k + 1) / 2: element (i, j) is d_i d_j times a whole number of 8 bits
};
constexpr auto words(RepresentationStorage) {
  using W = Word<RepresentationStorage>;
  return std::array{W{"f32", RepresentationStorage::f32}, W{"int8", RepresentationStorage::int8}};
}

/// Representations of many documents, which one query is asked of: all products C_d q, or all scores q^T C_d q, read
/// each stored number once. Documents are named by numbers of the caller's choice, added and removed at any time.
///
/// int8: with d_i = sqrt(max_j |C_ij| / 127), element (i, j) becomes C_ij / (d_i d_j) rounded, which is within +-127
/// for any symmetric C; an element is wrong by d_i d_j / 2 at most. The factors multiply query and result, not the
/// matrix.
class RepresentationCollection {
 public:
  struct Match {
    std::int64_t id = 0;
    float score = 0;
  };

  /// Empty, for representations of `width`. Throws ValueError below 1.
  RepresentationCollection(std::int64_t width, RepresentationStorage storage);
  /// A saved collection, mapped: documents are read from the file when they are asked. Changes stay in memory until
  /// they are saved. Throws IoError naming what is wrong with the file: not a collection, another version, sizes that
  /// do not fit, damaged ids. (The matrices themselves are not read here; check_contents() does.)
  static RepresentationCollection open(const std::filesystem::path& path);

  std::int64_t width() const { return width_; }
  RepresentationStorage storage() const { return storage_; }
  std::int64_t size() const { return static_cast<std::int64_t>(ids_.size()); }
  /// Ids in the order of products and scores. Removing a document gives its place to the last one.
  std::span<const std::int64_t> ids() const { return ids_; }
  bool contains(std::int64_t id) const { return places_.contains(id); }
  /// Bytes of a document: what a query reads of it.
  std::int64_t document_bytes() const { return stride_; }

  /// Throws ShapeError for another width, ValueError for an id that is there and for elements that are not finite in
  /// f32.
  void add(std::int64_t id, const Representation& document);
  /// Throws IndexError for an id that is not there.
  void remove(std::int64_t id);
  /// out [k] = C_d query of one document. Throws as products(), IndexError for an id that is not there.
  void look_up(std::int64_t id, std::span<const float> query, std::span<float> out) const;

  /// out [size(), k]: C_d query of every document, in order. Throws ShapeError; ValueError for a query that is not
  /// finite. The same bits for any number of threads.
  void products(std::span<const float> query, std::span<float> out) const;
  /// out [size()]: query^T C_d query of every document. Throws as products().
  void scores(std::span<const float> query, std::span<float> out) const;
  /// The `count` documents of the largest scores, best first; ties by place.
  std::vector<Match> best(std::span<const float> query, std::int64_t count) const;

  /// Writes the file that open() maps: whole or not at all. A mapped file may be written over itself.
  void save(const std::filesystem::path& path) const;
  /// Reads every document. Throws IoError naming the id of one whose numbers are not finite.
  void check_contents() const;

 private:
  const std::byte* document(std::int64_t place) const;
  std::byte* mutable_document(std::int64_t place);
  void check_query(std::span<const float> query) const;
  void product(std::int64_t place, const float* query, float* out) const;
  float score(std::int64_t place, const float* query) const;

  std::int64_t width_;
  RepresentationStorage storage_;
  std::int64_t stride_;  ///< bytes from one document to the next, a multiple of a cache line
  std::vector<std::int64_t> ids_;
  std::unordered_map<std::int64_t, std::int64_t> places_;
  MappedFile file_;
  std::int64_t mapped_ = 0;  ///< the first places lie in the file
  std::byte* mapped_documents_ = nullptr;
  std::vector<Tensor> blocks_;  ///< u8, of the other documents
};

}  // namespace tally::ops
