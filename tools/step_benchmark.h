#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "tally/core/io/json.h"
#include "tally/nn/optim/optimizer.h"
#include "tally/nn/training/task.h"
#include "tally/recsys/config/config.h"

namespace tally::tools {

/// Histories in the place of data: as many users as a batch has samples, items drawn evenly.
struct DrawnHistories {
  std::int64_t items = 3416;
  std::int64_t length = 0;  ///< events of each user; 0: one more than the model's window, so that it is full
};

struct StepOptions {
  int threads = 1;
  int rounds = 7;  ///< timings of the step, alternated with those of the machine
};

/// What one op costs in a step, over all its calls. Measured on one thread.
struct OpFigures {
  std::int64_t calls = 0;
  double forward_seconds = 0, backward_seconds = 0;
  double forward_operations = 0, backward_operations = 0;  ///< of matrix products
  double bytes = 0;                                        ///< of inputs and outputs of the forward pass
};

/// A step's independent blocks and what more threads would make of it, from times on one thread.
struct StepBlocks {
  std::int64_t calls = 0, blocks = 0;  ///< parallel regions, and blocks in them
  double longest = 0;                  ///< seconds of the longest block
  double serial = 0;                   ///< seconds outside of all blocks
  std::map<int, double> speedup;       ///< expected on so many threads
};

struct StepFigures {
  std::string what;
  int threads = 1;
  double seconds = 0;             ///< of a step with that many threads: the median
  double fastest = 0;             ///< the best of the same
  double operations = 0;          ///< of matrix products in a step
  double sgemm_rate = 0;          ///< operations a second, the best the machine showed, on that many threads
  std::int64_t rows = 0;          ///< of a step
  std::int64_t peak_bytes = 0;    ///< of tensors during a step, beyond those that were there before
  std::int64_t allocations = 0;   ///< of tensors in a step
  std::int64_t system_bytes = 0;  ///< that the process took from the system over all timed steps, after two others
  double optimizer_seconds = 0;   ///< on one thread, as all that follows
  double profiled_seconds = 0;    ///< of the step whose ops are below, without the optimizer
  std::map<std::string, OpFigures> ops;
  StepBlocks blocks;

  double sgemm_share() const { return operations / seconds / sgemm_rate; }
  Json to_json() const;
};

/// Measures the first step of the training that a config describes, on its data, or on drawn histories in their place.
/// Changes the number of threads.
StepFigures measure_step(const recsys::RunConfig& config, const std::optional<DrawnHistories>& drawn,
                         const StepOptions& options);

/// Writes what the step was given and what it gave, for another framework to compute the same: `parameter.PATH` and
/// `gradient.PATH` of every parameter, `items`, `targets` and `offsets` of the batch's sequences, and the `loss`. The
/// parameters are the initial ones.
void write_step(const recsys::RunConfig& config, const std::optional<DrawnHistories>& drawn,
                const std::filesystem::path& path);

/// A step's table of ops for people.
std::string step_table(const StepFigures& figures);
/// Two files of StepFigures::to_json() beside each other. Throws IoError for files that are not.
std::string compare_steps(const std::string& before_path, const std::string& after_path);

}  // namespace tally::tools
