#include "tally/recsys/models/lisa_options.h"

#include "tally/ops/quantization/codes.h"

namespace tally::recsys {

void LisaOptions::check(const std::string& section) const {
  const auto needs = [&](bool ok, const char* name, const auto&... parts) {
    tally::check<ConfigError>(ok, section + '.' + name, "needs ", parts...);
  };
  needs(quantized == LisaQuantized::all || variant != LisaVariant::mini, "quantized",
        "'all' in lisa_variant mini, which has a quantizer for its targets; got ", word_of(quantized));
  needs(decay > 0 || !learn_decay, "learn_decay", "a counts_decay above 0 to begin from");
  needs(!soft_query || attention_window == 0, "soft_query", "no counts_window; got ", attention_window);
  needs(position_codebooks == 0 || alignment == PositionAlignment::start, "position_codebooks",
        "position_alignment start; got ", word_of(alignment));
}

std::string LisaOptions::model_name() const {
  const std::string name = "lisa-" + std::string(word_of(variant));
  return quantized == LisaQuantized::all ? name : name + "-quantized-" + std::string(word_of(quantized));
}

Domain LisaOptions::inverse_in_f32() {
  return {"a finite value above 0, with a finite inverse in f32", ops::detail::fits_temperature};
}

}  // namespace tally::recsys
