#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <stdexcept>
#include <string_view>
#include <type_traits>
#include <utility>

// Is a struct's list of its members complete? Answered when it compiles: what C++ takes as initial values of the struct
// is counted, and `fields` is called on an object that is never made. So `fields` is `static constexpr`, and visits
// without looking at a member's value.

namespace tally::nn::detail {

/// Stands for an initial value of any member.
struct AnyMember {
  template <class T>
  operator T() const {  // NOLINT: converts to anything
    throw std::logic_error("AnyMember is never made");
  }
};

constexpr std::size_t kMostMembers = 64;

template <class M, std::size_t... I>
constexpr bool takes_values(std::index_sequence<I...>) {
  return requires { M{(static_cast<void>(I), AnyMember{})...}; };
}

/// Number of members of an aggregate without C arrays; a base class counts as one.
template <class M, std::size_t count = 0>
constexpr std::size_t count_members() {
  if constexpr (count > kMostMembers) {
    return count;
  } else if constexpr (takes_values<M>(std::make_index_sequence<count>()) &&
                       !takes_values<M>(std::make_index_sequence<count + 1>())) {
    return count;
  } else {
    return count_members<M, count + 1>();
  }
}

/// What a list visits. Two visits of one member, or two of one name, are counted as one.
class VisitedMembers {
 public:
  constexpr void operator()(std::string_view name, auto& member) {
    const void* const place = std::addressof(member);
    bool known = count_ == kMostMembers;
    for (std::size_t i = 0; i < count_; ++i) known = known || names_[i] == name || places_[i] == place;
    if (known) {
      repeated_ = true;
      return;
    }
    names_[count_] = name;
    places_[count_++] = place;
  }
  constexpr std::size_t count() const { return count_; }
  constexpr bool repeated() const { return repeated_; }

 private:
  std::array<std::string_view, kMostMembers> names_{};
  std::array<const void*, kMostMembers> places_{};
  std::size_t count_ = 0;
  bool repeated_ = false;
};

/// Room for a struct that is never made.
template <class M>
union Unmade {
  constexpr Unmade() : nothing() {}
  constexpr ~Unmade() {}  // NOLINT: there is no M to destroy
  char nothing;
  M module;
};
#if defined(__clang__)  // which takes no undefined object of a type in an unnamed namespace
template <class M>
inline Unmade<M> unmade;
#else  // GCC would emit a defined one
template <class M>
extern Unmade<M> unmade;
#endif

template <class M>
constexpr VisitedMembers visited_members() {
  VisitedMembers visited;
  M::fields(unmade<M>.module, visited);
  return visited;
}

template <class M>
concept ConstantFields = requires {
  typename std::integral_constant<std::size_t, visited_members<M>().count()>;
};

/// Does not compile for a list that is not complete.
template <class M>
constexpr void check_fields() {
  static_assert(std::is_aggregate_v<M>, "a struct with fields() must be a plain one: public members, no constructors");
  static_assert(ConstantFields<M>,
                "fields() must be 'static constexpr void', and must visit without looking at a member's value");
  if constexpr (std::is_aggregate_v<M> && ConstantFields<M>) {
    static_assert(!visited_members<M>().repeated(), "fields() visits a member twice, or gives two the same name");
    static_assert(visited_members<M>().repeated() || visited_members<M>().count() == count_members<M>(),
                  "fields() must visit every member of the struct: add a visit(\"name\", self.name) for each that is "
                  "missing (base classes and C arrays are not possible; a std::array is)");
  }
}

}  // namespace tally::nn::detail
