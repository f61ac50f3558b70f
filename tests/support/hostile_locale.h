#pragma once

#include <clocale>
#include <cstdlib>
#include <filesystem>
#include <locale>
#include <string>

namespace tally::test {

/// What a program around the library may have done, for a scope: a global C++ locale with a decimal comma and groups of
/// digits, and the C locale de_DE.UTF-8, which is made by `localedef` in the build directory where it is not installed.
class HostileLocale {
 public:
  HostileLocale()
      : before_(std::locale::global(std::locale(std::locale::classic(), new Punctuation))),
        c_before_(std::setlocale(LC_ALL, nullptr)),
        has_c_locale_(set_c_locale() || (make_c_locale() && set_c_locale())) {}
  ~HostileLocale() {
    std::locale::global(before_);
    std::setlocale(LC_ALL, c_before_.c_str());
  }
  HostileLocale(const HostileLocale&) = delete;
  HostileLocale& operator=(const HostileLocale&) = delete;

  /// Whether the C locale is there; the C++ one always is.
  bool has_c_locale() const { return has_c_locale_; }

 private:
  struct Punctuation : std::numpunct<char> {
    char do_decimal_point() const override { return ','; }
    char do_thousands_sep() const override { return '.'; }
    std::string do_grouping() const override { return "\3"; }
  };

  static bool set_c_locale() { return std::setlocale(LC_ALL, "de_DE.UTF-8") != nullptr; }

  static bool make_c_locale() {
    const std::string folder = TALLY_BINARY_DIR "/locale", made = folder + "/de_DE.UTF-8";
    if (!std::filesystem::exists(made)) {
      std::filesystem::create_directories(folder);
      // Under a name of its own first: other tests may be about to make it too.
      std::string own = folder + "/new-XXXXXX";
      if (::mkdtemp(own.data()) == nullptr) return false;
      const std::string command = "localedef -i de_DE -f UTF-8 '" + own + "/de_DE.UTF-8' >/dev/null 2>&1";
      const bool ok = std::system(command.c_str()) == 0;
      std::error_code ignored;
      if (ok) std::filesystem::rename(own + "/de_DE.UTF-8", made, ignored);
      std::filesystem::remove_all(own, ignored);
    }
    ::setenv("LOCPATH", folder.c_str(), 1);
    return std::filesystem::exists(made);
  }

  std::locale before_;
  std::string c_before_;
  bool has_c_locale_;
};

}  // namespace tally::test
