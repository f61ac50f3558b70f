#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace tally::kernels {

/// Lookups in packed documents, in the order of their places.
struct LookupOrder {
  std::span<const std::int64_t> bounds;   ///< document d occupies rows [bounds[d], bounds[d + 1])
  std::span<const std::int64_t> places;   ///< ascending
  std::span<const std::int64_t> lookups;  ///< which one each is: its row among queries and results

  std::int64_t documents() const { return static_cast<std::int64_t>(bounds.size()) - 1; }
  std::int64_t row(std::int64_t document) const { return bounds[static_cast<std::size_t>(document)]; }
  /// Position of the first lookup at a row of at least this.
  std::int64_t at(std::int64_t row) const;
  std::int64_t place(std::int64_t position) const { return places[static_cast<std::size_t>(position)]; }
  const std::int64_t* lookups_from(std::int64_t position) const { return lookups.data() + position; }
};

/// A document that is looked up: its rows, and its lookups [first, end) in their order.
struct LookedUp {
  std::int64_t row, length;
  std::int64_t first, end;
};
/// Those of the documents that are, one after the other.
std::vector<LookedUp> looked_up(const LookupOrder& order);

/// The places in ascending order, and which lookup each is of; of equals the first comes first.
void sort_lookups(std::span<const std::int64_t> places, std::span<std::int64_t> sorted,
                  std::span<std::int64_t> lookups);

/// to[i] = from[lookups[i]] for n rows of `width` elements: to's are dense, from's lie `stride` apart.
template <class T>
void gather_lookups(const T* from, std::int64_t stride, const std::int64_t* lookups, std::int64_t n, std::int64_t width,
                    T* to);
/// to[lookups[i]] = from[i], or += when `add`; both are dense.
template <class T>
void scatter_lookups(const T* from, const std::int64_t* lookups, std::int64_t n, std::int64_t width, bool add, T* to);

}  // namespace tally::kernels
