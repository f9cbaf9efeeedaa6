#pragma once
#include "trainer/packing.h"

namespace tessera::ops {

/// x [batch * sequence, ...] -> its tokens [tokens, ...].
at::Tensor pack_rows(const at::Tensor& x, const Packing& packing);
/// And back; zeros in the rows of padding. The transpose of pack_rows().
at::Tensor unpack_rows(const at::Tensor& x, const Packing& packing);

/// Attention within each sample by AttentionKernel::flash, which spends nothing on padding. joined [batch *
/// sequence, 3 * heads * head_size]: query, key and value of each row -> [batch * sequence, heads *
/// head_size]; rows of padding are 0 and pass no gradient on.
at::Tensor packed_attention(const at::Tensor& joined, const Packing& packing, int64_t head_size, bool causal);

}  // namespace tessera::ops
