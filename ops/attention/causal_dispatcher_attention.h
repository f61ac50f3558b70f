#pragma once

#include "tally/ops/attention/dispatcher_attention.h"

namespace tally::ops {

/// Causal dispatcher attention: row t gets what dispatcher_attention() with the same inputs would give it if its
/// sequence ended at t, exactly and in linear time (docs/elastic.md derives it).
///
/// Inputs as there. Expert queries are not those that a layer before returned: its experts would depend on t. Returns
/// [T, heads * o].
///
/// The experts of row t are never formed: W_K2 is applied to queries, W_V2 to what was read, and a chunk of 32 rows
/// meets the sums of earlier rows, and its own rows, by matrix products. Time O(T (heads k D + D^2)), without the
/// factor `heads` where projections are a head's own. Sums run in double, relative to a score that no later row
/// decides, so what follows a row does not change it by a bit. A chunk ends where a score rises by more than 30, so
/// that no spread of scores overflows or loses rows; where every row outbids all before it by that much, each costs as
/// much as a chunk.
///
/// Keeps its inputs, and the sums heads * k (e + 3) in f64 at every 512th row of a sequence; backward computes the rest
/// again. A non-finite key or value makes the rows that see it NaN, and rows of its chunk before it too. Throws as
/// dispatcher_attention().
Var causal_dispatcher_attention(const DispatcherInputs& in, const Offsets& offsets,
                                const DispatcherOptions& options = {});

}  // namespace tally::ops
