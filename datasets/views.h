#pragma once
#include <vector>

#include "datasets/dataset.h"

namespace tessera {

/// Views put datasets in another order or together; each computes its answer per index and keeps no index
/// table of the whole.

/// The dataset in an order picked by `key`.
DatasetPtr shuffled(DatasetPtr dataset, uint64_t key);

/// Without end: global sample g is sample g % size of epoch g / size; every epoch has its own order when
/// `shuffle` is set. Errors: an empty dataset.
DatasetPtr epochs(DatasetPtr dataset, uint64_t seed, bool shuffle = true);

/// One after the other.
DatasetPtr concatenated(std::vector<DatasetPtr> datasets);

/// Endless datasets mixed: of every 10,000 consecutive samples each dataset gives its exact share by weight
/// (any positive numbers), in an order picked by `seed`; each dataset's own samples come in their order, none
/// left out. Errors: no weight per dataset, a weight that is not positive or below 1/10,000 of the sum.
DatasetPtr mixed(std::vector<DatasetPtr> datasets, const std::vector<double>& weights, uint64_t seed);

/// An endless dataset in batches of like length: every `window` batches of `batch` samples are sorted by
/// length (equal ones stay in their order) and cut anew, and the batches put in an order picked by `seed`.
/// What batch g holds depends on nothing but the arguments. The orders of the last few windows are kept.
/// Errors: more than 2^24 samples in a window.
DatasetPtr bucketed(DatasetPtr dataset, int64_t batch, int64_t window, uint64_t seed);

}  // namespace tessera
