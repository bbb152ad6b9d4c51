// Small kernels for test_emulation.py: one for each thing the emulation offers, and some with bugs planted in them.
#include <cuda_runtime.h>

#include <cstdint>

namespace {

constexpr unsigned int kAll = 0xffffffffu;

const char* launch(void (*kernel)(const int*, int*),
                   const int* x,
                   int* y,
                   unsigned int blocks,
                   unsigned int threads,
                   size_t shared_bytes = 0) {
    cudaLaunchConfig_t config{};
    config.gridDim = blocks;
    config.blockDim = threads;
    config.dynamicSmemBytes = shared_bytes;
    const cudaError_t error = cudaLaunchKernelEx(&config, kernel, x, y);
    return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace

#define KERNEL(NAME) __global__ void NAME##_kernel(const int* x, int* y)
#define EXPORT(NAME, ...)                                                                                       \
    extern "C" __attribute__((visibility("default"))) const char* NAME(const int* x, int* y, unsigned blocks,   \
                                                                       unsigned threads, size_t shared_bytes) { \
        return launch(__VA_ARGS__, x, y, blocks, threads, shared_bytes);                                        \
    }

// y[thread] over the whole grid.
KERNEL(indices) {
    y[blockIdx.x * blockDim.x + threadIdx.x] = static_cast<int>(blockIdx.x * 1000 + threadIdx.x);
}
EXPORT(indices, indices_kernel)

// y[block] = sum of the block's part of x: static shared memory, barrier, shuffles.
KERNEL(block_sum) {
    __shared__ int part[32];
    int sum = x[blockIdx.x * blockDim.x + threadIdx.x];
    for (int lanes = 16; lanes > 0; lanes /= 2) sum += __shfl_down_sync(kAll, sum, lanes);
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x < 32) {
        sum = threadIdx.x < blockDim.x / 32 ? part[threadIdx.x] : 0;
        for (int lanes = 16; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(kAll, sum, lanes);
        if (threadIdx.x == 0) y[blockIdx.x] = sum;
    }
}
EXPORT(block_sum, block_sum_kernel)

// Each warp function's result for each lane of one warp, widths 32 and 8.
KERNEL(warp_functions) {
    const int lane = static_cast<int>(threadIdx.x), v = x[lane];
    int* to = y + lane;
    for (int width = 32; width >= 8; width /= 4) {
        *to = __shfl_sync(kAll, v, 5, width), to += 32;
        *to = __shfl_up_sync(kAll, v, 3, width), to += 32;
        *to = __shfl_down_sync(kAll, v, 3, width), to += 32;
        *to = __shfl_xor_sync(kAll, v, 6, width), to += 32;
    }
    *to = static_cast<int>(__ballot_sync(kAll, v > 0)), to += 32;
    *to = __any_sync(kAll, v > 90), to += 32;
    *to = __all_sync(kAll, v > -100), to += 32;
    *to = __reduce_add_sync(kAll, v), to += 32;
    *to = __reduce_min_sync(kAll, v), to += 32;
    *to = __reduce_max_sync(kAll, v), to += 32;
    *to = static_cast<int>(__reduce_or_sync(kAll, static_cast<unsigned int>(v))), to += 32;
    *to = static_cast<int>(__match_any_sync(kAll, v % 3)), to += 32;
    const double wide = __shfl_xor_sync(kAll, v + 0.5, 1);
    *to = static_cast<int>(wide * 2), to += 32;
    // Half of the warp goes its own way.
    *to = lane < 16 ? __reduce_add_sync(0xffffu, v) : __reduce_add_sync(0xffff0000u, 2 * v);
}
EXPORT(warp_functions, warp_functions_kernel)

KERNEL(votes) {
    const int v = x[threadIdx.x];
    y[threadIdx.x] = __syncthreads_count(v > 0);
    y[threadIdx.x + blockDim.x] = __syncthreads_and(v > -100);
    y[threadIdx.x + 2 * blockDim.x] = __syncthreads_or(v > 90);
    y[threadIdx.x + 3 * blockDim.x] = __syncthreads_and(threadIdx.x > 0);
}
EXPORT(votes, votes_kernel)

KERNEL(atomics) {
    const int v = x[blockIdx.x * blockDim.x + threadIdx.x];
    atomicAdd(y, v);
    atomicMin(y + 1, v);
    atomicMax(y + 2, v);
    atomicOr(y + 3, 1 << (v & 15));
    atomicAnd(y + 4, ~(1 << (v & 15)));
    atomicXor(y + 5, v);
    atomicSub(y + 6, v);
    atomicInc(reinterpret_cast<unsigned int*>(y) + 7, 9);
    for (int seen = y[8], old; (old = atomicCAS(y + 8, seen, seen + v)) != seen; seen = old) {
    }
    atomicExch(y + 9, 7);
    atomicAdd(reinterpret_cast<float*>(y) + 10, 0.5f);
    atomicAdd(reinterpret_cast<double*>(y + 12), 0.25);
    atomicAdd(reinterpret_cast<unsigned long long*>(y + 14), 1ull << 32);
}
EXPORT(atomics, atomics_kernel)

KERNEL(bits) {
    const int v = x[threadIdx.x];
    int* to = y + threadIdx.x;
    *to = __popc(v), to += blockDim.x;
    *to = __ffs(v), to += blockDim.x;
    *to = __clz(v), to += blockDim.x;
    *to = static_cast<int>(__brev(v)), to += blockDim.x;
    *to = __popcll(v), to += blockDim.x;
    *to = __clzll(v), to += blockDim.x;
    *to = __float_as_int(__int_as_float(v & 0xffff)) + min(v, 3) + max(v, 5);
}
EXPORT(bits, bits_kernel)

// Reverses each block's part in dynamic shared memory; with a shift it writes beyond what was asked for.
template <int shift>
KERNEL(reverse) {
    int* shared = static_cast<int*>(emulated_dynamic_shared());
    const unsigned int first = blockIdx.x * blockDim.x;
    shared[threadIdx.x + shift] = x[first + threadIdx.x];
    __syncthreads();
    y[first + threadIdx.x] = shared[blockDim.x - 1 - threadIdx.x + shift];
}
EXPORT(reverse, reverse_kernel<0>)
EXPORT(reverse_overrun, reverse_kernel<4>)

// The block that finishes last adds up what the others left: y[0] the sum, y[1] the counter, then one part per block.
KERNEL(last_block) {
    __shared__ bool is_last;
    if (threadIdx.x == 0) {
        y[2 + blockIdx.x] = x[blockIdx.x];
        __threadfence();
        is_last = atomicAdd(y + 1, 1) == static_cast<int>(gridDim.x) - 1;
    }
    __syncthreads();
    if (!is_last || threadIdx.x != 0) return;
    int sum = 0;
    for (unsigned int i = 0; i < gridDim.x; ++i) sum += y[2 + i];
    y[0] = sum;
}
EXPORT(last_block, last_block_kernel)

// What shared memory holds before anybody wrote to it.
KERNEL(uninitialised) {
    __shared__ int values[64];
    y[blockIdx.x * blockDim.x + threadIdx.x] = values[threadIdx.x];
    values[threadIdx.x] = 0;
}
EXPORT(uninitialised, uninitialised_kernel)

// ---- planted bugs, each with its repaired twin ----

// The neighbour's value, without waiting for the neighbour.
template <bool repaired>
KERNEL(neighbour) {
    __shared__ int values[256];
    values[threadIdx.x] = x[threadIdx.x];
    if constexpr (repaired) __syncthreads();
    y[threadIdx.x] = values[(threadIdx.x + 1) % blockDim.x];
}
EXPORT(neighbour_without_barrier, neighbour_kernel<false>)
EXPORT(neighbour_with_barrier, neighbour_kernel<true>)

// The same between the lanes of a warp, which do not run in step.
template <bool repaired>
KERNEL(swap_lanes) {
    __shared__ int values[256];
    values[threadIdx.x] = x[threadIdx.x];
    if constexpr (repaired) __syncwarp();
    y[threadIdx.x] = values[threadIdx.x ^ 1];
}
EXPORT(swap_lanes_without_sync, swap_lanes_kernel<false>)
EXPORT(swap_lanes_with_sync, swap_lanes_kernel<true>)

// Everybody writes again before everybody has read.
template <bool repaired>
KERNEL(rotate) {
    __shared__ int values[256];
    int v = x[threadIdx.x];
    for (int i = 0; i < 3; ++i) {
        values[threadIdx.x] = v;
        __syncthreads();
        v = values[(threadIdx.x + 1) % blockDim.x];
        if constexpr (repaired) __syncthreads();
    }
    y[threadIdx.x] = v;
}
EXPORT(rotate_without_second_barrier, rotate_kernel<false>)
EXPORT(rotate_with_second_barrier, rotate_kernel<true>)

// The next lane's value: the last lane has none.
template <bool repaired>
KERNEL(next_lane) {
    const int lane = static_cast<int>(threadIdx.x % 32);
    y[threadIdx.x] = __shfl_sync(kAll, x[threadIdx.x], repaired ? (lane + 1) % 32 : lane + 1);
}
EXPORT(next_lane_out_of_range, next_lane_kernel<false>)
EXPORT(next_lane_in_range, next_lane_kernel<true>)

// A sum over the grid.
template <bool repaired>
KERNEL(accumulate) {
    const int v = x[blockIdx.x * blockDim.x + threadIdx.x];
    if constexpr (repaired) {
        atomicAdd(y, v);
    } else {
        y[0] += v;
    }
}
EXPORT(accumulate_without_atomics, accumulate_kernel<false>)
EXPORT(accumulate_with_atomics, accumulate_kernel<true>)

// ---- what is refused ----

KERNEL(half_a_barrier) {
    if (threadIdx.x < 32) {
        __syncthreads();
    } else {
        __syncthreads();
    }
    y[threadIdx.x] = 0;
}
EXPORT(half_a_barrier, half_a_barrier_kernel)

KERNEL(barrier_against_warp) {
    if (threadIdx.x == 3) {
        __syncthreads();
    } else {
        y[threadIdx.x] = __any_sync(kAll, 1);
    }
}
EXPORT(barrier_against_warp, barrier_against_warp_kernel)

KERNEL(lane_has_left) {
    if (threadIdx.x == 7) return;
    y[threadIdx.x] = __any_sync(kAll, 1);
}
EXPORT(lane_has_left, lane_has_left_kernel)

KERNEL(reads_lane_outside_mask) {
    if (threadIdx.x < 8) y[threadIdx.x] = __shfl_sync(0xffu, x[threadIdx.x], 9);
}
EXPORT(reads_lane_outside_mask, reads_lane_outside_mask_kernel)

KERNEL(early_exit) {  // allowed: who has left is not waited for
    if (threadIdx.x >= 40) return;
    __syncthreads();
    y[threadIdx.x] = 1;
}
EXPORT(early_exit, early_exit_kernel)
