#include "tally/nn/optim/optimizer.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "tally/core/kernels.h"
#include "tally/core/parallel.h"

namespace tally::optim {
namespace {

constexpr const char* kName = "optimizer";
constexpr std::int64_t kGrain = 1 << 14;

/// Every gradient must belong to one parameter, and a path name one: state is keyed by it.
void check_list(const nn::ParameterList& parameters, const Gradients& gradients) {
  std::set<std::string_view> taken;
  std::map<LeafId, std::string_view> paths;
  for (const auto& [path, parameter] : parameters) {
    check<ValueError>(taken.insert(path).second, kName, "needs a path of its own for each ",
                      "parameter; two have the path '", path, "'");
    const auto [first, added] = paths.emplace(parameter->id(), path);
    check<ValueError>(added, kName, "needs each parameter once; '", first->second, "' and '", path, "' are the same");
  }
  std::string strays;
  for (const auto& [leaf, gradient] : gradients) {
    if (paths.contains(leaf)) continue;
    const auto* rows = std::get_if<RowGrad>(&gradient);
    strays += tally::detail::join(strays.empty() ? "" : ", ",
                                  rows != nullptr ? rows->shape : std::get<Tensor>(gradient).shape());
  }
  check<ValueError>(strays.empty(), kName, "needs a parameter in the list for every gradient; none takes those of ",
                    "shape ", strays, " (is a member missing from a module's fields?)");
}

}  // namespace

const ParameterGroup* Optimizer::group_of(std::string_view path) const {
  for (const ParameterGroup& group : groups) {
    if (nn::matches(group.pattern, path)) return &group;
  }
  return nullptr;
}

void Optimizer::check_groups(const nn::ParameterList& parameters) const {
  for (const ParameterGroup& group : groups) {
    const bool matched = std::any_of(parameters.begin(), parameters.end(),
                                     [&](const auto& each) { return nn::matches(group.pattern, each.path); });
    std::vector<std::string> paths;
    for (const auto& each : parameters) paths.push_back(each.path);
    check<ValueError>(matched, kName, "needs groups of parameters that are there; none matches '", group.pattern, "'",
                      suggestion(group.pattern, paths));
    const double decay = group.weight_decay.value_or(0);
    check<ValueError>(group.learning_rate_factor >= 0 && std::isfinite(group.learning_rate_factor) && decay >= 0 &&
                          std::isfinite(decay),
                      kName, "needs a learning-rate factor and a weight decay of at least 0 for '", group.pattern,
                      "'; got ", group.learning_rate_factor, " and ", decay);
    check<ValueError>(!group.weight_decay || weight_decay(), kName, name(), " has no weight decay to set for '",
                      group.pattern, "'");
  }
}

template <class T>
void Optimizer::update(Tensor& value, std::vector<Tensor>& slots, const Gradient& gradient, const StepRates& rates) {
  T* w = value.mutable_data<T>();
  std::vector<T*> slot_data;
  for (Tensor& slot : slots) slot_data.push_back(slot.mutable_data<T>());
  const auto change = [&](std::int64_t begin, std::int64_t n, const T* g) {
    std::vector<T*> moved(slot_data);
    for (T*& pointer : moved) pointer += begin;
    if constexpr (std::is_same_v<T, float>) {
      update_f32(w + begin, moved.data(), g, n, rates);
    } else {
      update_f64(w + begin, moved.data(), g, n, rates);
    }
  };
  if (const auto* dense = std::get_if<Tensor>(&gradient)) {
    const Tensor contiguous = dense->contiguous();
    const T* g = contiguous.data<T>();
    parallel_for(value.numel(), kGrain,
                 [&](std::int64_t begin, std::int64_t end) { change(begin, end - begin, g + begin); });
    return;
  }
  const auto& rows = std::get<RowGrad>(gradient);
  const auto touched = rows.rows.span<std::int64_t>();
  const T* g = rows.values.data<T>();
  const std::int64_t width = value.shape().without(0).numel();
  const std::int64_t grain = std::max<std::int64_t>(1, kGrain / std::max<std::int64_t>(1, width));
  if (row_policy() == RowPolicy::lazy) {
    parallel_for(rows.rows.numel(), grain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t k = begin; k < end; ++k)
        change(touched[static_cast<std::size_t>(k)] * width, width, g + k * width);
    });
    return;
  }
  parallel_for(value.dim(0), grain, [&](std::int64_t begin, std::int64_t end) {
    auto next = std::lower_bound(touched.begin(), touched.end(), begin);
    for (std::int64_t row = begin; row < end;) {
      if (next != touched.end() && *next == row) {
        change(row * width, width, g + (next - touched.begin()) * width);
        ++next;
        ++row;
      } else {
        const std::int64_t stop = next == touched.end() ? end : std::min(end, *next);
        change(row * width, (stop - row) * width, nullptr);
        row = stop;
      }
    }
  });
}

void Optimizer::step(const nn::ParameterList& parameters, const Gradients& gradients) {
  check_list(parameters, gradients);
  check_groups(parameters);
  ++steps_;
  for (const auto& [path, parameter] : parameters) {
    const ParameterGroup* group = group_of(path);
    const bool frozen = parameter->frozen() || (group != nullptr && group->frozen);
    const Gradient* gradient = frozen ? nullptr : gradients.find(parameter->id());
    if (gradient == nullptr) continue;
    StepRates rates{learning_rate, weight_decay().value_or(0)};
    if (group != nullptr) {
      rates.learning_rate *= group->learning_rate_factor;
      rates.weight_decay = group->weight_decay.value_or(rates.weight_decay);
    }
    Tensor& value = parameter->mutable_value();
    const auto* rows = std::get_if<RowGrad>(gradient);
    const Shape& shape = rows != nullptr ? rows->shape : std::get<Tensor>(*gradient).shape();
    check<ShapeError>(shape == value.shape(), kName, "parameter ", path, " of shape ", value.shape(),
                      " has a gradient of shape ", shape);
    const DType dtype = rows != nullptr ? rows->values.dtype() : std::get<Tensor>(*gradient).dtype();
    check<DTypeError>(dtype == value.dtype(), kName, "parameter ", path, " of type ", value.dtype(),
                      " has a gradient of type ", dtype);
    std::vector<Tensor>& kept = state_[path];
    const std::vector<std::string> names = slots();
    if (kept.empty()) {
      for (std::size_t i = 0; i < names.size(); ++i) kept.push_back(Tensor::zeros(value.shape(), value.dtype()));
    }
    for (const Tensor& slot : kept) {
      check<ShapeError>(slot.shape() == value.shape(), kName, "parameter ", path, " of shape ", value.shape(),
                        " has a state of shape ", slot.shape());
      check<DTypeError>(slot.dtype() == value.dtype(), kName, "parameter ", path, " of type ", value.dtype(),
                        " has a state of type ", slot.dtype());
    }
    dispatch_floating(value.dtype(), kName, [&]<class T>(T) { update<T>(value, kept, *gradient, rates); });
  }
}

std::map<std::string, Tensor> Optimizer::state() const {
  std::map<std::string, Tensor> result;
  const std::vector<std::string> names = slots();
  for (const auto& [path, kept] : state_) {
    for (std::size_t i = 0; i < kept.size(); ++i) result[name() + '.' + names[i] + '/' + path] = kept[i];
  }
  result["steps"] = Tensor::from<std::int64_t>({steps_}, {1});
  return result;
}

void Optimizer::load_state(const std::map<std::string, Tensor>& state) {
  const std::vector<std::string> names = slots();
  std::map<std::string, std::vector<Tensor>> loaded;
  std::int64_t steps = 0;
  for (const auto& [key, tensor] : state) {
    if (key == "steps") {
      steps = static_cast<std::int64_t>(tensor.item());
      continue;
    }
    const std::size_t slash = key.find('/');
    const std::string slot = key.substr(0, slash);
    const auto found =
        std::find_if(names.begin(), names.end(), [&](const auto& n) { return slot == name() + '.' + n; });
    check<ValueError>(slash != std::string::npos && found != names.end(), kName, "state '", key, "' is not one of ",
                      name());
    auto& kept = loaded[key.substr(slash + 1)];
    kept.resize(names.size());
    kept[static_cast<std::size_t>(found - names.begin())] = tensor.clone();
  }
  for (const auto& [path, kept] : loaded) {
    for (const Tensor& tensor : kept) check<ValueError>(tensor.defined(), kName, "state of '", path, "' is incomplete");
  }
  state_ = std::move(loaded);
  steps_ = steps;
}

double global_norm(const nn::ParameterList& parameters, const Gradients& gradients) {
  double sum = 0;
  for (const auto& [path, parameter] : parameters) {
    if (const Gradient* gradient = gradients.find(parameter->id())) sum += sum_squares(*gradient);
  }
  return std::sqrt(sum);
}

double clip_by_global_norm(const nn::ParameterList& parameters, Gradients& gradients, double limit) {
  check<ValueError>(limit > 0, "clip_by_global_norm", "needs a limit above 0; got ", limit);
  const double norm = global_norm(parameters, gradients);
  check<ValueError>(std::isfinite(norm), "clip_by_global_norm", "the gradient's norm is ", norm,
                    "; trace non-finite values to find the op that made it so");
  if (norm > limit) gradients.scale(limit / norm);
  return norm;
}

namespace {

template <class T>
void sgd(T* w, T* velocity, const T* g, std::int64_t n, double options_momentum, const StepRates& rates) {
  const auto rate = static_cast<T>(rates.learning_rate), decay = static_cast<T>(rates.weight_decay);
  const auto momentum = static_cast<T>(options_momentum);
  for (std::int64_t i = 0; i < n; ++i) {
    T step = (g == nullptr ? T{0} : g[i]) + decay * w[i];
    if (velocity != nullptr) step = velocity[i] = momentum * velocity[i] + step;
    w[i] -= rate * step;
  }
}

template <class T>
void adagrad(T* w, T* sum, const T* g, std::int64_t n, double options_epsilon, double learning_rate) {
  if (g == nullptr) return;
  const auto rate = static_cast<T>(learning_rate), epsilon = static_cast<T>(options_epsilon);
  for (std::int64_t i = 0; i < n; ++i) {
    sum[i] += g[i] * g[i];
    w[i] -= rate * g[i] / (std::sqrt(sum[i]) + epsilon);
  }
}

kernels::AdamStep adam_step(const AdamOptions& options, std::int64_t steps, const StepRates& rates) {
  const auto t = static_cast<double>(steps);
  return {.beta1 = options.beta1,
          .beta2 = options.beta2,
          .step_size = rates.learning_rate / (1 - std::pow(options.beta1, t)),
          .inverse_correction = 1 / std::sqrt(1 - std::pow(options.beta2, t)),
          .epsilon = options.epsilon,
          .decay = rates.learning_rate * rates.weight_decay};
}

}  // namespace

Sgd::Sgd(const SgdOptions& options) : Optimizer(options.learning_rate), options_(options) {
  check<ValueError>(options.momentum >= 0 && options.momentum < 1, "sgd", "needs a momentum in [0, 1); got ",
                    options.momentum);
}

std::vector<std::string> Sgd::slots() const {
  return options_.momentum > 0 ? std::vector<std::string>{"velocity"} : std::vector<std::string>{};
}

void Sgd::update_f32(float* w, float* const* slots, const float* gradient, std::int64_t n,
                     const StepRates& rates) const {
  sgd(w, options_.momentum > 0 ? slots[0] : nullptr, gradient, n, options_.momentum, rates);
}
void Sgd::update_f64(double* w, double* const* slots, const double* gradient, std::int64_t n,
                     const StepRates& rates) const {
  sgd(w, options_.momentum > 0 ? slots[0] : nullptr, gradient, n, options_.momentum, rates);
}

Adam::Adam(const AdamOptions& options) : Optimizer(options.learning_rate), options_(options) {
  check<ValueError>(options.beta1 >= 0 && options.beta1 < 1 && options.beta2 >= 0 && options.beta2 < 1, "adam",
                    "needs betas in [0, 1); got ", options.beta1, " and ", options.beta2);
}

void Adam::update_f32(float* w, float* const* slots, const float* gradient, std::int64_t n,
                      const StepRates& rates) const {
  kernels::adam_update(w, slots[0], slots[1], gradient, n, adam_step(options_, steps(), rates));
}
void Adam::update_f64(double* w, double* const* slots, const double* gradient, std::int64_t n,
                      const StepRates& rates) const {
  kernels::adam_update(w, slots[0], slots[1], gradient, n, adam_step(options_, steps(), rates));
}

Adagrad::Adagrad(const AdagradOptions& options) : Optimizer(options.learning_rate), options_(options) {}

void Adagrad::update_f32(float* w, float* const* slots, const float* gradient, std::int64_t n,
                         const StepRates& rates) const {
  adagrad(w, slots[0], gradient, n, options_.epsilon, rates.learning_rate);
}
void Adagrad::update_f64(double* w, double* const* slots, const double* gradient, std::int64_t n,
                         const StepRates& rates) const {
  adagrad(w, slots[0], gradient, n, options_.epsilon, rates.learning_rate);
}

}  // namespace tally::optim
