#pragma once

#include <cstdint>

#include "tally/core/offsets.h"
#include "tally/nn/module.h"

// How queries read documents (de Brébisson & Vincent, arXiv 1609.05866). An encoder has turned the tokens of a document
// into rows h_1 ... h_n of `width` numbers, another one a question into a query q of as many; a reader answers with a
// row R of the same width. A kind of reader is a module with
//
//   Var operator()(const Var& rows, const Var& queries, const Lookups&, const Context&) const;
//
// rows [T, width] of all documents, queries [M, width], answers [M, width]. A query sees the rows of its document up to
// its place and no others, so an answer may be given while a document is still read.

namespace tally::nn {

/// Where queries read.
struct Lookups {
  Offsets offsets;  ///< [N + 1] where each document begins
  Tensor places;    ///< i64 [M] for each query the last row that it sees, of all T rows
};

/// The number of rows that each query sees, floating [M, 1]. Places must be those of rows.
Tensor rows_seen(const Lookups& lookups, DType dtype);

/// For lookups at the ends of whole documents, in the order of the documents: which queries [N + 1] are whose. No
/// sequence for others, and for none.
Offsets queries_of_whole_documents(const Lookups& lookups);

/// Throws ShapeError, DTypeError, and IndexError naming the lookup, for what no reader of this width can read.
void check_lookups(const Var& rows, const Var& queries, const Lookups& lookups, std::int64_t width);

template <class K>
concept ReaderKind = Module<K> &&
    requires(const K& kind, const Var& rows, const Lookups& lookups, const Context& context) {
  { kind(rows, rows, lookups, context) } -> std::convertible_to<Var>;
};

}  // namespace tally::nn
