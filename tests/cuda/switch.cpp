#include "tests/cuda/switch.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <system_error>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace fibres {
namespace {

constexpr size_t stack_bytes = 256 << 10;

void leaving([[maybe_unused]] Stack& from, [[maybe_unused]] const Stack& to, [[maybe_unused]] bool ends) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(ends ? nullptr : &from.sanitizer, to.bottom, to.size);
#endif
}

}  // namespace

void arrived([[maybe_unused]] Stack& from) {
#if defined(__SANITIZE_ADDRESS__)
  const void* bottom = nullptr;
  size_t size = 0;
  __sanitizer_finish_switch_fiber(nullptr, &bottom, &size);
  from.bottom = const_cast<void*>(bottom);
  from.size = size;
#endif
}

Stack allocate_stack() {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  void* memory = mmap(nullptr, page + stack_bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED || mprotect(memory, page, PROT_NONE) != 0) {
    throw std::system_error(errno, std::generic_category(), "a fibre's stack");
  }
  Stack stack;
  stack.bottom = static_cast<char*>(memory) + page;
  stack.size = stack_bytes;
  return stack;
}

#if defined(__x86_64__)

// Saves what a function must leave as it was, and the stack's pointer; then the same backwards on the other
// stack. ucontext's functions do this with a system call each time.
extern "C" void tessera_switch_stack(void** from, void* to);
asm(R"(
.text
.globl tessera_switch_stack
.type tessera_switch_stack, @function
tessera_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size tessera_switch_stack, .-tessera_switch_stack
)");

void begin(Stack& stack, void (*entry)()) {
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(stack.bottom, stack.size);  // left in the middle of something the last time
#endif
  auto* top = reinterpret_cast<uintptr_t*>(static_cast<char*>(stack.bottom) + stack.size);
  *--top = 0;  // where entry() would return to
  *--top = reinterpret_cast<uintptr_t>(entry);
  for (int saved = 0; saved < 6; ++saved) *--top = 0;
  stack.pointer = top;
  stack.sanitizer = nullptr;
}

void switch_stack(Stack& from, Stack& to, bool ends) {
  leaving(from, to, ends);
  tessera_switch_stack(&from.pointer, to.pointer);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(from.sanitizer, nullptr, nullptr);
#endif
}

#else

void begin(Stack& stack, void (*entry)()) {
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(stack.bottom, stack.size);
#endif
  if (!stack.pointer) stack.pointer = new ucontext_t;
  auto* context = static_cast<ucontext_t*>(stack.pointer);
  getcontext(context);
  context->uc_stack.ss_sp = stack.bottom;
  context->uc_stack.ss_size = stack.size;
  context->uc_link = nullptr;
  makecontext(context, entry, 0);
  stack.sanitizer = nullptr;
}

void switch_stack(Stack& from, Stack& to, bool ends) {
  if (!from.pointer) from.pointer = new ucontext_t;
  leaving(from, to, ends);
  swapcontext(static_cast<ucontext_t*>(from.pointer), static_cast<ucontext_t*>(to.pointer));
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(from.sanitizer, nullptr, nullptr);
#endif
}

#endif

}  // namespace fibres
