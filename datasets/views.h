#pragma once
#include <vector>

#include "datasets/dataset.h"

namespace tessera {

/// Views put datasets in another order or together; each computes its answer per index and keeps no index
/// table.

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

}  // namespace tessera
