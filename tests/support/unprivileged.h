#pragma once

#include <unistd.h>

#include "tally/core/error.h"

namespace tally::test {

/// The superuser may write everywhere: for a scope, this process is nobody. For others nothing changes.
class Unprivileged {
 public:
  Unprivileged() : before_(::geteuid()) {
    constexpr uid_t kNobody = 65534;
    check<IoError>(before_ != 0 || ::seteuid(kNobody) == 0, "Unprivileged", "cannot give up rights");
  }
  ~Unprivileged() { (void)(::seteuid(before_) != 0); }
  Unprivileged(const Unprivileged&) = delete;
  Unprivileged& operator=(const Unprivileged&) = delete;

 private:
  uid_t before_;
};

}  // namespace tally::test
