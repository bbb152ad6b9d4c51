// CUDA for g++: compiles csrc/cuda as C++ and runs kernels on the CPU, so that they can be tested without a GPU.
//
// Found before the toolkit's header of this name. It offers what the kernels use and no more; emulation.cpp runs the
// threads of a block as fibres, which change places at every barrier and warp function, in an order that a seed
// shuffles. What would be undefined on a device is an error here, named by kernel, block and thread.
#pragma once

#include <math.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#define CXRFAST_CUDA_EMULATION 1

#define __global__ __attribute__((visibility("default")))  // so that an error can name the kernel
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __grid_constant__
// One segment holds all static shared memory, so that it can be filled with garbage before each block. AddressSanitizer
// puts guards around ordinary variables only.
#if defined(__SANITIZE_ADDRESS__)
#define __shared__ static
#else
#define __shared__ thread_local
#endif

struct uint3 {
    unsigned int x, y, z;
};

struct dim3 {
    unsigned int x, y, z;
    constexpr dim3(unsigned int x = 1, unsigned int y = 1, unsigned int z = 1) : x(x), y(y), z(z) {}
};

#define CXRFAST_VECTORS(T, NAME, SIZE)                     \
    struct alignas(2 * sizeof(T)) NAME##2 {                \
        T x, y;                                            \
    };                                                     \
    struct alignas(SIZE) NAME##4 {                         \
        T x, y, z, w;                                      \
    };                                                     \
    constexpr NAME##2 make_##NAME##2(T x, T y) {           \
        return {x, y};                                     \
    }                                                      \
    constexpr NAME##4 make_##NAME##4(T x, T y, T z, T w) { \
        return {x, y, z, w};                               \
    }
CXRFAST_VECTORS(signed char, char, 4)
CXRFAST_VECTORS(unsigned char, uchar, 4)
CXRFAST_VECTORS(short, short, 8)
CXRFAST_VECTORS(unsigned short, ushort, 8)
CXRFAST_VECTORS(int, int, 16)
CXRFAST_VECTORS(unsigned int, uint, 16)
CXRFAST_VECTORS(long long, longlong, 16)
CXRFAST_VECTORS(unsigned long long, ulonglong, 16)
CXRFAST_VECTORS(float, float, 16)
CXRFAST_VECTORS(double, double, 16)
#undef CXRFAST_VECTORS

// ---- what emulation.cpp keeps ----

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
constexpr int warpSize = 32;

#define CXRFAST_WHERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

namespace emulation {

enum class Barrier { plain, count, all, any };
enum class Warp { sync, shuffle, ballot, add, min, max, min_signed, max_signed, bit_and, bit_or, bit_xor, match };
constexpr int kOwnValue = -1;  // the source lane of a shuffle that keeps its value

// Waits until all threads of the block that have not exited are here.
int barrier(Barrier kind, const char* name, bool predicate, const char* file, int line);
// Waits until all lanes of the mask are here, and combines their values.
uint64_t warp(Warp kind, const char* name, unsigned int mask, uint64_t value, int source, const char* file, int line);
[[noreturn]] void fail(const char* message, const char* file, int line);  // ends the launch with an error
unsigned int lane();
void* dynamic_shared();
void atomic_access(const volatile void* address, size_t bytes);

template <typename T>
uint64_t to_bits(T value) {
    static_assert(std::is_arithmetic_v<T> && sizeof(T) <= 8, "warp functions exchange built-in numbers only");
    uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof(T));
    return bits;
}

template <typename T>
T from_bits(uint64_t bits) {
    T value;
    std::memcpy(&value, &bits, sizeof(T));
    return value;
}

template <typename T>
T shuffle(const char* name, unsigned int mask, T value, int source, const char* file, int line) {
    return from_bits<T>(warp(Warp::shuffle, name, mask, to_bits(value), source, file, line));
}

inline int group_start(int width, const char* file, int line) {
    if (width < 1 || width > warpSize || (width & (width - 1)) != 0) fail("width must be a power of 2", file, line);
    return static_cast<int>(lane()) & ~(width - 1);
}

// Threads change places at synchronisation only, so that plain code is atomic; what is not marked as it is a race.
template <typename T, typename F>
__attribute__((no_sanitize("thread"), noinline)) T atomic(T* address, F update) {
    atomic_access(address, sizeof(T));
    const T old = *address;
    *address = update(old);
    return old;
}

}  // namespace emulation

inline void* emulated_dynamic_shared() {
    return emulation::dynamic_shared();
}

// ---- synchronisation ----

inline void __syncthreads(CXRFAST_WHERE) {
    emulation::barrier(emulation::Barrier::plain, "__syncthreads", false, file, line);
}
inline int __syncthreads_count(int predicate, CXRFAST_WHERE) {
    return emulation::barrier(emulation::Barrier::count, "__syncthreads_count", predicate != 0, file, line);
}
inline int __syncthreads_and(int predicate, CXRFAST_WHERE) {
    return emulation::barrier(emulation::Barrier::all, "__syncthreads_and", predicate != 0, file, line);
}
inline int __syncthreads_or(int predicate, CXRFAST_WHERE) {
    return emulation::barrier(emulation::Barrier::any, "__syncthreads_or", predicate != 0, file, line);
}
inline void __syncwarp(unsigned int mask = 0xffffffffu, CXRFAST_WHERE) {
    emulation::warp(emulation::Warp::sync, "__syncwarp", mask, 0, 0, file, line);
}
inline void __threadfence() {}
inline void __threadfence_block() {}

// ---- warp functions ----

// A device takes the source lane modulo the width; nobody who names a lane outside of it means that.
template <typename T>
T __shfl_sync(unsigned int mask, T value, int source, int width = warpSize, CXRFAST_WHERE) {
    const int start = emulation::group_start(width, file, line);
    if (source < 0 || source >= width) emulation::fail("__shfl_sync: lane out of range", file, line);
    return emulation::shuffle("__shfl_sync", mask, value, start + source, file, line);
}
template <typename T>
T __shfl_up_sync(unsigned int mask, T value, unsigned int delta, int width = warpSize, CXRFAST_WHERE) {
    const int64_t start = emulation::group_start(width, file, line), source = int64_t{emulation::lane()} - delta;
    return emulation::shuffle("__shfl_up_sync", mask, value,
                              source < start ? emulation::kOwnValue : static_cast<int>(source), file, line);
}
template <typename T>
T __shfl_down_sync(unsigned int mask, T value, unsigned int delta, int width = warpSize, CXRFAST_WHERE) {
    const int64_t start = emulation::group_start(width, file, line), source = int64_t{emulation::lane()} + delta;
    return emulation::shuffle("__shfl_down_sync", mask, value,
                              source >= start + width ? emulation::kOwnValue : static_cast<int>(source), file, line);
}
template <typename T>
T __shfl_xor_sync(unsigned int mask, T value, int lanes, int width = warpSize, CXRFAST_WHERE) {
    const int start = emulation::group_start(width, file, line);
    if (lanes < 0 || lanes >= warpSize) emulation::fail("__shfl_xor_sync: lane out of range", file, line);
    const int source = static_cast<int>(emulation::lane()) ^ lanes;
    return emulation::shuffle("__shfl_xor_sync", mask, value, source >= start + width ? emulation::kOwnValue : source,
                              file, line);
}

inline unsigned int __ballot_sync(unsigned int mask, int predicate, CXRFAST_WHERE) {
    return static_cast<unsigned int>(
        emulation::warp(emulation::Warp::ballot, "__ballot_sync", mask, predicate != 0, 0, file, line));
}
inline int __any_sync(unsigned int mask, int predicate, CXRFAST_WHERE) {
    return emulation::warp(emulation::Warp::ballot, "__any_sync", mask, predicate != 0, 0, file, line) != 0;
}
inline int __all_sync(unsigned int mask, int predicate, CXRFAST_WHERE) {
    return emulation::warp(emulation::Warp::ballot, "__all_sync", mask, predicate != 0, 0, file, line) == mask;
}
template <typename T>
unsigned int __match_any_sync(unsigned int mask, T value, CXRFAST_WHERE) {
    return static_cast<unsigned int>(
        emulation::warp(emulation::Warp::match, "__match_any_sync", mask, emulation::to_bits(value), 0, file, line));
}

#define CXRFAST_REDUCE(T, NAME, KIND)                                                                          \
    inline T __reduce_##NAME##_sync(unsigned int mask, T value, CXRFAST_WHERE) {                               \
        return emulation::from_bits<T>(emulation::warp(emulation::Warp::KIND, "__reduce_" #NAME "_sync", mask, \
                                                       emulation::to_bits(value), 0, file, line));             \
    }
CXRFAST_REDUCE(unsigned int, add, add)
CXRFAST_REDUCE(int, add, add)
CXRFAST_REDUCE(unsigned int, min, min)
CXRFAST_REDUCE(int, min, min_signed)
CXRFAST_REDUCE(unsigned int, max, max)
CXRFAST_REDUCE(int, max, max_signed)
CXRFAST_REDUCE(unsigned int, and, bit_and)
CXRFAST_REDUCE(unsigned int, or, bit_or)
CXRFAST_REDUCE(unsigned int, xor, bit_xor)
#undef CXRFAST_REDUCE

// ---- atomics, for the types that a device has ----

#define CXRFAST_ATOMIC(T, NAME, VALUE)                                        \
    inline T atomic##NAME(T* address, T value) {                              \
        return emulation::atomic(address, [=](T old) -> T { return VALUE; }); \
    }
#define CXRFAST_ATOMIC_INTEGER(T)                                                               \
    CXRFAST_ATOMIC(T, Add, old + value)                                                         \
    CXRFAST_ATOMIC(T, Exch, (static_cast<void>(old), value))                                    \
    CXRFAST_ATOMIC(T, Min, old < value ? old : value)                                           \
    CXRFAST_ATOMIC(T, Max, old > value ? old : value)                                           \
    CXRFAST_ATOMIC(T, And, old& value)                                                          \
    CXRFAST_ATOMIC(T, Or, old | value)                                                          \
    CXRFAST_ATOMIC(T, Xor, old ^ value)                                                         \
    inline T atomicCAS(T* address, T compare, T value) {                                        \
        return emulation::atomic(address, [=](T old) { return old == compare ? value : old; }); \
    }
CXRFAST_ATOMIC_INTEGER(int)
CXRFAST_ATOMIC_INTEGER(unsigned int)
CXRFAST_ATOMIC_INTEGER(unsigned long long)
CXRFAST_ATOMIC(float, Add, old + value)
CXRFAST_ATOMIC(double, Add, old + value)
CXRFAST_ATOMIC(float, Exch, (static_cast<void>(old), value))
CXRFAST_ATOMIC(int, Sub, old - value)
CXRFAST_ATOMIC(unsigned int, Sub, old - value)
CXRFAST_ATOMIC(unsigned int, Inc, old >= value ? 0 : old + 1)
CXRFAST_ATOMIC(unsigned int, Dec, old == 0 || old > value ? value : old - 1)
#undef CXRFAST_ATOMIC_INTEGER
#undef CXRFAST_ATOMIC

// ---- arithmetic ----

inline int __popc(unsigned int x) {
    return __builtin_popcount(x);
}
inline int __popcll(unsigned long long x) {
    return __builtin_popcountll(x);
}
inline int __ffs(int x) {
    return __builtin_ffs(x);
}
inline int __ffsll(long long x) {
    return __builtin_ffsll(x);
}
inline int __clz(int x) {
    return x == 0 ? 32 : __builtin_clz(static_cast<unsigned int>(x));
}
inline int __clzll(long long x) {
    return x == 0 ? 64 : __builtin_clzll(static_cast<unsigned long long>(x));
}
inline unsigned int __brev(unsigned int x) {
    unsigned int reversed = 0;
    for (int i = 0; i < 32; ++i) reversed |= (x >> i & 1u) << (31 - i);
    return reversed;
}
inline unsigned long long __brevll(unsigned long long x) {
    const unsigned long long low = __brev(static_cast<unsigned int>(x));
    return low << 32 | __brev(static_cast<unsigned int>(x >> 32));
}
inline int __float_as_int(float x) {
    return emulation::from_bits<int>(emulation::to_bits(x));
}
inline float __int_as_float(int x) {
    return emulation::from_bits<float>(emulation::to_bits(x));
}
inline unsigned int __float_as_uint(float x) {
    return emulation::from_bits<unsigned int>(emulation::to_bits(x));
}
inline float __uint_as_float(unsigned int x) {
    return emulation::from_bits<float>(emulation::to_bits(x));
}
inline long long __double_as_longlong(double x) {
    return emulation::from_bits<long long>(emulation::to_bits(x));
}
inline double __longlong_as_double(long long x) {
    return emulation::from_bits<double>(emulation::to_bits(x));
}
inline float rsqrtf(float x) {
    return 1.0f / sqrtf(x);
}
inline double rsqrt(double x) {
    return 1.0 / sqrt(x);
}

#define CXRFAST_MIN_MAX(T)      \
    constexpr T min(T a, T b) { \
        return b < a ? b : a;   \
    }                           \
    constexpr T max(T a, T b) { \
        return a < b ? b : a;   \
    }
CXRFAST_MIN_MAX(int)
CXRFAST_MIN_MAX(unsigned int)
CXRFAST_MIN_MAX(long)
CXRFAST_MIN_MAX(unsigned long)
CXRFAST_MIN_MAX(long long)
CXRFAST_MIN_MAX(unsigned long long)
#undef CXRFAST_MIN_MAX
inline float min(float a, float b) {
    return fminf(a, b);
}
inline float max(float a, float b) {
    return fmaxf(a, b);
}
inline double min(double a, double b) {
    return fmin(a, b);
}
inline double max(double a, double b) {
    return fmax(a, b);
}

// Loads and stores with a cache hint.
template <typename T>
T __ldg(const T* address) {
    return *address;
}
template <typename T>
T __ldcs(const T* address) {
    return *address;
}
template <typename T>
T __ldcg(const T* address) {
    return *address;
}
template <typename T>
void __stcs(T* address, T value) {
    *address = value;
}
template <typename T>
void __stcg(T* address, T value) {
    *address = value;
}

// ---- the host's side ----

enum cudaError_t {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorLaunchFailure = 719
};
enum cudaDeviceAttr {
    cudaDevAttrMaxThreadsPerBlock,
    cudaDevAttrMaxSharedMemoryPerBlock,
    cudaDevAttrMaxSharedMemoryPerBlockOptin,
    cudaDevAttrMaxSharedMemoryPerMultiprocessor,
    cudaDevAttrMaxThreadsPerMultiProcessor,
    cudaDevAttrMultiProcessorCount,
    cudaDevAttrL2CacheSize,
    cudaDevAttrComputeCapabilityMajor,
    cudaDevAttrComputeCapabilityMinor,
};
enum cudaFuncAttribute {
    cudaFuncAttributeMaxDynamicSharedMemorySize,
    cudaFuncAttributePreferredSharedMemoryCarveout,
};
enum cudaMemcpyKind {
    cudaMemcpyHostToHost,
    cudaMemcpyHostToDevice,
    cudaMemcpyDeviceToHost,
    cudaMemcpyDeviceToDevice,
    cudaMemcpyDefault,
};
enum cudaStreamCaptureStatus { cudaStreamCaptureStatusNone, cudaStreamCaptureStatusActive };

using cudaStream_t = struct CUstream_st*;

struct cudaLaunchAttribute;
struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    size_t dynamicSmemBytes;
    cudaStream_t stream;
    cudaLaunchAttribute* attrs;
    unsigned int numAttrs;
};

const char* cudaGetErrorString(cudaError_t error);  // after a failed launch: what failed, and where
cudaError_t cudaGetDevice(int* device);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);
cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value);
inline cudaError_t cudaGetLastError() {
    return cudaSuccess;
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t) {
    return cudaSuccess;
}
inline cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus* status) {
    *status = cudaStreamCaptureStatusNone;
    return cudaSuccess;
}
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t = nullptr) {
    std::memcpy(to, from, bytes);
    return cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t = nullptr) {
    std::memset(to, value, bytes);
    return cudaSuccess;
}
template <typename Kernel>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, Kernel, int threads, size_t shared_bytes) {
    const size_t by_memory = (size_t{100} << 10) / (shared_bytes + 1024), by_threads = 1536 / threads;
    *blocks = static_cast<int>(by_memory < by_threads ? by_memory : by_threads);
    return cudaSuccess;
}

namespace emulation {
cudaError_t run(const cudaLaunchConfig_t& config, const void* kernel, void (*thread)(void*), void* context);
}

template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config,
                               void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
    auto call = [&] { kernel(static_cast<Parameters>(arguments)...); };
    return emulation::run(
        *config, reinterpret_cast<const void*>(kernel), [](void* c) { (*static_cast<decltype(call)*>(c))(); }, &call);
}
