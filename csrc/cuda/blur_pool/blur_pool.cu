// blur_pool2d on the device: check, plan, launch. Kernels: blur_pool.cuh.
#include "cuda/blur_pool/blur_pool.cuh"

#include <torch/csrc/stable/library.h>

#include "checks/blur_pool.h"
#include "common/dispatch.h"
#include "cuda/blur_pool/axes.h"

namespace cxrfast {
namespace {

constexpr int kMaxDenseStride = 4;  // above, blur_planes would read mostly unused elements

bool is_aligned(const void* pointer) {
    return reinterpret_cast<uintptr_t>(pointer) % 16 == 0;
}

// Tiles of about 2048 pixels whose blurred columns fit into 40 kB of shared memory.
template <typename acc_t>
void plan_planes(BlurPlan<acc_t>& plan, int vector) {
    constexpr int kPixels = 2048, kBytes = 40 << 10;
    const int width = plan.x.targets();
    plan.tiles_in_row = (width + kBlurThreads - 1) / kBlurThreads;
    plan.tile_columns = (width + plan.tiles_in_row - 1) / plan.tiles_in_row;
    const int reach = plan.x.transposed ? (plan.tile_columns + plan.x.filter) / plan.x.stride + 4
                                        : (plan.tile_columns - 1) * plan.x.stride + 2 * plan.x.filter;
    const int sources = std::min(reach, plan.x.sources()) + vector - 1;  // starts at a multiple of a vector
    plan.pitch = (sources / vector + 2) * vector;
    plan.tile_rows = std::clamp<int>(
        std::min<int>(kPixels / plan.tile_columns, kBytes / (plan.pitch * static_cast<int>(sizeof(acc_t)))), 1,
        kMaxTileRows);
}

template <typename scalar_t>
void blur(const Tensor& source, Tensor& target, const BlurAxis& y, const BlurAxis& x, bool channels_last) {
    using acc_t = accumulate_t<scalar_t>;
    constexpr int kVector = 16 / sizeof(scalar_t);
    const scalar_t* from = source.const_data_ptr<scalar_t>();
    scalar_t* to = target.mutable_data_ptr<scalar_t>();
    BlurPlan<acc_t> plan{};
    plan.y = y;
    plan.x = x;
    plan.filter = blur_filter<acc_t>(y.filter);
    plan.inner = channels_last ? static_cast<int>(source.size(1)) : 1;
    plan.rows = source.size(0) * source.size(1) / plan.inner * y.targets();
    const bool aligned = is_aligned(from) && is_aligned(to);
    if (!channels_last && x.stride <= kMaxDenseStride) {
        plan.packed = aligned && x.sources() % kVector == 0;
        plan_planes(plan, kVector);
        const size_t shared = sizeof(acc_t) * plan.tile_rows * plan.pitch;
        launch(&blur_planes<scalar_t>, Grid{blocks_for(plan.tiles(), 1), kBlurThreads, shared}, source, plan, from, to);
        return;
    }
    const bool vectors = aligned && plan.inner % kVector == 0;
    plan.tile_rows = 8;
    plan.tiles_in_row = (x.targets() * (plan.inner / (vectors ? kVector : 1)) + kBlurThreads - 1) / kBlurThreads;
    launch(vectors ? &blur_pixels<scalar_t, kVector> : &blur_pixels<scalar_t, 1>,
           Grid{blocks_for(plan.tiles(), 1), kBlurThreads}, source, plan, from, to);
}

Tensor apply(const Tensor& x, const BlurAxis& axis_y, const BlurAxis& axis_x) {
    const DeviceGuard guard(x);
    const bool channels_last = is_channels_last(x);
    const Tensor source = channels_last ? x : torch::stable::contiguous(x);
    Tensor target = empty_image(x, x.size(0), x.size(1), axis_y.targets(), axis_x.targets(), channels_last);
    if (target.numel() == 0) return target;
    CXRFAST_CHECK(x.size(3) * x.size(1) < 1 << 30 && target.size(3) * x.size(1) < 1 << 30, "a row is too long");
    CXRFAST_DISPATCH_FLOATING(x.scalar_type(), "blur_pool2d",
                              [&] { blur<scalar_t>(source, target, axis_y, axis_x, channels_last); });
    return target;
}

Tensor blur_pool2d(const Tensor& x,  // [B, C, H, W]
                   int64_t filter_size,
                   int64_t stride,
                   int64_t padding_mode) {
    CXRFAST_CHECK(x.dim() == 4, "x must be [B, C, H, W]");
    check_device_blur_size(x.size(2), x.size(3));
    check_blur_options(x.size(2), x.size(3), filter_size, stride, padding_mode);
    return apply(x, blur_axis(x.size(2), filter_size, stride, padding_mode, false),
                 blur_axis(x.size(3), filter_size, stride, padding_mode, false));
}

Tensor blur_pool2d_backward(const Tensor& grad,  // [B, C, H', W']
                            int64_t height,
                            int64_t width,
                            int64_t filter_size,
                            int64_t stride,
                            int64_t padding_mode) {
    CXRFAST_CHECK(grad.dim() == 4, "grad must be [B, C, H', W']");
    check_device_blur_size(height, width);
    check_blur_options(height, width, filter_size, stride, padding_mode);
    const BlurAxis y = blur_axis(height, filter_size, stride, padding_mode, true);
    const BlurAxis x = blur_axis(width, filter_size, stride, padding_mode, true);
    CXRFAST_CHECK(grad.size(2) == y.blurred && grad.size(3) == x.blurred,
                  "grad does not have blur_pool2d's output size");
    return apply(grad, y, x);
}

}  // namespace
}  // namespace cxrfast

CXRFAST_CUDA_IMPL(m) {
    m.impl("blur_pool2d", TORCH_BOX(&cxrfast::blur_pool2d));
    m.impl("_blur_pool2d_backward", TORCH_BOX(&cxrfast::blur_pool2d_backward));
}
