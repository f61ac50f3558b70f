#pragma once

#include <functional>
#include <string>

#include "tally/core/options/option_tables.h"
#include "tally/nn/attention/attention.h"
#include "tally/nn/attention/multi_head.h"

// Attentions by name: what a config chooses and a study compares. To add one, write the kind
// (nn/attention/attention.h), or a core for MultiHead, and a row of the table: in attention_kinds.cpp, or in a program
// of your own on a copy of the table.

namespace tally::nn {

/// A row of the table of attentions: a kind, and the options that it alone has.
struct AttentionRow {
  std::string name, summary;
  AnyOptions options = {};
  bool causal = true;  ///< is there a causal form?
  bool smooth = true;  ///< false: gradients pass straight through codes, which no numeric derivative sees
  /// With the key of the layer.
  std::function<Attention(const AnyOptions& options, const AttentionSettings& settings, RngKey key)> make = {};
};

/// A row for a kind with `make(const O&, const AttentionSettings&, RngKey)`.
template <AttentionKind K, Listed O>
AttentionRow attention_row(const std::string& name, const std::string& summary, O defaults) {
  return {.name = name,
          .summary = summary,
          .options = std::move(defaults),
          .make = [name](const AnyOptions& options, const AttentionSettings& settings, RngKey key) {
            return Attention(name, K::make(options.as<O>(), settings, key));
          }};
}

/// A row for a core of MultiHead with `make(const O&, const AttentionSettings&, RngKey)`.
template <class Core, Listed O>
AttentionRow multi_head_row(const std::string& name, const std::string& summary, O defaults) {
  return {.name = name,
          .summary = summary,
          .options = std::move(defaults),
          .make = [name](const AnyOptions& options, const AttentionSettings& settings, RngKey key) {
            return Attention(name,
                             MultiHead<Core>::make(Core::make(options.as<O>(), settings, key.fold_in("attention")),
                                                   settings.width, settings.deviation, key));
          }};
}

using AttentionKinds = ChoiceTable<AttentionRow>;
using AttentionChoice = Choice<AttentionRow>;

/// Those of the tree.
const AttentionKinds& attention_kinds();

/// Throws ValueError for settings that do not fit the kind, such as a causal mask where there is no causal form.
Attention make_attention(const AttentionChoice& choice, const AttentionSettings& settings, RngKey key);

}  // namespace tally::nn
