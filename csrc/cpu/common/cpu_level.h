// The vector unit that loops written for a specific instruction set may use.
#pragma once

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__CUDACC__)
#define CXRFAST_AVX2 __attribute__((target("arch=x86-64-v3")))
#define CXRFAST_AVX512 __attribute__((target("arch=x86-64-v4")))
#define CXRFAST_AVX512_POPCOUNT __attribute__((target("arch=x86-64-v4,avx512vpopcntdq")))
#else
#define CXRFAST_AVX2
#define CXRFAST_AVX512
#define CXRFAST_AVX512_POPCOUNT
#endif

// A build with a lower limit tests the code paths of smaller machines.
#ifndef CXRFAST_HIGHEST_CPU_LEVEL
#define CXRFAST_HIGHEST_CPU_LEVEL 2
#endif

namespace cxrfast {

enum class CpuLevel { kPortable = 0, kAvx2 = 1, kAvx512 = 2 };

inline CpuLevel cpu_level() {
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__CUDACC__)
    static const CpuLevel level = __builtin_cpu_supports("x86-64-v4")   ? CpuLevel::kAvx512
                                  : __builtin_cpu_supports("x86-64-v3") ? CpuLevel::kAvx2
                                                                        : CpuLevel::kPortable;
    constexpr CpuLevel highest = static_cast<CpuLevel>(CXRFAST_HIGHEST_CPU_LEVEL);
    return level < highest ? level : highest;
#else
    return CpuLevel::kPortable;
#endif
}

// Whether AVX-512 can count bits; its first processors could not.
inline bool has_vector_popcount() {
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__CUDACC__)
    return cpu_level() == CpuLevel::kAvx512 && __builtin_cpu_supports("avx512vpopcntdq");
#else
    return false;
#endif
}

}  // namespace cxrfast
