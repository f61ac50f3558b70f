#pragma once

#include <functional>
#include <string>

#include "tally/core/options/option_tables.h"
#include "tally/nn/readers/reader.h"

// Readers by name: what a config chooses and a study compares. To add one, write the kind (nn/readers/kind.h) and a row
// of the table: in reader_kinds.cpp, or in a program of your own on a copy of the table.

namespace tally::nn {

/// A row of the table of readers: a kind, and the options that it alone has.
struct ReaderRow {
  std::string name, summary;
  AnyOptions options = {};
  /// With the key of the reader.
  std::function<Reader(const AnyOptions& options, std::int64_t width, RngKey key)> make = {};
};

/// A row for a kind with `make(const O&, width, RngKey)`.
template <ReaderKind K, Listed O>
ReaderRow reader_row(const std::string& name, const std::string& summary, O defaults) {
  return {.name = name,
          .summary = summary,
          .options = std::move(defaults),
          .make = [name](const AnyOptions& options, std::int64_t width, RngKey key) {
            return Reader(name, width, K::make(options.as<O>(), width, key));
          }};
}

using ReaderKinds = ChoiceTable<ReaderRow>;
using ReaderChoice = Choice<ReaderRow>;

/// Those of the tree.
const ReaderKinds& reader_kinds();

/// A reader of rows of this width. Throws ValueError for a width below 1.
Reader make_reader(const ReaderChoice& choice, std::int64_t width, RngKey key);

}  // namespace tally::nn
