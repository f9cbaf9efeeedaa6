#pragma once
#include <string>
#include <vector>

#include "datasets/hdf5.h"
#include "datasets/open.h"

namespace tessera {

/// A kind of file that open_dataset() knows.
struct Source {
  const char* name;
  bool (*recognise)(const hdf5::File& file);
  DatasetPtr (*open)(const std::vector<std::string>& files, const OpenOptions& options);
  DatasetFacts (*describe)(const std::vector<std::string>& files, bool verify);
};

Source token_file_source();   // token_source.cpp
Source nvidia_bert_source();  // nvidia_source.cpp

}  // namespace tessera
