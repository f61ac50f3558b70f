#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "tally/recsys/models/elastic.h"
#include "tally/recsys/models/lisa.h"
#include "tally/recsys/models/sasrec.h"
#include "tally/recsys/models/sequence_model.h"

/// Small models that stream, with weights that are not small.
namespace tally::recsys::recurrent_samples {

constexpr std::int64_t kItems = 23, kWidth = 12, kWindow = 30;

/// Moves weights off their small initial values, so that nothing hides in small numbers.
template <class M>
M lively(M model, std::uint64_t seed = 5) {
  std::uint64_t stream = 0;
  for (const auto& [path, tensor] : nn::state(model)) {
    if (tensor->dtype() != DType::f32) continue;
    Tensor noise(tensor->shape());
    fill_normal(RngKey{seed}.fold_in(stream++), noise, 0, 0.3);
    auto values = tensor->template mutable_span<float>();
    for (std::size_t i = 0; i < values.size(); ++i) values[i] += noise.data<float>()[i];
  }
  return model;
}

LisaOptions lisa_options();
std::unique_ptr<SequenceModel> lisa(const LisaOptions& options);
std::unique_ptr<SequenceModel> lisa(const std::function<void(LisaOptions&)>& change);
std::unique_ptr<SequenceModel> gru4rec(std::int64_t layers, bool tied = true);
/// As RecBole has it: embeddings of another width, and units without biases.
std::unique_ptr<SequenceModel> gru4rec_behind();
std::unique_ptr<SequenceModel> sasrec(PositionAlignment alignment = PositionAlignment::start);
SasRecOptions sasrec_options(const std::string& attention, nn::NormPlacement norm = nn::NormPlacement::sasrec,
                             const nn::AttentionKinds& kinds = nn::attention_kinds());
std::unique_ptr<SequenceModel> sasrec(const SasRecOptions& options);
Elastic elastic_model(bool causal, ExpertSharing sharing, Retrieval retrieval = Retrieval::none);

struct Streaming {
  std::string name;
  std::unique_ptr<SequenceModel> model;
};
/// Every model, in the settings that change what a state holds.
std::vector<Streaming> all_models();

/// Items that repeat, the same every time.
std::vector<std::int32_t> history(std::size_t length);

/// When the event at this place was: at irregular times, some of them before those of earlier events.
inline double time_of(std::size_t place) {
  return 40'000.0 * static_cast<double>(place) + static_cast<double>(place * 2'654'435'761 % 86'400);
}
/// Of so many events.
std::vector<double> times_of(std::size_t length);

/// The hidden row after these events, one at a time, at those times.
std::vector<float> streamed(const RecurrentModel& model, std::span<const std::int32_t> items);

/// The largest difference, relative to the largest element of b; infinity where sizes differ.
double difference(std::span<const float> a, std::span<const float> b);

}  // namespace tally::recsys::recurrent_samples
