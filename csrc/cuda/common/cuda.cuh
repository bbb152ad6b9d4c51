// Common parts of the CUDA back end: registration, device guard, stream, launch, dynamic shared memory, grid.
//
// Device code (csrc/cuda/*/*.cuh) includes this header and csrc/math, but not torch, and is launched by launch().
// Without <<<...>>>, g++ can also compile it with tests/cuda_emulation/cuda_runtime.h, which defines
// CXRFAST_CUDA_EMULATION and runs the threads of a block on the CPU.
#pragma once

#include <cuda_runtime.h>
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <cstdint>

#include "common/check.h"
#include "common/tensor.h"

#if !defined(CXRFAST_CUDA_EMULATION)
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#endif

// Registers the operators of this library for tensors on its devices.
#if defined(CXRFAST_CUDA_EMULATION)
#define CXRFAST_CUDA_IMPL(m) STABLE_TORCH_LIBRARY_IMPL(cxrfast_emulated, CPU, m)
#else
#define CXRFAST_CUDA_IMPL(m) STABLE_TORCH_LIBRARY_IMPL(cxrfast, CUDA, m)
#endif

namespace cxrfast {

constexpr int kWarp = 32;

// Must be in scope while an operator allocates and launches: it makes the device of x the current one.
#if defined(CXRFAST_CUDA_EMULATION)
struct DeviceGuard {
    explicit DeviceGuard(const Tensor&) {}
};
inline cudaStream_t current_stream(const Tensor&) {
    return nullptr;
}
#else
struct DeviceGuard : torch::stable::accelerator::DeviceGuard {
    explicit DeviceGuard(const Tensor& x) : torch::stable::accelerator::DeviceGuard(x.get_device_index()) {}
};
inline cudaStream_t current_stream(const Tensor& x) {
    void* stream = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(x.get_device_index(), &stream));
    return static_cast<cudaStream_t>(stream);
}
#endif

inline void check_cuda(cudaError_t error, const char* what) {
    CXRFAST_CHECK(error == cudaSuccess, what, ": ", cudaGetErrorString(error));
}

inline int device_attribute(cudaDeviceAttr attribute) {  // of the current device
    int device = 0, value = 0;
    check_cuda(cudaGetDevice(&device), "cudaGetDevice");
    check_cuda(cudaDeviceGetAttribute(&value, attribute, device), "cudaDeviceGetAttribute");
    return value;
}

// The maximum of dynamic shared memory that a block may request, after opting in.
inline int64_t shared_bytes_per_block() {
    return device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
}

struct Grid {
    dim3 blocks, threads;
    size_t shared_bytes = 0;  // dynamic
};

// Launches kernel(args...) on the current stream of the device that x is on.
template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), const Grid& grid, const Tensor& x, Arguments&&... arguments) {
    constexpr size_t kAlwaysAllowed = 48 << 10;
    if (grid.shared_bytes > kAlwaysAllowed) {
        check_cuda(
            cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 static_cast<int>(grid.shared_bytes)),
            "cudaFuncSetAttribute");
    }
    cudaLaunchConfig_t config{};
    config.gridDim = grid.blocks;
    config.blockDim = grid.threads;
    config.dynamicSmemBytes = grid.shared_bytes;
    config.stream = current_stream(x);
    check_cuda(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...), "cudaLaunchKernelEx");
}

// The number of blocks of a grid-stride loop over n elements: enough to fill any device, few enough for 32 bits.
inline unsigned int blocks_for(int64_t n, int64_t threads) {
    return static_cast<unsigned int>(std::clamp<int64_t>((n + threads - 1) / threads, 1, 1 << 20));
}

#if defined(__CUDACC__) || defined(CXRFAST_CUDA_EMULATION)
// The dynamic shared memory of the block, 16-byte aligned.
template <typename T>
__device__ inline T* dynamic_shared() {
#if defined(CXRFAST_CUDA_EMULATION)
    return static_cast<T*>(emulated_dynamic_shared());
#else
    extern __shared__ __align__(16) unsigned char bytes[];
    return reinterpret_cast<T*>(bytes);
#endif
}
#endif

}  // namespace cxrfast
