// Linear attention by its definition: slow, and independent of the forms in chunks.
#include <cmath>
#include <vector>

#include "tally/core/parallel.h"
#include "tally/ops/kernels/linear_attention.h"

namespace tally::kernels {
namespace {

/// One memory of one sequence, all in double.
template <class T>
struct DefinitionWalk {
  const LinearAttentionPlan<T>& plan;
  std::int64_t sequence, memory;

  std::int64_t begin() const { return plan.bounds[static_cast<std::size_t>(sequence)]; }
  std::int64_t end() const { return plan.bounds[static_cast<std::size_t>(sequence) + 1]; }
  std::int64_t at() const { return (sequence * plan.memories + memory) * plan.state_size(); }
  double q(std::int64_t t, std::int64_t head, std::int64_t c) const {
    return plan.scale * double{plan.q.data[t * plan.q.stride + head * plan.width + c]};
  }
  double k(std::int64_t t, std::int64_t c) const {
    return double{plan.k.data[t * plan.k.stride + memory * plan.width + c]};
  }
  double v(std::int64_t t, std::int64_t j) const {
    return double{plan.v.data[t * plan.v.stride + memory * plan.value_width + j]};
  }
  /// Which of a memory's decays is that of element (c, j) of its state.
  std::int64_t channel(std::int64_t c, std::int64_t j) const {
    return plan.decay_of == DecayOf::state ? 0 : plan.decay_of == DecayOf::keys ? c : j;
  }
  double decay(std::int64_t t, std::int64_t c, std::int64_t j) const {
    if (plan.log_decay.data == nullptr) return 1;
    return std::exp(double{plan.log_decay.at(t, memory)[channel(c, j)]});
  }
  double gain(std::int64_t t) const { return plan.gain.data == nullptr ? 1 : double{*plan.gain.at(t, memory)}; }
  static std::size_t place(std::int64_t i) { return static_cast<std::size_t>(i); }

  /// The value, less what the decayed state holds at the key under a delta rule.
  std::vector<double> errors(std::int64_t t, const std::vector<double>& before) const {
    std::vector<double> all(place(plan.value_width));
    for (std::int64_t j = 0; j < plan.value_width; ++j) {
      double& each = all[place(j)];
      each = v(t, j);
      for (std::int64_t c = 0; c < plan.width && plan.delta; ++c)
        each -= k(t, c) * decay(t, c, j) * before[place(c * plan.value_width + j)];
    }
    return all;
  }

  /// The state before the first row, and after each.
  std::vector<std::vector<double>> states() const {
    std::vector<std::vector<double>> all(1, std::vector<double>(place(plan.state_size())));
    for (std::int64_t i = 0; i < plan.state_size() && plan.initial_state != nullptr; ++i)
      all[0][place(i)] = double{plan.initial_state[at() + i]};
    for (std::int64_t t = begin(); t < end(); ++t) {
      std::vector<double> state = all.back();
      const std::vector<double> error = errors(t, state);
      for (std::int64_t c = 0; c < plan.width; ++c) {
        for (std::int64_t j = 0; j < plan.value_width; ++j) {
          double& each = state[place(c * plan.value_width + j)];
          each = decay(t, c, j) * each + gain(t) * k(t, c) * error[place(j)];
        }
      }
      all.push_back(std::move(state));
    }
    return all;
  }
  /// The state that row t reads.
  const std::vector<double>& read(const std::vector<std::vector<double>>& states, std::int64_t t) const {
    return plan.bidirectional ? states.back() : states[place(t - begin() + 1)];
  }

  template <class Body>
  void for_heads(Body&& body) const {
    for (std::int64_t head = memory * plan.group(); head < (memory + 1) * plan.group(); ++head) body(head);
  }

  void forward(T* output, T* final_state) const {
    const std::vector<std::vector<double>> all = states();
    for (std::int64_t t = begin(); t < end(); ++t) {
      const std::vector<double>& state = read(all, t);
      for_heads([&](std::int64_t head) {
        for (std::int64_t j = 0; j < plan.value_width; ++j) {
          double sum = 0;
          for (std::int64_t c = 0; c < plan.width; ++c) sum += q(t, head, c) * state[place(c * plan.value_width + j)];
          output[(t * plan.heads + head) * plan.value_width + j] = static_cast<T>(sum);
        }
      });
    }
    for (std::int64_t i = 0; i < plan.state_size() && final_state != nullptr; ++i)
      final_state[at() + i] = static_cast<T>(all.back()[place(i)]);
  }

  void backward(const LinearAttentionBackward<T>& data) const {
    const std::vector<std::vector<double>> all = states();
    const auto give = [](T* to, std::int64_t i, double x) {
      if (to != nullptr) to[i] = static_cast<T>(x);
    };
    std::vector<double> g(place(plan.state_size()));  // of the state after row t
    for (std::int64_t i = 0; i < plan.state_size() && data.gradient_final_state != nullptr; ++i)
      g[place(i)] = double{data.gradient_final_state[at() + i]};
    // Row t's queries: their gradients, and what they add to the state's.
    const auto ask = [&](std::int64_t t) {
      const std::vector<double>& state = read(all, t);
      for_heads([&](std::int64_t head) {
        const T* gy = data.gradient_output + (t * plan.heads + head) * plan.value_width;
        for (std::int64_t c = 0; c < plan.width; ++c) {
          double sum = 0;
          for (std::int64_t j = 0; j < plan.value_width; ++j) {
            sum += state[place(c * plan.value_width + j)] * double{gy[j]};
            g[place(c * plan.value_width + j)] += q(t, head, c) * double{gy[j]};
          }
          give(data.gradient_q, (t * plan.heads + head) * plan.width + c, plan.scale * sum);
        }
      });
    };
    for (std::int64_t t = begin(); t < end() && plan.bidirectional; ++t) ask(t);
    for (std::int64_t t = end(); t-- > begin();) {
      if (!plan.bidirectional) ask(t);
      const std::vector<double>& before = all[place(t - begin())];
      const std::vector<double> error = errors(t, before);
      std::vector<double> of_error(place(plan.value_width));
      double of_gain = 0;
      for (std::int64_t j = 0; j < plan.value_width; ++j) {
        double of_written = 0;
        for (std::int64_t c = 0; c < plan.width; ++c) of_written += g[place(c * plan.value_width + j)] * k(t, c);
        of_gain += of_written * error[place(j)];
        of_error[place(j)] = gain(t) * of_written;
        give(data.gradient_v, (t * plan.memories + memory) * plan.value_width + j, of_error[place(j)]);
      }
      give(data.gradient_gain, t * plan.memories + memory, of_gain);
      std::vector<double> of_decay(place(plan.decay_width()));
      for (std::int64_t c = 0; c < plan.width; ++c) {
        double of_key = 0;
        for (std::int64_t j = 0; j < plan.value_width; ++j) {
          double& each = g[place(c * plan.value_width + j)];
          const double left = decay(t, c, j) * before[place(c * plan.value_width + j)];
          of_key += gain(t) * each * error[place(j)];
          if (plan.delta) {
            of_key -= left * of_error[place(j)];
            each -= k(t, c) * of_error[place(j)];
          }
          of_decay[place(channel(c, j))] += each * left;
          each *= decay(t, c, j);
        }
        give(data.gradient_k, (t * plan.memories + memory) * plan.width + c, of_key);
      }
      for (std::int64_t i = 0; i < plan.decay_width(); ++i)
        give(data.gradient_log_decay, (t * plan.memories + memory) * plan.decay_width() + i, of_decay[place(i)]);
    }
    for (std::int64_t i = 0; i < plan.state_size(); ++i) give(data.gradient_initial_state, at() + i, g[place(i)]);
  }
};

template <class T, class Body>
void for_each_definition(const LinearAttentionPlan<T>& plan, Body&& body) {
  const std::int64_t sequences = static_cast<std::int64_t>(plan.bounds.size()) - 1;
  parallel_for(sequences * plan.memories, 1, [&](std::int64_t task, std::int64_t) {
    body(DefinitionWalk<T>{plan, task / plan.memories, task % plan.memories});
  });
}

}  // namespace

template <class T>
void naive_linear_attention_forward(const LinearAttentionPlan<T>& plan, T* output, T* final_state) {
  for_each_definition(plan, [&](const DefinitionWalk<T>& walk) { walk.forward(output, final_state); });
}

template <class T>
void naive_linear_attention_backward(const LinearAttentionPlan<T>& plan, const LinearAttentionBackward<T>& data) {
  for_each_definition(plan, [&](const DefinitionWalk<T>& walk) { walk.backward(data); });
}

template void naive_linear_attention_forward(const LinearAttentionPlan<float>&, float*, float*);
template void naive_linear_attention_forward(const LinearAttentionPlan<double>&, double*, double*);
template void naive_linear_attention_backward(const LinearAttentionPlan<float>&, const LinearAttentionBackward<float>&);
template void naive_linear_attention_backward(const LinearAttentionPlan<double>&,
                                              const LinearAttentionBackward<double>&);

}  // namespace tally::kernels
