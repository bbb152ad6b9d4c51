// Host functions for window.cuh: conversion of batches to planes and back, and how much of a batch is processed at a
// time.
#pragma once

#include <algorithm>

#include "common/dispatch.h"
#include "common/tensor.h"
#include "cuda/pac_crf/window.cuh"

namespace cxrfast {
namespace {

// Under emulation, all limits are small, so that small tests reach the same code as large inputs.
#if defined(CXRFAST_CUDA_EMULATION)
constexpr int64_t kAffinityBytes = 256 << 10, kPartialBytes = 64 << 10, kStagedBytes = 256;
constexpr int64_t kMostImages = 2, kMostPixels = 1 << 20, kEnoughBlocks = 8;
#else
// Limit of stored affinities (and, in a backward, their gradients). If those of all images exceed it, fewer images are
// processed at a time. If those of one image exceed it, they are computed again in every step, for some rows of the
// window at a time.
constexpr int64_t kAffinityBytes = 64 << 20;
constexpr int64_t kMostImages = 64;          // at a time; with more, neighbours would be too far apart for the cache
constexpr int64_t kMostPixels = 1 << 20;     // at a time, unless one image has more
constexpr int64_t kPartialBytes = 24 << 20;  // for the partial sums of one launch
constexpr int64_t kStagedBytes = 20 << 10;   // staged weights: eight blocks fit on an H100 multiprocessor
constexpr int64_t kEnoughBlocks = 640;       // to fill a device; constant, for equal sums on all devices
#endif
constexpr int64_t kLargestPlane = 1ll << 30;  // pixel indices have 32 bits

inline int64_t divide_up(int64_t n, int64_t divisor) {
    return (n + divisor - 1) / divisor;
}

// Some images of a batch.
struct Images {
    int64_t first, count;
};

// Images [B, C, H, W] as planes [C, H, W, B] in the accumulation type; x itself if it already has this layout.
inline Tensor load_planes(const Tensor& x, Images images, ScalarType type) {
    Tensor whole = x;
    const Tensor source = torch::stable::narrow(whole, 0, images.first, images.count);
    if (images.count == 1 && x.scalar_type() == type) return torch::stable::contiguous(source);
    const int64_t channels = x.size(1), height = x.size(2), width = x.size(3);
    Tensor planes = torch::stable::new_empty(x, {channels * height * width, images.count}, type);
    Tensor view = torch::stable::view(torch::stable::transpose(planes, 0, 1), {images.count, channels, height, width});
    torch::stable::copy_(view, source);
    return planes;
}

// The inverse; writes to result [B, C, H, W].
inline void store_planes(Tensor& result, const Tensor& planes, Images images) {
    const int64_t channels = result.size(1), height = result.size(2), width = result.size(3);
    Tensor target = torch::stable::narrow(result, 0, images.first, images.count);
    const Tensor flat = torch::stable::view(planes, {channels * height * width, images.count});
    torch::stable::copy_(
        target, torch::stable::view(torch::stable::transpose(flat, 0, 1), {images.count, channels, height, width}));
}

inline Tensor widened(const Tensor& x) {
    return torch::stable::contiguous(torch::stable::to(x, accumulate_type(x.scalar_type())));
}

// The window over `images` images of x.
inline Window window_of(const Tensor& x, const Tensor& weight, int64_t dilation, int64_t images) {
    const int64_t height = x.size(2), width = x.size(3), half = weight.size(2) / 2;
    const int64_t step_y = std::min(dilation, height), step_x = std::min(dilation, width);
    const int64_t above = std::min(half, (height - 1) / step_y), before = std::min(half, (width - 1) / step_x);
    CXRFAST_CHECK(height * width * images <= kLargestPlane, "the images are too large");
    return {static_cast<int>(height),         static_cast<int>(width * images), static_cast<int>(2 * above + 1),
            static_cast<int>(2 * before + 1), static_cast<int>(step_y),         static_cast<int>(step_x * images)};
}

// A window of only the pixel itself, over planes of `size` elements; it mixes channels.
inline Window point_window(int64_t height, int64_t width) {
    return {static_cast<int>(height), static_cast<int>(width), 1, 1, 1, 1};
}

// In a backward, an affinity that is stored for two taps has a gradient for each.
template <typename T>
int64_t affinity_bytes(const Window& window, int64_t planes, bool with_gradients) {
    return planes * window.size() * static_cast<int64_t>(sizeof(T)) * (with_gradients ? 3 : 1);
}

// The number of images that are processed at a time.
template <typename T>
int64_t images_together(const Tensor& x, const Tensor& weight, int64_t dilation, bool with_gradients) {
    const Window window = window_of(x, weight, dilation, 1);
    const int64_t bytes = affinity_bytes<T>(window, window.centre() + 1, with_gradients);
    const int64_t affordable = std::min(kAffinityBytes / bytes, kMostPixels / window.size());
    return std::clamp<int64_t>(affordable, 1, std::min(kMostImages, x.size(0)));
}

// Calls f(images) for all parts of a batch.
template <typename F>
void for_each_images(int64_t batch, int64_t together, const F& f) {
    for (int64_t first = 0; first < batch; first += together) f(Images{first, std::min(together, batch - first)});
}

}  // namespace
}  // namespace cxrfast
