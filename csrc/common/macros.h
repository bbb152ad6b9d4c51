// What lets csrc/math be compiled by g++ and by nvcc, and one CPU binary use the vector units it finds.
#pragma once

#if defined(__CUDACC__)
#define CXRFAST_HOST_DEVICE __host__ __device__ inline
#else
#define CXRFAST_HOST_DEVICE inline
#endif

// Run-time dispatch: the compiler emits the function for plain x86-64, AVX2 and AVX-512, and the loader picks one.
// Callees must be inlined into it to profit. Only g++ on x86-64 ELF has it; elsewhere the plain function stands.
#if defined(__x86_64__) && defined(__ELF__) && defined(__GNUC__) && !defined(__clang__) && !defined(__CUDACC__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define CXRFAST_CPU_CLONES __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define CXRFAST_CPU_CLONES
#endif

// For what a function with CXRFAST_CPU_CLONES calls in its inner loop.
#define CXRFAST_ALWAYS_INLINE inline __attribute__((always_inline))

// For a formula of csrc/math that vectorised loops call too.
#if defined(__CUDACC__)
#define CXRFAST_FORMULA CXRFAST_HOST_DEVICE
#else
#define CXRFAST_FORMULA CXRFAST_ALWAYS_INLINE
#endif
