#include "tests/ops/references.h"

namespace tally::testing {

const References& all_references() {
  static const References references = [] {
    References all;
#define TALLY_ADD(name) add_##name##_references(all);
    TALLY_REFERENCES(TALLY_ADD)
#undef TALLY_ADD
    return all;
  }();
  return references;
}

}  // namespace tally::testing
