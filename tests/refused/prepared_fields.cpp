// What a model prepares lists its members as modules do. compile.sh reads these lines.
// case 0 compiles
// case 1 refused: fields() must visit every member
#include "tally/recsys/models/prepared.h"

using namespace tally;

namespace {

struct Values {
  recsys::BatchItems items;
  Var table;
  std::optional<Var> absent;
  std::vector<Var> errors;
  Tensor codes;
  static constexpr void fields(auto& self, auto&& visit) {
    visit("items", self.items);
    visit("table", self.table);
    visit("absent", self.absent);
    visit("errors", self.errors);
#if CASE == 0
    visit("codes", self.codes);
#endif
  }
};

}  // namespace

std::size_t count() { return recsys::Prepared(Values()).vars().size(); }
