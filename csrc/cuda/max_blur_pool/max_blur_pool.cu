// max_blur_pool2d on the device: check, plan, launch. Kernels: max_blur_pool.cuh.
#include "cuda/max_blur_pool/max_blur_pool.cuh"

#include <torch/csrc/stable/library.h>

#include <optional>

#include "checks/max_blur_pool.h"
#include "cuda/blur_pool/axes.h"

namespace cxrfast {
namespace {

constexpr int64_t kTileBytes = 44 << 10;  // shared memory for the map of a tile
constexpr int kLargestTiledWindow = 24;   // of the backward, whose tiles overlap by a window

struct MaxBlurOptions {
    int64_t kernel_size, filter_size, stride, padding_mode, padding;
};

struct MaxBlurAxes {
    BlurAxis y, x;
};

MaxBlurAxes checked_axes(const Tensor& x, const MaxBlurOptions& options, bool transposed) {
    const MapSize map = checked_map_size(x, options.kernel_size, options.padding, options.filter_size, options.stride,
                                         options.padding_mode);
    check_device_blur_size(map.height, map.width);
    return {blur_axis(map.height, options.filter_size, options.stride, options.padding_mode, transposed),
            blur_axis(map.width, options.filter_size, options.stride, options.padding_mode, transposed)};
}

// The extent of the map that `targets` consecutive targets need.
int map_extent(const BlurAxis& axis, int targets, int window) {
    if (axis.transposed) return std::min(axis.image, targets + window - 1);
    return static_cast<int>(
        std::min<int64_t>(axis.image, static_cast<int64_t>(targets - 1) * axis.stride + 2 * axis.filter));
}

template <typename acc_t>
void set_tile(MaxBlurPlan<acc_t>& plan, int height, int width, int down, int across, int inner) {
    plan.tile_height = down;
    plan.tile_width = across;
    plan.tile_inner = inner;
    plan.tiles_down = (height + down - 1) / down;
    plan.tiles_across = (width + across - 1) / across;
    plan.tiles_inner = (plan.inner + inner - 1) / inner;
    plan.map_height = map_extent(plan.y, down, plan.window);
    plan.map_width = map_extent(plan.x, across, plan.window);
}

// Tiles of about 512 targets, or fewer if their map does not fit. A tile of one target always fits.
template <typename acc_t>
void plan_tiles(MaxBlurPlan<acc_t>& plan, int height, int width, int64_t bytes_of_element) {
    int inner = std::min(plan.inner, 32), across = std::min(width, plan.inner == 1 ? 32 : 8);
    int down = std::clamp(512 / (across * inner), 1, std::min(height, 16));
    for (;;) {
        set_tile(plan, height, width, down, across, inner);
        if (plan.map_size() * bytes_of_element <= kTileBytes) return;
        int& longest = inner > 1 ? inner : across >= down ? across : down;
        longest = (longest + 1) / 2;
    }
}

template <typename acc_t>
MaxBlurPlan<acc_t> plan_of(const Tensor& x,
                           const MaxBlurAxes& axes,
                           const MaxBlurOptions& options,
                           bool channels_last) {
    MaxBlurPlan<acc_t> plan{};
    plan.y = axes.y;
    plan.x = axes.x;
    plan.filter = blur_filter<acc_t>(options.filter_size);
    plan.planes = channels_last ? x.size(0) : x.size(0) * x.size(1);
    plan.height = static_cast<int>(x.size(2));
    plan.width = static_cast<int>(x.size(3));
    plan.inner = channels_last ? static_cast<int>(x.size(1)) : 1;
    plan.window = static_cast<int>(options.kernel_size);
    plan.padding = static_cast<int>(options.padding);
    return plan;
}

Tensor max_blur_pool2d(const Tensor& x,  // [B, C, H, W]
                       int64_t kernel_size,
                       int64_t filter_size,
                       int64_t stride,
                       int64_t padding_mode,
                       int64_t padding) {
    const MaxBlurOptions options{kernel_size, filter_size, stride, padding_mode, padding};
    const MaxBlurAxes axes = checked_axes(x, options, false);
    const DeviceGuard guard(x);
    const bool channels_last = is_channels_last(x);
    const Tensor source = channels_last ? x : torch::stable::contiguous(x);
    Tensor out = empty_image(x, x.size(0), x.size(1), axes.y.targets(), axes.x.targets(), channels_last);
    if (out.numel() == 0) return out;
    CXRFAST_DISPATCH_FLOATING(x.scalar_type(), "max_blur_pool2d", [&] {
        using acc_t = accumulate_t<scalar_t>;
        MaxBlurPlan<acc_t> plan = plan_of<acc_t>(x, axes, options, channels_last);
        plan_tiles(plan, axes.y.targets(), axes.x.targets(), sizeof(acc_t));
        launch(&max_blur<scalar_t>, Grid{blocks_for(plan.tiles(), 1), kBlurThreads, plan.map_size() * sizeof(acc_t)}, x,
               plan, source.const_data_ptr<scalar_t>(), out.mutable_data_ptr<scalar_t>());
    });
    return out;
}

template <typename scalar_t>
void launch_backward(const Tensor& grad, const Tensor& x, Tensor& grad_x, MaxBlurPlan<accumulate_t<scalar_t>> plan) {
    using acc_t = accumulate_t<scalar_t>;
    constexpr int64_t kElement = sizeof(acc_t) + sizeof(int);
    WindowGradients<scalar_t> windows{nullptr, nullptr};
    Grid grid{1, kBlurThreads};
    std::optional<Tensor> workspace;
    if (plan.window <= kLargestTiledWindow) {
        plan_tiles(plan, plan.height, plan.width, kElement);
        grid.blocks = blocks_for(plan.tiles(), 1);
        grid.shared_bytes = static_cast<size_t>(plan.map_size() * kElement);
    } else {  // tiles would overlap too much: a block processes whole planes, with a map in global memory
        constexpr int64_t kWorkspace = int64_t{256} << 20;
        CXRFAST_CHECK(int64_t{plan.y.image} * plan.x.image < 1 << 30, "the image is too large for this kernel_size");
        set_tile(plan, plan.height, plan.width, plan.height, plan.width, 1);
        const int64_t room = std::max<int64_t>(1, kWorkspace / (plan.map_size() * kElement));
        const int64_t blocks = std::min(plan.tiles(), room), elements = blocks * plan.map_size();
        grid.blocks = static_cast<unsigned int>(blocks);
        workspace = torch::stable::empty({elements * kElement}, ScalarType::Byte, x.layout(), x.device());
        windows.gradient = reinterpret_cast<acc_t*>(workspace->mutable_data_ptr<uint8_t>());
        windows.element = reinterpret_cast<int*>(windows.gradient + elements);
    }
    launch(&max_blur_backward<scalar_t>, grid, x, plan, grad.const_data_ptr<scalar_t>(), x.const_data_ptr<scalar_t>(),
           grad_x.mutable_data_ptr<scalar_t>(), windows);
}

Tensor max_blur_pool2d_backward(const Tensor& grad,  // [B, C, H', W']
                                const Tensor& x,     // [B, C, H, W]
                                int64_t kernel_size,
                                int64_t filter_size,
                                int64_t stride,
                                int64_t padding_mode,
                                int64_t padding) {
    const MaxBlurOptions options{kernel_size, filter_size, stride, padding_mode, padding};
    const MaxBlurAxes axes = checked_axes(x, options, true);
    check_max_blur_grad(grad, x, axes.y.blurred, axes.x.blurred);
    using torch::headeronly::MemoryFormat;
    const DeviceGuard guard(x);
    const bool channels_last = is_channels_last(x);
    const MemoryFormat format = channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous;
    const Tensor grads = torch::stable::contiguous(grad, format), source = torch::stable::contiguous(x, format);
    Tensor grad_x = empty_image(x, x.size(0), x.size(1), x.size(2), x.size(3), channels_last);
    if (grad_x.numel() == 0) return grad_x;
    CXRFAST_DISPATCH_FLOATING(x.scalar_type(), "_max_blur_pool2d_backward", [&] {
        launch_backward<scalar_t>(grads, source, grad_x,
                                  plan_of<accumulate_t<scalar_t>>(x, axes, options, channels_last));
    });
    return grad_x;
}

}  // namespace
}  // namespace cxrfast

CXRFAST_CUDA_IMPL(m) {
    m.impl("max_blur_pool2d", TORCH_BOX(&cxrfast::max_blur_pool2d));
    m.impl("_max_blur_pool2d_backward", TORCH_BOX(&cxrfast::max_blur_pool2d_backward));
}
