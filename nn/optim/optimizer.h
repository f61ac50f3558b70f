#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tally/autograd/gradients.h"
#include "tally/core/options/options.h"
#include "tally/nn/module.h"

namespace tally::optim {

/// What an optimizer does with the rows of a table that a row gradient does not mention.
enum class RowPolicy {
  exact,  ///< the result of a dense gradient with zeros there, bit for bit
  lazy,   ///< leave them, and their state, as they are
};

/// Parameters that are treated in another way than the rest: those whose path matches (nn::matches).
struct ParameterGroup {
  std::string pattern = {};
  double learning_rate_factor = 1;          ///< times the learning rate of the step
  std::optional<double> weight_decay = {};  ///< in place of the optimizer's
  bool frozen = false;                      ///< values and state stay as they are

  static void keys(auto& o, auto&& key) {
    key("paths", o.pattern, "of the parameters; * stands for any text");
    key("learning_rate_factor", o.learning_rate_factor, at_least(0), "times the learning rate of the step");
    key("weight_decay", o.weight_decay, "in place of the learner's; null: the learner's");
    key("frozen", o.frozen, "values stay as they are");
  }
};

/// What a step does with the elements of one parameter.
struct StepRates {
  double learning_rate;
  double weight_decay;
};

/// Changes parameters by their gradients. State is keyed by the parameter's path, so it survives saving, loading and
/// moving.
class Optimizer {
 public:
  virtual ~Optimizer() = default;

  /// Used by the next step; a Schedule changes it from step to step.
  double learning_rate;
  /// A parameter belongs to the first that matches its path, if any.
  std::vector<ParameterGroup> groups;

  /// One step. Frozen parameters, and those without a gradient, are left alone. Throws ShapeError and DTypeError, with
  /// the parameter's path, when a gradient or a loaded state does not fit its parameter; ValueError, naming them, for
  /// two parameters of one path, for gradients that belong to no parameter of the list, and as check_groups().
  void step(const nn::ParameterList& parameters, const Gradients& gradients);

  /// The group of a path, or null.
  const ParameterGroup* group_of(std::string_view path) const;
  /// Throws ValueError for a group that matches no parameter of the list, and for one with a negative factor or decay,
  /// or with a decay that this optimizer does not have.
  void check_groups(const nn::ParameterList& parameters) const;

  std::int64_t steps() const { return steps_; }
  /// State tensors by name (`adam.m/blocks.0.weight`), shared, and the step count as `steps` i64 [1].
  std::map<std::string, Tensor> state() const;
  /// Throws ValueError for a name this optimizer does not keep.
  void load_state(const std::map<std::string, Tensor>& state);

 protected:
  virtual std::string name() const = 0;
  /// Names of the state tensors of one parameter, each of the parameter's shape.
  virtual std::vector<std::string> slots() const = 0;
  /// Changes `n` elements of a parameter and of its slots, in the order of slots(). A null gradient stands for zeros.
  virtual void update_f32(float* w, float* const* slots, const float* gradient, std::int64_t n,
                          const StepRates& rates) const = 0;
  virtual void update_f64(double* w, double* const* slots, const double* gradient, std::int64_t n,
                          const StepRates& rates) const = 0;
  virtual RowPolicy row_policy() const = 0;
  /// Of parameters whose group has none of its own; nothing for an optimizer that has no weight decay.
  virtual std::optional<double> weight_decay() const = 0;

  explicit Optimizer(double rate) : learning_rate(rate) {}

 private:
  template <class T>
  void update(Tensor& value, std::vector<Tensor>& slots, const Gradient& gradient, const StepRates& rates);

  std::map<std::string, std::vector<Tensor>> state_;
  std::int64_t steps_ = 0;
};

struct SgdOptions {
  double learning_rate = 1e-2;
  double momentum = 0;
  double weight_decay = 0;  ///< added to the gradient
  RowPolicy rows = RowPolicy::exact;
};

/// w -= learning_rate * v with v = momentum * v + g + weight_decay * w.
class Sgd final : public Optimizer {
 public:
  explicit Sgd(const SgdOptions& options = {});

 private:
  std::string name() const override { return "sgd"; }
  std::vector<std::string> slots() const override;
  void update_f32(float* w, float* const* slots, const float* gradient, std::int64_t n,
                  const StepRates& rates) const override;
  void update_f64(double* w, double* const* slots, const double* gradient, std::int64_t n,
                  const StepRates& rates) const override;
  RowPolicy row_policy() const override { return options_.rows; }
  std::optional<double> weight_decay() const override { return options_.weight_decay; }

  SgdOptions options_;
};

struct AdamOptions {
  double learning_rate = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0;  ///< decoupled (AdamW, Loshchilov & Hutter, arXiv 1711.05101): w -= lr * weight_decay * w
  RowPolicy rows = RowPolicy::exact;
};

/// Kingma & Ba, arXiv 1412.6980; AdamW with a weight decay.
class Adam final : public Optimizer {
 public:
  explicit Adam(const AdamOptions& options = {});

 private:
  std::string name() const override { return "adam"; }
  std::vector<std::string> slots() const override { return {"m", "v"}; }
  void update_f32(float* w, float* const* slots, const float* gradient, std::int64_t n,
                  const StepRates& rates) const override;
  void update_f64(double* w, double* const* slots, const double* gradient, std::int64_t n,
                  const StepRates& rates) const override;
  RowPolicy row_policy() const override { return options_.rows; }
  std::optional<double> weight_decay() const override { return options_.weight_decay; }

  AdamOptions options_;
};

struct AdagradOptions {
  double learning_rate = 1e-2;
  double epsilon = 1e-10;
};

/// Duchi et al. 2011: s += g^2, w -= learning_rate * g / (sqrt(s) + epsilon). A row without a gradient does not change,
/// so exact and lazy are the same.
class Adagrad final : public Optimizer {
 public:
  explicit Adagrad(const AdagradOptions& options = {});

 private:
  std::string name() const override { return "adagrad"; }
  std::vector<std::string> slots() const override { return {"sum"}; }
  void update_f32(float* w, float* const* slots, const float* gradient, std::int64_t n,
                  const StepRates& rates) const override;
  void update_f64(double* w, double* const* slots, const double* gradient, std::int64_t n,
                  const StepRates& rates) const override;
  RowPolicy row_policy() const override { return RowPolicy::lazy; }
  std::optional<double> weight_decay() const override { return {}; }

  AdagradOptions options_;
};

/// Scales the gradients of `parameters` so that their joint 2-norm is at most `limit`; returns the norm before. Throws
/// ValueError when the norm is not finite.
double clip_by_global_norm(const nn::ParameterList& parameters, Gradients& gradients, double limit);
/// The joint 2-norm, summed in the order of the list.
double global_norm(const nn::ParameterList& parameters, const Gradients& gradients);

}  // namespace tally::optim
