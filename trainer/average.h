#pragma once
#include "trainer/parameters.h"

namespace tessera {

/// An exponential moving average of the masters: average += (1 - decay) x (master - average) after every step
/// (Polyak and Juditsky 1992; as used for evaluation and export).
class WeightAverage {
 public:
  /// Starts from the masters as they are. `decay` in [0, 1), such as 0.999.
  WeightAverage(std::vector<Parameter> parameters, double decay);

  void update();
  /// Starts again from the masters.
  void restart();
  /// Exchanges averages and masters, and refreshes the working copies: once before evaluating, once after.
  void swap();

  /// Live tensors under "ema/parameter", float32. Read them to save, write into them to load.
  std::vector<TensorPiece> state() const;

 private:
  std::vector<Parameter> parameters_;
  std::vector<at::Tensor> averages_;
  double decay_;
};

}  // namespace tessera
