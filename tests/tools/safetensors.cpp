// Reads every tensor of safetensors files and writes them anew, for tests/trainer/test_safetensors.py.
// usage: tool_safetensors IN OUT [IN OUT …]. A line for each: "ok", or the message with which it is refused.
#include "trainer/hugging_face/safetensors.h"

#include <cstdio>

#include "recipes/error.h"

namespace {

using namespace tessera;

void copy(const char* in, const char* out) {
  try {
    const SafetensorsFile file = SafetensorsFile::open(in);
    std::vector<NamedTensor> tensors;
    for (const auto& [name, entry] : file.entries()) tensors.push_back({name, file.read(name)});
    write_safetensors(out, tensors, file.metadata());
    std::puts("ok");
  } catch (const Error& error) {
    std::puts(error.what());
  }
}

}  // namespace

int main(int argc, char** argv) {
  for (int i = 1; i + 1 < argc; i += 2) copy(argv[i], argv[i + 1]);
}
