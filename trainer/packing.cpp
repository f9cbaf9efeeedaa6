#include "trainer/packing.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace tessera {

Packing pack(const at::Tensor& attention_mask) {
  if (!attention_mask.defined()) return {};
  const int64_t batch = attention_mask.size(0), sequence = attention_mask.size(1);
  const at::Tensor mask = attention_mask.contiguous();
  Packing packing{at::empty({batch * sequence}, at::kLong), at::zeros({batch * sequence}, at::kLong),
                  mask.logical_not().view({-1, 1}), at::zeros({batch + 1}, at::kInt)};
  auto* const rows = packing.rows.data_ptr<int64_t>();
  auto* const places = packing.places.data_ptr<int64_t>();
  auto* const starts = packing.starts.data_ptr<int32_t>();
  int64_t tokens = 0;
  for (int64_t sample = 0; sample < batch; ++sample) {
    const bool* const begin = mask.const_data_ptr<bool>() + sample * sequence;
    const int64_t length = std::find(begin, begin + sequence, false) - begin;
    if (std::find(begin + length, begin + sequence, true) != begin + sequence) return {};
    for (int64_t row = sample * sequence; row < sample * sequence + length; ++row) {
      places[row] = tokens;
      rows[tokens++] = row;
    }
    starts[sample + 1] = static_cast<int32_t>(tokens);
    packing.longest = std::max(packing.longest, length);
  }
  if (tokens == 0) return {};
  packing.rows = packing.rows.narrow(0, 0, tokens);
  return packing;
}

}  // namespace tessera
