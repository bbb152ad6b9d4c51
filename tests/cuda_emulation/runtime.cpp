// The host's side of cuda_runtime.h: launches, attributes, error texts.
#include <map>
#include <mutex>

#include "machine.h"

namespace emulation {
namespace {

std::mutex one_launch;
std::map<const void*, int> opted_in;

}  // namespace

cudaError_t run(const cudaLaunchConfig_t& config, const void* kernel, void (*thread)(void*), void* context) {
    const std::lock_guard<std::mutex> lock(one_launch);
    const dim3 &grid = config.gridDim, &size = config.blockDim;
    const uint64_t threads = uint64_t{size.x} * size.y * size.z;
    if (grid.x < 1 || grid.y < 1 || grid.z < 1 || grid.x > 0x7fffffff || grid.y > 65535 || grid.z > 65535 ||
        threads < 1 || threads > kMostThreads || size.z > 64) {
        return cudaErrorInvalidConfiguration;
    }
    const auto allowed = opted_in.find(kernel);
    if (config.dynamicSmemBytes > (allowed == opted_in.end() ? kSharedAlways : static_cast<size_t>(allowed->second))) {
        return cudaErrorInvalidValue;
    }
    launch = {kernel, thread, context, config.dynamicSmemBytes};
    gridDim = grid, blockDim = size;
    run_blocks();
    return error.empty() ? cudaSuccess : cudaErrorLaunchFailure;
}

}  // namespace emulation

// The order of blocks and threads: 0 ascending, 1 descending, any other number shuffled by it.
extern "C" __attribute__((visibility("default"))) void cxrfast_emulation_seed(uint64_t value) {
    emulation::seed = value;
}

const char* cudaGetErrorString(cudaError_t code) {
    switch (code) {
        case cudaSuccess:
            return "no error";
        case cudaErrorInvalidValue:
            return "invalid argument";
        case cudaErrorInvalidConfiguration:
            return "invalid configuration argument";
        case cudaErrorLaunchFailure:
            return emulation::error.c_str();
    }
    return "unknown error";
}

cudaError_t cudaGetDevice(int* device) {
    *device = 0;
    return cudaSuccess;
}

// A small device, so that a kernel which asks for too much fails here.
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
    switch (attribute) {
        case cudaDevAttrMaxThreadsPerBlock:
            *value = emulation::kMostThreads;
            break;
        case cudaDevAttrMaxSharedMemoryPerBlock:
            *value = emulation::kSharedAlways;
            break;
        case cudaDevAttrMaxSharedMemoryPerBlockOptin:
            *value = emulation::kSharedOptIn;
            break;
        case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
            *value = 100 << 10;
            break;
        case cudaDevAttrMaxThreadsPerMultiProcessor:
            *value = 1536;
            break;
        case cudaDevAttrMultiProcessorCount:
            *value = 3;
            break;
        case cudaDevAttrL2CacheSize:
            *value = 1 << 20;
            break;
        case cudaDevAttrComputeCapabilityMajor:
            *value = 8;
            break;
        case cudaDevAttrComputeCapabilityMinor:
            *value = 6;
            break;
    }
    return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
    if (value < 0 || static_cast<size_t>(value) > emulation::kSharedOptIn) return cudaErrorInvalidValue;
    emulation::opted_in[kernel] = value;
    return cudaSuccess;
}
