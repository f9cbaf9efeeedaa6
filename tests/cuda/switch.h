#pragma once
#include <cstddef>

/// One stack of a program that has several, each with a function of its own that is in the middle of
/// something.
namespace fibres {

struct Stack {
  void* pointer = nullptr;    ///< where it was left
  void* bottom = nullptr;     ///< lowest address
  size_t size = 0;            ///< bytes
  void* sanitizer = nullptr;  ///< AddressSanitizer's notes about it
};

/// Memory for a stack, with a page below it that must not be touched; it is never given back.
Stack allocate_stack();
/// Makes `stack` begin with entry() when it is next switched to. entry() must not return.
void begin(Stack& stack, void (*entry)());
/// Leaves the stack `from` (for good where `ends`) and goes on where `to` was left.
void switch_stack(Stack& from, Stack& to, bool ends = false);
/// The first thing that an entry does: `from` is the stack that was switched from.
void arrived(Stack& from);

}  // namespace fibres
