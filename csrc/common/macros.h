// Macros to compile csrc/math with g++ and nvcc, and to select CPU functions by the vector unit at run time.
#pragma once

#if defined(__CUDACC__)
#define CXRFAST_HOST_DEVICE __host__ __device__ inline
#else
#define CXRFAST_HOST_DEVICE inline
#endif

// Run-time dispatch: the compiler emits the function for plain x86-64, AVX2 and AVX-512, and the loader selects one.
// Functions that it calls must be inlined to benefit. Only g++ on x86-64 ELF supports this; elsewhere, the plain
// function is used.
#if defined(__x86_64__) && defined(__ELF__) && defined(__GNUC__) && !defined(__clang__) && !defined(__CUDACC__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define CXRFAST_CPU_CLONES __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define CXRFAST_CPU_CLONES
#endif

// For functions called in the inner loop of a function with CXRFAST_CPU_CLONES.
#define CXRFAST_ALWAYS_INLINE inline __attribute__((always_inline))

// For formulas of csrc/math that vectorised loops also call.
#if defined(__CUDACC__)
#define CXRFAST_FORMULA CXRFAST_HOST_DEVICE
#else
#define CXRFAST_FORMULA CXRFAST_ALWAYS_INLINE
#endif
