#pragma once
#include <ATen/record_function.h>

#include <map>
#include <string>
#include <string_view>

namespace tessera {

/// How often this thread calls ATen's operators while it lives, each by its name ("aten::copy_"); what they
/// call themselves does not count.
class OperatorCounts {
 public:
  OperatorCounts() {
    calls() = {};
    depth() = 0;
    handle_ = at::addThreadLocalCallback(
        at::RecordFunctionCallback(begin, end).scopes({at::RecordScope::FUNCTION}));
  }
  ~OperatorCounts() { at::removeCallback(handle_); }
  OperatorCounts(const OperatorCounts&) = delete;
  OperatorCounts& operator=(const OperatorCounts&) = delete;

  int operator[](const std::string& name) const { return calls()[name]; }

 private:
  static std::map<std::string, int>& calls() {
    static thread_local std::map<std::string, int> counts;
    return counts;
  }
  static int& depth() {
    static thread_local int value = 0;
    return value;
  }
  // Autograd's engine shows itself too, around what a node calls.
  static bool is_operator(const at::RecordFunction& function) {
    return std::string_view(function.name()).starts_with("aten::");
  }
  static std::unique_ptr<at::ObserverContext> begin(const at::RecordFunction& function) {
    if (is_operator(function) && depth()++ == 0) ++calls()[function.name()];
    return nullptr;
  }
  static void end(const at::RecordFunction& function, at::ObserverContext*) {
    if (is_operator(function)) --depth();
  }

  at::CallbackHandle handle_;
};

}  // namespace tessera
