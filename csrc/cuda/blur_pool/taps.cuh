// The blur along one axis as a short list of taps per target, computed by the threads that need it. In the forward, a
// target is an output pixel and its sources are input pixels. In the backward, the transposed blur, it is the other way
// round.
#pragma once

#include "common/dispatch.h"
#include "cuda/common/cuda.cuh"
#include "math/blur_pool.h"

namespace cxrfast {

constexpr int kBlurThreads = 256;
constexpr int kMaxTaps = 8;  // kMaxFilterSize, plus one that only the reflection of an even filter adds

struct BlurAxis {
    int image, blurred;  // sizes before and after the blur
    int filter, stride, before;
    Padding padding;
    bool transposed;

    CXRFAST_HOST_DEVICE int sources() const { return transposed ? blurred : image; }
    CXRFAST_HOST_DEVICE int targets() const { return transposed ? image : blurred; }
    CXRFAST_HOST_DEVICE int taps() const { return transposed ? (filter - 1) / stride + 2 : filter; }  // maximum
};

// The filter, normalised; a kernel's parameter.
template <typename acc_t>
struct BlurFilter {
    acc_t tap[kMaxTaps];  // 0 after the size of the filter
};

template <typename acc_t>
struct Tap {
    int source;  // -1: no source
    acc_t weight;
};

// Copies the filter to shared memory, where threads can index it. The block must synchronise before reading it.
template <typename acc_t>
__device__ void stage_filter(const BlurFilter<acc_t>& filter, acc_t* shared /* [kMaxTaps] */) {
#pragma unroll
    for (int t = 0; t < kMaxTaps; ++t) {
        if (threadIdx.x == t) shared[t] = filter.tap[t];
    }
}

// The first output pixel of which a pixel of the image may be a source.
__device__ inline int first_use(const BlurAxis& axis, int pixel) {
    const int reach = pixel + axis.before - axis.filter + 1;
    return reach <= 0 ? 0 : (reach + axis.stride - 1) / axis.stride;
}

// The weight of a pixel of the image in an output pixel, including its reflections or replications.
template <typename acc_t>
__device__ acc_t use_weight(const BlurAxis& axis, const acc_t* filter, int pixel, int out) {
    const int start = out * axis.stride - axis.before, last = axis.image - 1;
    const auto tap_at = [&](int position) {
        const int t = position - start;
        return t >= 0 && t < axis.filter ? filter[t] : acc_t(0);
    };
    acc_t weight = tap_at(pixel);
    if (axis.padding == Padding::kReflect) {
        if (pixel > 0) weight += tap_at(-pixel);
        if (pixel < last) weight += tap_at(2 * last - pixel);
    }
    if (axis.padding == Padding::kReplicate) {
        for (int t = 0; t < axis.filter; ++t) {
            if ((pixel == 0 && start + t < 0) || (pixel == last && start + t > last)) weight += filter[t];
        }
    }
    return weight;
}

// Tap `slot` of a target, 0 <= slot < axis.taps().
template <typename acc_t>
__device__ Tap<acc_t> blur_tap(const BlurAxis& axis, const acc_t* filter, int target, int slot) {
    if (!axis.transposed) {
        const int source =
            static_cast<int>(padded_index(target * axis.stride - axis.before + slot, axis.image, axis.padding));
        return {source, source < 0 ? acc_t(0) : filter[slot]};
    }
    const int out = first_use(axis, target) + slot;
    const acc_t weight = out < axis.blurred ? use_weight(axis, filter, target, out) : acc_t(0);
    return {weight == acc_t(0) ? -1 : out, weight};
}

// The sources of targets [first, last] are in [begin, end).
struct SourceRange {
    int begin, end;
};

__device__ inline SourceRange source_range(const BlurAxis& axis, int first, int last) {
    if (axis.transposed) {
        return {first_use(axis, first), min(axis.blurred, (last + axis.before) / axis.stride + 2)};
    }
    const int begin = min(first * axis.stride - axis.before, axis.image - axis.filter);
    return {max(0, begin), min(axis.image, max(last * axis.stride - axis.before, 0) + axis.filter)};
}

}  // namespace cxrfast
