#include "tally/recsys/config/evaluation_config.h"

#include <charconv>

namespace tally::recsys {
namespace {

std::optional<SamplingMode> sampling_mode(const std::string& mode) {
  const bool popularity = mode.starts_with("pop");
  if (!popularity && !mode.starts_with("uni")) return std::nullopt;
  const std::string digits = mode.substr(3);
  std::int64_t count = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), count);
  const bool whole = error == std::errc() && end == digits.data() + digits.size() && digits.size() <= 9;
  if (!whole || count < 1) return std::nullopt;
  return SamplingMode{popularity, count};
}

}  // namespace

TextDomain EvaluationConfig::modes() {
  return {"full, uniN or popN (uni100: among 100 uniform negatives)",
          [](const std::string& text) { return text == "full" || sampling_mode(text).has_value(); }};
}

std::optional<SamplingMode> parse_mode(const std::string& mode) {
  const TextDomain modes = EvaluationConfig::modes();
  check<ConfigError>(modes.holds(mode), "evaluation.mode", "needs ", modes.phrase, "; got \"", mode, '"');
  return sampling_mode(mode);
}

void EvaluationConfig::check(const std::string& section) const {
  tally::check<ConfigError>(!topk.empty(), section + ".topk", "needs at least one K");
}

MetricName parse_metric(const std::string& name, const EvaluationConfig& evaluation) {
  const std::size_t at = name.find('@');
  const std::string kind = name.substr(0, at);
  if (at != std::string::npos && (kind == "NDCG" || kind == "HR" || kind == "Recall" || kind == "MRR")) {
    for (const std::int64_t k : evaluation.topk) {
      if (name.substr(at + 1) == std::to_string(k)) return {kind, k};
    }
  }
  fail<ConfigError>("train.valid_metric", "needs NDCG@K, HR@K, Recall@K or MRR@K with a K of evaluation.topk; got \"",
                    name, "\"");
}

}  // namespace tally::recsys
