#pragma once

/// Before a function: compiled for AVX-512, AVX2 and plain x86-64, one of which is chosen when the program
/// starts. Sanitizers cannot choose at start: their runtime is not up yet when the choice is made.
#if defined(__x86_64__) && defined(__gnu_linux__) && !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__)
#define TESSERA_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define TESSERA_CLONES
#endif
/// What clones call must become part of them.
#define TESSERA_INLINE inline __attribute__((always_inline))
