// Names of the stable ABI that every kernel uses, and the one question about layout.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>

namespace cxrfast {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// x itself where it is contiguous: asking the dispatcher costs a tiny call a microsecond.
inline Tensor dense(const Tensor& x) {
    return x.is_contiguous() ? x : torch::stable::contiguous(x);
}

// True for a 4-d tensor that is dense in channels_last and not also in the default order. The Python fakes ask the
// same.
inline bool is_channels_last(const Tensor& x) {
    if (x.dim() != 4 || x.is_contiguous()) return false;
    int64_t dense = 1;
    for (const int64_t d : {1, 3, 2, 0}) {
        if (x.size(d) == 1) continue;  // its stride means nothing: an [H, W, C] image permuted and unsqueezed has any
        if (x.stride(d) != dense) return false;
        dense *= x.size(d);
    }
    return true;
}

// An uninitialised [n, c, h, w] tensor with x's dtype and device, channels_last if asked for.
inline Tensor empty_image(const Tensor& x, int64_t n, int64_t c, int64_t h, int64_t w, bool channels_last) {
    return torch::stable::empty(
        {n, c, h, w}, x.scalar_type(), x.layout(), x.device(), std::nullopt,
        channels_last ? torch::headeronly::MemoryFormat::ChannelsLast : torch::headeronly::MemoryFormat::Contiguous);
}

}  // namespace cxrfast
