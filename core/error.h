#pragma once

#include <cstdint>
#include <locale>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace tally {

/// Base of every exception tally throws. The message is one sentence: `[where] what is needed; got ...`.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Shapes or ranks do not fit together.
class ShapeError : public Error {
 public:
  using Error::Error;
};

/// A tensor has another element type than the operation needs.
class DTypeError : public Error {
 public:
  using Error::Error;
};

/// A number is outside its domain: an option, a code outside [0, W), a rate outside [0, 1).
class ValueError : public Error {
 public:
  using Error::Error;
};

/// An index lies outside its range.
class IndexError : public Error {
 public:
  using Error::Error;
};

/// The tape was used wrongly: a stale Var, a second backward, a saved tensor that was overwritten.
class AutogradError : public Error {
 public:
  using Error::Error;
};

/// A file or stream could not be read or written, or its contents are malformed.
class IoError : public Error {
 public:
  using Error::Error;
};

/// A configuration or command line is wrong: unknown key, bad value, missing file name.
class ConfigError : public Error {
 public:
  using Error::Error;
};

/// Work was asked to stop on its way, and did: nothing is wrong.
class Stopped : public Error {
 public:
  using Error::Error;
};

/// A property of the machine or of a linked library rules out going on (the wrong OpenBLAS build, for example).
class BackendError : public Error {
 public:
  using Error::Error;
};

namespace detail {

/// The parts as text, the same in every locale.
template <class... Parts>
std::string join(const Parts&... parts) {
  std::ostringstream out;
  out.imbue(std::locale::classic());  // whatever the host made the global one
  out.exceptions(std::ios::badbit);   // else memory that ends would cut the text short, silently
  ((out << parts), ...);
  return std::move(out).str();
}

}  // namespace detail

/// Throws `E("[where] parts...")`.
template <class E, class... Parts>
[[noreturn]] void fail(std::string_view where, const Parts&... parts) {
  throw E(detail::join('[', where, "] ", parts...));
}

/// Throws `E("[where] parts...")` unless `ok`; the message is formatted only then.
template <class E, class... Parts>
void check(bool ok, std::string_view where, const Parts&... parts) {
  if (!ok) [[unlikely]] {
    fail<E>(where, parts...);
  }
}

}  // namespace tally
