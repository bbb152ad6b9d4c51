// Names from the stable ABI that all kernels use, and helpers for memory layouts.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>

namespace cxrfast {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// x itself if it is contiguous. This avoids a call of the dispatcher, about 1 µs.
inline Tensor dense(const Tensor& x) {
    return x.is_contiguous() ? x : torch::stable::contiguous(x);
}

// True for a 4-d tensor that is dense in channels_last but not in the default order. The Python fakes use the same
// rule.
inline bool is_channels_last(const Tensor& x) {
    if (x.dim() != 4 || x.is_contiguous()) return false;
    int64_t dense = 1;
    for (const int64_t d : {1, 3, 2, 0}) {
        if (x.size(d) == 1) continue;  // any stride is possible, for example after permute and unsqueeze
        if (x.stride(d) != dense) return false;
        dense *= x.size(d);
    }
    return true;
}

// An uninitialised [n, c, h, w] tensor with the dtype and device of x, in channels_last if requested.
inline Tensor empty_image(const Tensor& x, int64_t n, int64_t c, int64_t h, int64_t w, bool channels_last) {
    return torch::stable::empty(
        {n, c, h, w}, x.scalar_type(), x.layout(), x.device(), std::nullopt,
        channels_last ? torch::headeronly::MemoryFormat::ChannelsLast : torch::headeronly::MemoryFormat::Contiguous);
}

}  // namespace cxrfast
