#include "tally/ops/attention/rotary.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "tally/autograd/tape.h"
#include "tally/ops/entries.h"
#include "tally/ops/kernels/rotary.h"

namespace tally::ops {
namespace {

constexpr std::string_view kName = "rotary";

/// Beyond, the reduction of an angle would show in f32.
constexpr std::int64_t kLargestPosition = std::int64_t{1} << 40;

struct RotaryRule {
  static constexpr std::string_view name = kName;
  std::int64_t heads, pairs;
  bool interleaved;
  double base;
  Saved positions, cosines, sines;

  template <class T>
  Tensor turned(const Tensor& x, bool inverse) const {
    const auto table = [](const Saved& saved) { return saved.kept() ? saved.get().data<T>() : nullptr; };
    Tensor y(x.shape(), x.dtype());
    kernels::rotate<T>({positions.get().span<std::int64_t>(), heads, x.dim(1) / heads, pairs, interleaved, base,
                        table(cosines), table(sines)},
                       inverse, x.data<T>(), y.mutable_data<T>());
    return y;
  }

  void backward(BackwardContext& g) const {
    const Tensor& gy = g.cotangent();
    dispatch_floating(gy.dtype(), name, [&]<class T>(T) { g.give(0, turned<T>(gy, true)); });
  }
};

/// Columns of a head that turn. Throws what rotary() says of options.
std::int64_t checked_width(const Var& x, const RotaryOptions& options) {
  check<DTypeError>(is_floating(x.dtype()), kName, "needs x of a floating type; got ", x.dtype());
  check<ShapeError>(x.rank() == 2, kName, "needs x [T, heads * width]; got ", x.shape());
  check<ValueError>(options.heads > 0 && x.dim(1) % options.heads == 0, kName,
                    "needs heads that divide the columns of x ", x.shape(), "; got ", options.heads);
  const std::int64_t head = x.dim(1) / options.heads;
  const bool tables = options.cosines.defined();
  check<ValueError>(tables == options.sines.defined(), kName, "needs cosines and sines or neither; got ",
                    tables ? "cosines" : "sines", " alone");
  if (tables) {
    const Tensor &cosines = options.cosines, &sines = options.sines;
    check<DTypeError>(cosines.dtype() == x.dtype() && sines.dtype() == x.dtype(), kName,
                      "needs cosines and sines of the type of x; got x ", x.dtype(), ", cosines ", cosines.dtype(),
                      " and sines ", sines.dtype());
    check<ShapeError>(cosines.rank() == 2 && cosines.shape() == sines.shape() && 2 * cosines.dim(1) <= head, kName,
                      "needs cosines and sines [P, R / 2] with R at most a head's width ", head, "; got ",
                      cosines.shape(), " and ", sines.shape());
    check<ValueError>(options.rotary_width == 0 && options.base == RotaryOptions{}.base, kName,
                      "takes the rotary width and the angles from cosines and sines; got rotary_width ",
                      options.rotary_width, " and base ", options.base, " beside them");
    return 2 * cosines.dim(1);
  }
  check<ValueError>(std::isfinite(options.base) && options.base > 0, kName, "needs a base above 0; got ", options.base);
  const std::int64_t width = options.rotary_width == 0 ? head : options.rotary_width;
  check<ValueError>(width >= 0 && width <= head && width % 2 == 0, kName,
                    "needs an even rotary width of at most a head's ", head, "; got ", width);
  return width;
}

void check_positions(const Tensor& positions, const RotaryOptions& options) {
  const std::span<const std::int64_t> all = positions.span<std::int64_t>();
  if (all.empty()) return;
  const auto [least, most] = std::minmax_element(all.begin(), all.end());
  if (options.cosines.defined()) {
    const std::int64_t bound = options.cosines.dim(0);
    check<IndexError>(*least >= 0 && *most < bound, kName, "needs positions in [0, ", bound,
                      "), the rows of cosines and sines; got ", *least < 0 ? *least : *most);
    return;
  }
  check<ValueError>(*least >= -kLargestPosition && *most <= kLargestPosition, kName,
                    "needs positions of at most 2^40 in size; got ", *most > kLargestPosition ? *most : *least);
}

}  // namespace

Var rotary(const Var& x, const Tensor& positions, const RotaryOptions& options) {
  const std::int64_t width = checked_width(x, options);
  check<DTypeError>(positions.dtype() == DType::i64, kName, "needs positions i64; got ", positions.dtype());
  check<ShapeError>(positions.shape() == Shape{x.dim(0)}, kName, "needs positions [T] with T = ", x.dim(0), "; got ",
                    positions.shape());
  const Tensor at = positions.contiguous();
  check_positions(at, options);
  const auto table = [](const Tensor& given) { return given.defined() ? Saved(given.contiguous()) : Saved(); };
  RotaryRule rule{options.heads,       width / 2, options.pairs == RotaryPairs::interleaved,
                  options.base,        Saved(at), table(options.cosines),
                  table(options.sines)};
  Tensor y;
  dispatch_floating(x.dtype(), kName, [&]<class T>(T) { y = rule.turned<T>(x.value().contiguous(), false); });
  return record(std::move(rule), {&x}, std::move(y));
}

Var rotary(const Var& x, const Offsets& offsets, const Tensor& starts, const RotaryOptions& options) {
  checked_width(x, options);
  offsets.check_rows(x.dim(0), kName);
  Tensor first;
  if (starts.defined()) {
    check<DTypeError>(starts.dtype() == DType::i64, kName, "needs starts i64; got ", starts.dtype());
    check<ShapeError>(starts.shape() == Shape{offsets.count()}, kName, "needs starts [N] with N = ", offsets.count(),
                      "; got ", starts.shape());
    first = starts.contiguous();
    // So that no sum with a place overflows.
    for (const std::int64_t start : first.span<std::int64_t>()) {
      check<ValueError>(std::abs(start) <= kLargestPosition, kName,
                        "needs positions of at most 2^40 in size; got start ", start);
    }
  }
  Tensor positions({x.dim(0)}, DType::i64);
  kernels::packed_positions(offsets.bounds(), first.defined() ? first.data<std::int64_t>() : nullptr,
                            positions.mutable_data<std::int64_t>());
  return rotary(x, positions, options);
}

namespace {

/// x, positions, offsets, starts, cosines, sines: all of them, for sequences of these lengths and `table` rows.
std::vector<Tensor> inputs_of(const std::vector<std::int64_t>& lengths, std::int64_t columns, std::int64_t pairs,
                              std::int64_t table, std::uint64_t stream) {
  const std::int64_t rows = std::accumulate(lengths.begin(), lengths.end(), std::int64_t{0});
  const auto count = static_cast<std::int64_t>(lengths.size());
  return {sample_normal({rows, columns}, stream),    sample_integers({rows}, stream + 1, table),
          Offsets::from_lengths(lengths).tensor(),   sample_integers({count}, stream + 2, 3),
          sample_normal({table, pairs}, stream + 3), sample_normal({table, pairs}, stream + 4)};
}

/// The same with those inputs alone.
std::vector<Tensor> with(std::vector<Tensor> inputs, const std::vector<std::size_t>& given) {
  for (std::size_t i = 1; i < inputs.size(); ++i) {
    if (std::find(given.begin(), given.end(), i) == given.end()) inputs[i] = Tensor();
  }
  return inputs;
}

constexpr std::size_t kPositions = 1, kOffsets = 2, kStarts = 3, kCosines = 4, kSines = 5;

std::vector<OpSample> samples() {
  const auto integer = [](std::int64_t value) { return OptionValue(value); };
  const OptionValue interleaved = std::string("interleaved");
  std::vector<OpSample> all;
  const auto add = [&](std::string name, std::vector<Tensor> inputs, const OpOptions& options = {}) {
    all.push_back({std::move(name), std::move(inputs), options});
  };
  const auto placed = [](const std::vector<std::int64_t>& lengths, std::int64_t columns, std::uint64_t stream) {
    return with(inputs_of(lengths, columns, 1, 9, stream), {kOffsets});
  };
  const auto at = [](const std::vector<std::int64_t>& positions, std::int64_t columns) {
    const auto rows = static_cast<std::int64_t>(positions.size());
    return std::vector<Tensor>{sample_normal({rows, columns}, 90), Tensor::from(positions, {rows}), {}, {}, {}, {}};
  };
  add("odd", placed({3, 0, 1, 5}, 6, 1));
  add("odd, interleaved", placed({3, 0, 1, 5}, 6, 1), {{"pairs", interleaved}});
  add("heads, a part of each", placed({2, 4}, 21, 11), {{"heads", integer(3)}, {"rotary_width", integer(4)}});
  add("heads, a part of each, interleaved", placed({2, 4}, 21, 11),
      {{"heads", integer(3)}, {"rotary_width", integer(4)}, {"pairs", interleaved}});
  add("one", placed({1}, 2, 21));
  add("no row", placed({}, 4, 31));
  add("no columns", placed({2, 1}, 0, 41));
  add("wide", placed({3}, 134, 51));
  add("wide, interleaved", placed({3}, 134, 51), {{"pairs", interleaved}});
  add("long", placed({300, 1, 70}, 4, 61), {{"base", 100.0}});
  add("base of one", placed({5}, 6, 71), {{"base", OptionValue(1.0)}});
  add("tables of no angle", with(inputs_of({4, 2}, 14, 3, 5, 81), {kPositions, kCosines, kSines}),
      {{"heads", integer(2)}});
  add("far", at({1'000'000, 3, 999'999, -70}, 6));
  // More rows than a table of angles has, and further apart than that.
  std::vector<std::int64_t> apart;
  for (std::int64_t i = 0; i < 70; ++i) apart.push_back(i * i * 200 - 5000);
  add("far apart", at(apart, 4), {{"pairs", interleaved}});
  add("extreme", at({1'000'000'000, -1'000'000'000, 1LL << 40}, 2));
  return all;
}

std::vector<OpError> errors() {
  const auto replaced = [](std::size_t input, Tensor tensor, const std::vector<std::size_t>& given) {
    std::vector<Tensor> inputs = with(inputs_of({2, 3}, 6, 2, 9, 1), given);
    inputs[input] = std::move(tensor);
    return inputs;
  };
  const std::vector<Tensor> placed = with(inputs_of({2, 3}, 6, 2, 9, 1), {kOffsets});
  const auto positions = [](std::int64_t last) { return Tensor::from<std::int64_t>({0, 1, 2, 3, last}, {5}); };
  const std::vector<std::size_t> by_place{kPositions}, by_table{kPositions, kCosines, kSines},
      by_offsets{kOffsets, kStarts};
  const std::vector<Tensor> tables = with(inputs_of({2, 3}, 6, 2, 9, 1), by_table);
  return {
      {"rank", replaced(0, sample_normal({5}, 1), {kOffsets}), {}, "needs x [T, heads * width]; got [5]"},
      {"heads", placed, {{"heads", std::int64_t{4}}}, "heads that divide the columns of x [5, 6]; got 4"},
      {"no heads", placed, {{"heads", std::int64_t{0}}}, "heads that divide the columns"},
      {"odd head", placed, {{"heads", std::int64_t{2}}}, "an even rotary width of at most a head's 3; got 3"},
      {"rotary width", placed, {{"rotary_width", std::int64_t{8}}}, "at most a head's 6; got 8"},
      {"negative width", placed, {{"rotary_width", std::int64_t{-2}}}, "at most a head's 6; got -2"},
      {"pairs", placed, {{"pairs", std::string("thirds")}}, "thirds"},
      {"base", placed, {{"base", 0.0}}, "a base above 0; got 0"},
      {"positions", replaced(kPositions, Tensor::arange(4), by_place), {}, "positions [T] with T = 5; got [4]"},
      {"type of positions", replaced(kPositions, positions(4).to(DType::i32), by_place), {}, "positions i64; got i32"},
      {"too far", replaced(kPositions, positions((1LL << 40) + 1), by_place), {}, "2^40 in size; got 1099511627777"},
      {"starts", replaced(kStarts, Tensor::arange(3), by_offsets), {}, "starts [N] with N = 2; got [3]"},
      {"start too far",
       replaced(kStarts, Tensor::from<std::int64_t>({0, 1LL << 50}, {2}), by_offsets),
       {},
       "got start"},
      {"rows", replaced(kOffsets, Offsets::single(6).tensor(), by_offsets), {}, "number of rows 5; got 6"},
      {"both", inputs_of({2, 3}, 6, 2, 9, 1), {}, "needs positions, or offsets"},
      {"neither", with(inputs_of({2, 3}, 6, 2, 9, 1), {}), {}, "needs positions, or offsets"},
      {"starts without offsets", with(inputs_of({2, 3}, 6, 2, 9, 1), {kPositions, kStarts}), {}, "needs positions, or"},
      {"sines alone", with(inputs_of({2, 3}, 6, 2, 9, 1), {kPositions, kSines}), {}, "got sines alone"},
      {"cosines alone", with(inputs_of({2, 3}, 6, 2, 9, 1), {kPositions, kCosines}), {}, "got cosines alone"},
      {"shape of tables", replaced(kSines, sample_normal({9, 3}, 1), by_table), {}, "got [9, 2] and [9, 3]"},
      {"types", replaced(kSines, sample_normal({9, 2}, 1).to(DType::f32), by_table), {}, "of the type of x"},
      {"beyond the tables", replaced(kPositions, positions(9), by_table), {}, "positions in [0, 9)"},
      {"width beside tables", tables, {{"rotary_width", std::int64_t{4}}}, "got rotary_width 4"},
      {"base beside tables", tables, {{"base", 100.0}}, "and base 100 beside them"}};
}

std::vector<Var> call(std::span<const Var> in, const OpOptions& options) {
  const RotaryOptions read{options.integer("heads", 1),
                           options.integer("rotary_width", 0),
                           value_of<RotaryPairs>(options.text("pairs", "halves"), "option 'pairs'"),
                           options.number("base", RotaryOptions{}.base),
                           in[kCosines].value(),
                           in[kSines].value()};
  check<ConfigError>(
      in[kPositions].defined() != in[kOffsets].defined() && (in[kOffsets].defined() || !in[kStarts].defined()), kName,
      "needs positions, or offsets and starts or not");
  if (in[kPositions].defined()) return {rotary(in[0], in[kPositions].value(), read)};
  return {rotary(in[0], Offsets(in[kOffsets].value()), in[kStarts].value(), read)};
}

}  // namespace

void entries::add_rotary(Catalog& catalog) {
  const std::string fixed = "what a position turns by is given, not learned";
  catalog.add({
      .name = std::string(kName),
      .summary = "Rotary positions: pairs of columns turned by angles in proportion to the row's position.",
      .inputs = {{"x", "[T, heads * width]"},
                 {"positions", "[T]", InputKind::integer, true, "i64; absent: places by the offsets"},
                 {"offsets", "[N + 1]", InputKind::integer, true, "absent: positions are given"},
                 {"starts", "[N]", InputKind::integer, true, "i64, added to places by the offsets"},
                 {"cosines", "[P, R / 2]", InputKind::constant, true, "of each position; absent: by the base", fixed},
                 {"sines", "[P, R / 2]", InputKind::constant, true, "beside the cosines", fixed}},
      .options = {{"heads", std::int64_t{1}, "side by side in the columns"},
                  {"rotary_width", std::int64_t{0}, "columns of a head that turn, the first; 0 for all"},
                  {"pairs", std::string("halves"), "halves or interleaved: which columns turn together"},
                  {"base", RotaryOptions{}.base, "pair i of R / 2 turns by position * base^(-2 i / R)"}},
      .outputs = {{"y", "[T, heads * width]"}},
      .call = call,
      .samples = samples,
      .errors = errors,
      .large =
          [] {
            OpSample large{"large", with(inputs_of(std::vector<std::int64_t>(128, 200), 128, 1, 9, 1), {kOffsets})};
            large.options = {{"heads", std::int64_t{2}}};
            return large;
          },
      .variations =
          [] {
            return std::vector<OpVariations>{{{"turns", inputs_of({3, 0, 1, 2}, 12, 2, 9, 95)},
                                              {{"heads", {std::int64_t{2}}},
                                               {"rotary_width", {std::int64_t{4}}},
                                               {"pairs", {std::string("interleaved")}},
                                               {"base", {50.0}}}}};
          },
      .apart = {{"positions given", "offsets given"},
                {"positions absent", "offsets absent"},
                {"offsets absent", "starts given"},
                {"positions given", "starts given"},
                {"cosines given", "sines absent"},
                {"cosines absent", "sines given"},
                {"cosines given", "rotary_width set"},
                {"cosines given", "base set"},
                {"sines given", "rotary_width set"},
                {"sines given", "base set"}},
  });
}

}  // namespace tally::ops
