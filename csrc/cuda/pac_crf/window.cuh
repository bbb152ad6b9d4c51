// The layout of a batch in the kernels of pac_crf: as a single image.
//
// A tensor [B, C, H, W] is stored as planes [C, H, W, B]. A neighbour is then at a fixed distance for all images. The
// lanes of a warp are the same few pixels of many images, with the same neighbours inside the image, so that a whole
// warp skips neighbours outside. Other code need not know about the batch: a plane is an image of H rows and W*B
// columns, N = H*W*B.
#pragma once

#include <cstdint>

#include "common/macros.h"
#include "cuda/common/cuda.cuh"
#include "math/pac_crf.h"

namespace cxrfast {

constexpr unsigned int kAllLanes = 0xffffffffu;

// The window over a plane. Taps whose neighbour is outside for every pixel are left out, so that there may be fewer
// rows and columns than in the weight; both numbers are odd.
struct Window {
    int height, width;
    int rows, columns;
    int step_y, step_x;  // between taps, in rows and in columns of the plane

    CXRFAST_HOST_DEVICE int size() const { return height * width; }
    CXRFAST_HOST_DEVICE int taps() const { return rows * columns; }
    CXRFAST_HOST_DEVICE int centre() const { return taps() / 2; }
    CXRFAST_HOST_DEVICE int mirrored(int tap) const { return taps() - 1 - tap; }
    CXRFAST_HOST_DEVICE int dy(int row) const { return (row - rows / 2) * step_y; }
    CXRFAST_HOST_DEVICE int dx(int column) const { return (column - columns / 2) * step_x; }
    CXRFAST_HOST_DEVICE bool contains(int y, int x) const {
        return static_cast<unsigned int>(y) < static_cast<unsigned int>(height) &&
               static_cast<unsigned int>(x) < static_cast<unsigned int>(width);
    }
};

// The current rows of the window: first .. last-1 of the upper half, including that of the centre, and the mirrored
// rows. Position i in this list is row(i).
struct TapRows {
    int first, last, all;

    CXRFAST_HOST_DEVICE int lower() const { return all - last > last ? all - last : last; }
    CXRFAST_HOST_DEVICE int count() const { return last - first + all - first - lower(); }
    CXRFAST_HOST_DEVICE int row(int position) const {
        return position < last - first ? first + position : lower() + position - (last - first);
    }
    CXRFAST_HOST_DEVICE int position(int row) const { return row < last ? row - first : last - first + row - lower(); }
    // Affinities are symmetric: only those of the taps up to the centre are stored.
    CXRFAST_HOST_DEVICE int first_plane(const Window& window) const { return first * window.columns; }
    CXRFAST_HOST_DEVICE int planes(const Window& window) const {
        const int end = last * window.columns, half = window.centre() + 1;
        return (end < half ? end : half) - first_plane(window);
    }
};

// The position of the plane of a tap among those of all taps of the current rows.
CXRFAST_HOST_DEVICE int64_t slot_of(const TapRows& rows, const Window& window, int tap) {
    return rows.position(tap / window.columns) * window.columns + tap % window.columns;
}

template <typename T>
struct Affinities {
    T* data;  // [rows.planes(), N]; undefined where the neighbour is outside. nullptr: all are 1
    TapRows rows;

    // The address of the affinity of pixel 0 and its neighbour `tap`; that of pixel n is n elements further.
    CXRFAST_HOST_DEVICE int64_t offset(const Window& window, int tap, int shift) const {
        const bool kept = tap <= window.centre();
        const int plane = (kept ? tap : window.mirrored(tap)) - rows.first_plane(window);
        return static_cast<int64_t>(plane) * window.size() + (kept ? 0 : shift);
    }
};

#if defined(__CUDACC__) || defined(CXRFAST_CUDA_EMULATION)

// The pixels of a thread: a first one, and every 32nd after it.
template <int COUNT>
struct Pixels {
    int first, y[COUNT], x[COUNT];

    __device__ explicit Pixels(const Window& window) {
        const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
        first = blockIdx.x * blockDim.x * COUNT + warp * kWarp * COUNT + lane;
#pragma unroll
        for (int p = 0; p < COUNT; ++p) {
            y[p] = at(p) / window.width;
            x[p] = at(p) % window.width;
            if (at(p) >= window.size()) y[p] = INT32_MIN / 2;  // no neighbours
        }
    }

    __device__ int at(int p) const { return first + p * kWarp; }
    __device__ bool exists(int p) const { return y[p] >= 0; }
};

// Determines which pixels of the thread have this neighbour; false if none of the warp's pixels has it.
template <int PIXELS>
__device__ inline bool find_inside(
    bool (&inside)[PIXELS], const Pixels<PIXELS>& pixels, const Window& window, int dy, int dx) {
    bool any = false;
#pragma unroll
    for (int p = 0; p < PIXELS; ++p) {
        inside[p] = window.contains(pixels.y[p] + dy, pixels.x[p] + dx);
        any |= inside[p];
    }
    return __any_sync(kAllLanes, any);
}

// Whether all pixels of the warp have it.
template <int PIXELS>
__device__ inline bool all_inside(const bool (&inside)[PIXELS]) {
    bool all = true;
#pragma unroll
    for (int p = 0; p < PIXELS; ++p) all &= inside[p];
    return __all_sync(kAllLanes, all);
}

template <typename T, int PIXELS>
__device__ inline void read_affinities(T (&affinity)[PIXELS],
                                       const bool (&inside)[PIXELS],
                                       const Pixels<PIXELS>& pixels,
                                       const Affinities<T>& affinities,
                                       const Window& window,
                                       int tap,
                                       int shift) {
    const int64_t offset = affinities.offset(window, tap, shift) + pixels.first;
#pragma unroll
    for (int p = 0; p < PIXELS; ++p) {
        affinity[p] = !inside[p]                   ? T(0)
                      : affinities.data == nullptr ? T(1)
                                                   : __ldg(affinities.data + offset + p * kWarp);
    }
}

#endif

}  // namespace cxrfast
