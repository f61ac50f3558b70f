#include "tally/ops/recurrent/lstm.h"

#include <algorithm>
#include <numeric>

#include "tally/autograd/tape.h"
#include "tally/core/parallel.h"
#include "tally/ops/entries.h"
#include "tally/ops/kernels/columns.h"
#include "tally/ops/kernels/lstm.h"
#include "tally/ops/kernels/step_groups.h"

namespace tally::ops {
namespace {

constexpr std::string_view kName = "lstm";

/// Rows that one task sums for the bias.
constexpr std::int64_t kBiasRows = 256;

struct LstmRule {
  static constexpr std::string_view name = kName;
  Offsets offsets;
  std::int64_t width;
  Saved bounds;  // of the offsets: refuses ones that were overwritten
  Saved saved, states, cells, weight, initial_state, initial_cell;

  template <class T>
  kernels::LstmPlan<T> plan() const {
    return {offsets.bounds(), width, weight.get().data<T>(),
            initial_state.kept() ? initial_state.get().data<T>() : nullptr,
            initial_cell.kept() ? initial_cell.get().data<T>() : nullptr};
  }

  void backward(BackwardContext& g) const {
    bounds.get();
    const Tensor &gs = g.cotangent(0), &gc = g.cotangent(1);
    dispatch_floating(gs.dtype(), name, [&]<class T>(T) {
      Tensor gx({gs.dim(0), 4 * width}, gs.dtype()), of_state, of_cell;
      if (g.needs(3)) of_state = Tensor::zeros(initial_state.get().shape(), gs.dtype());
      if (g.needs(4)) of_cell = Tensor::zeros(initial_cell.get().shape(), gs.dtype());
      kernels::lstm_backward<T>(plan<T>(), {.gradient_states = gs.data<T>(),
                                            .gradient_cells = gc.data<T>(),
                                            .cells = cells.get().data<T>(),
                                            .saved = saved.get().data<T>(),
                                            .gradient_products = gx.mutable_data<T>(),
                                            .gradient_initial_state = g.needs(3) ? of_state.mutable_data<T>() : nullptr,
                                            .gradient_initial_cell = g.needs(4) ? of_cell.mutable_data<T>() : nullptr});
      if (g.needs(1)) g.give(1, weight_gradient<T>(gx));
      if (g.needs(2)) g.give(2, bias_gradient<T>(gx));
      if (g.needs(3)) g.give(3, std::move(of_state));
      if (g.needs(4)) g.give(4, std::move(of_cell));
      if (g.needs(0)) g.give(0, std::move(gx));
    });
  }

 private:
  template <class T>
  Tensor weight_gradient(const Tensor& gx) const {
    const std::int64_t rows = gx.dim(0);
    Tensor previous({rows, width}, gx.dtype()), gradient({4 * width, width}, gx.dtype());
    kernels::previous_rows(offsets.bounds(), width, plan<T>().initial_state, states.get().data<T>(),
                           previous.mutable_data<T>());
    kernels::products_of_rows(rows, 4 * width, width, gx.data<T>(), 4 * width, previous.data<T>(), width,
                              gradient.mutable_data<T>());
    return gradient;
  }

  template <class T>
  Tensor bias_gradient(const Tensor& gx) const {
    const std::int64_t rows = gx.dim(0), columns = 4 * width, blocks = block_count(rows, kBiasRows);
    std::vector<double> sums(static_cast<std::size_t>(blocks * columns));
    parallel_for(rows, kBiasRows, [&](std::int64_t begin, std::int64_t end) {
      kernels::add_column_sums(sums.data() + begin / kBiasRows * columns, gx.data<T>() + begin * columns, end - begin,
                               columns, columns);
    });
    Tensor gradient({columns}, gx.dtype());
    kernels::fold_blocks(gradient.mutable_data<T>(), sums.data(), blocks, columns);
    return gradient;
  }
};

std::vector<Tensor> sample_inputs(const std::vector<std::int64_t>& lengths, std::int64_t width, bool bias, bool state,
                                  bool cell, std::uint64_t stream, double deviation = 1) {
  const std::int64_t rows = std::accumulate(lengths.begin(), lengths.end(), std::int64_t{0});
  const auto count = static_cast<std::int64_t>(lengths.size());
  return {sample_normal({rows, 4 * width}, stream, deviation),
          sample_normal({4 * width, width}, stream + 1, 0.5),
          bias ? sample_normal({4 * width}, stream + 2) : Tensor(),
          state ? sample_normal({count, width}, stream + 3) : Tensor(),
          cell ? sample_normal({count, width}, stream + 4) : Tensor(),
          Offsets::from_lengths(lengths).tensor()};
}

std::vector<OpSample> samples() {
  std::vector<OpSample> all;
  all.push_back({"odd", sample_inputs({3, 0, 1, 5}, 3, true, true, true, 1)});
  all.push_back({"no bias", sample_inputs({2, 4}, 5, false, true, true, 11)});
  all.push_back({"no initial state", sample_inputs({2, 0, 4}, 2, true, false, true, 21)});
  all.push_back({"no initial cell", sample_inputs({2, 0, 4}, 2, true, true, false, 31)});
  all.push_back({"no bias and state", sample_inputs({2, 3}, 2, false, false, true, 141)});
  all.push_back({"no bias and cell", sample_inputs({2, 3}, 2, false, true, false, 151)});
  all.push_back({"one", sample_inputs({1}, 1, false, false, false, 41)});
  all.push_back({"no sequence", sample_inputs({}, 2, true, true, true, 51)});
  all.push_back({"empty sequences", sample_inputs({0, 0}, 2, true, true, true, 61)});
  all.push_back({"many sequences",
                 sample_inputs({1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3}, 2, true, true, true, 71)});
  all.push_back({"long", sample_inputs({60}, 2, true, false, false, 81)});
  all.push_back({"blocks of rows", sample_inputs({150, 110}, 1, true, true, true, 91)});
  all.push_back({"above every vector", sample_inputs({2, 1}, 67, true, true, true, 101)});
  // Gates that are 0 or 1 to the last bit.
  OpSample extreme{"extreme", sample_inputs({6, 2}, 4, true, true, true, 111, 200)};
  extreme.gradient = false;
  all.push_back(std::move(extreme));
  return all;
}

}  // namespace

LstmResult lstm(const Var& products, const Var& weight, const Var& bias, const Var& initial_state,
                const Var& initial_cell, const Offsets& offsets) {
  const DType dtype = products.dtype();
  for (const Var* each : {&weight, &bias, &initial_state, &initial_cell}) {
    check<DTypeError>(is_floating(dtype) && (!each->defined() || each->dtype() == dtype), kName,
                      "needs inputs of one floating type; got products ", dtype, " and ",
                      each->defined() ? each->dtype() : dtype);
  }
  const std::int64_t width = weight.rank() == 2 ? weight.dim(1) : 0;
  const auto fits = [](const Var& x, const Shape& shape) { return !x.defined() || x.shape() == shape; };
  const Shape initial{offsets.count(), width};
  const auto given = [](const char* name, const Var& x) {
    return x.defined() ? detail::join(", ", name, ' ', x.shape()) : "";
  };
  check<ShapeError>(width > 0 && weight.dim(0) == 4 * width && products.rank() == 2 && products.dim(1) == 4 * width &&
                        fits(bias, {4 * width}) && fits(initial_state, initial) && fits(initial_cell, initial),
                    kName, "needs products [T, 4 H], weight [4 H, H], bias [4 H] or none and initial_state and ",
                    "initial_cell [N, H] or none; got products ", products.shape(), ", weight ", weight.shape(),
                    given("bias", bias), given("initial_state", initial_state), given("initial_cell", initial_cell),
                    " and ", offsets.count(), " sequences");
  const std::int64_t rows = products.dim(0);
  offsets.check_rows(rows, kName);
  const bool differentiated = recording(products, weight, bias, initial_state, initial_cell);
  const auto dense = [](const Var& x) { return x.defined() ? x.value().contiguous() : Tensor(); };
  const Tensor x = dense(products), w = dense(weight), b = dense(bias), state = dense(initial_state),
               cell = dense(initial_cell);
  Tensor states({rows, width}, dtype), cells({rows, width}, dtype), saved;
  if (differentiated) saved = Tensor({rows, kernels::kLstmSaved * width}, dtype);
  dispatch_floating(dtype, kName, [&]<class T>(T) {
    const auto data = [](const Tensor& tensor) { return tensor.defined() ? tensor.data<T>() : nullptr; };
    kernels::lstm_forward<T>({offsets.bounds(), width, w.data<T>(), data(state), data(cell)}, x.data<T>(), data(b),
                             states.mutable_data<T>(), cells.mutable_data<T>(),
                             differentiated ? saved.mutable_data<T>() : nullptr);
  });
  LstmRule rule{offsets,
                width,
                Saved(offsets.tensor()),
                Saved(saved, differentiated),
                Saved(states, differentiated),
                Saved(cells, differentiated),
                Saved(w),
                Saved(state, state.defined()),
                Saved(cell, cell.defined())};
  const Var* inputs[] = {&products, &weight, &bias, &initial_state, &initial_cell};
  std::vector<Var> results = record(std::move(rule), std::span<const Var* const>(inputs), {states, cells});
  return {std::move(results[0]), std::move(results[1])};
}

void entries::add_lstm(Catalog& catalog) {
  catalog.add({
      .name = std::string(kName),
      .summary = "Long short-term memory over packed sequences, from input products and hidden weights.",
      .inputs = {{"products", "[T, 4 H]"},
                 {"weight", "[4 H, H]"},
                 {.name = "bias", .shape = "[4 H]", .optional = true},
                 {.name = "initial_state", .shape = "[N, H]", .optional = true},
                 {.name = "initial_cell", .shape = "[N, H]", .optional = true},
                 {"offsets", "[N + 1]", InputKind::integer, false, "i64, where each sequence begins, and T"}},
      .outputs = {{"states", "[T, H]"}, {"cells", "[T, H]"}},
      .call = [](std::span<const Var> in, const OpOptions&) -> std::vector<Var> {
        LstmResult result = lstm(in[0], in[1], in[2], in[3], in[4], Offsets(in[5].value()));
        return {std::move(result.states), std::move(result.cells)};
      },
      .samples = samples,
      .errors =
          [] {
            const auto replaced = [](std::size_t input, Tensor tensor) {
              std::vector<Tensor> inputs = sample_inputs({2, 3}, 2, true, true, true, 1);
              inputs[input] = std::move(tensor);
              return inputs;
            };
            return std::vector<OpError>{
                {"products", replaced(0, sample_normal({5, 6}, 1)), {}, "products [T, 4 H]"},
                {"weight", replaced(1, sample_normal({8, 3}, 1)), {}, "weight [8, 3]"},
                {"bias", replaced(2, sample_normal({2}, 1)), {}, "bias [2]"},
                {"state", replaced(3, sample_normal({3, 2}, 1)), {}, "initial_state [3, 2], initial_cell [2, 2] and 2"},
                {"cell", replaced(4, sample_normal({2, 3}, 1)), {}, "initial_cell [2, 3] and 2 sequences"},
                {"no width", sample_inputs({2, 3}, 0, true, true, true, 1), {}, "products [5, 0], weight [0, 0]"},
                {"types", replaced(4, sample_normal({2, 2}, 1).to(DType::f32)), {}, "one floating type"},
                {"rows", replaced(5, Tensor::from<std::int64_t>({0, 2, 6}, {3})), {}, "number of rows 5; got 6"},
            };
          },
      .large =
          [] {
            return OpSample{"large", sample_inputs(std::vector<std::int64_t>(16, 128), 64, true, false, false, 1)};
          },
      .flops =
          [](const OpSample& sample) {
            return 2.0 * static_cast<double>(sample.inputs[0].dim(0)) * static_cast<double>(sample.inputs[1].numel());
          },
      .variations =
          [] {
            return std::vector<OpVariations>{{{"states", sample_inputs({3, 0, 1, 4}, 3, true, true, true, 121)}},
                                             {{"wide states", sample_inputs({2, 3}, 17, true, true, true, 131)}}};
          },
  });
}

}  // namespace tally::ops
