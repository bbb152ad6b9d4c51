// Names of the stable ABI that every kernel uses, and the one question about layout.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>

namespace cxrfast {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// True for a 4-d tensor that is dense in channels_last and not also in the default order. The Python fakes ask the
// same.
inline bool is_channels_last(const Tensor& x) {
    return x.dim() == 4 && !x.is_contiguous() && x.stride(1) == 1 && x.stride(3) == x.size(1) &&
           x.stride(2) == x.size(3) * x.size(1) && x.stride(0) == x.size(2) * x.size(3) * x.size(1);
}

// An uninitialised [n, c, h, w] tensor with x's dtype and device, channels_last if asked for.
inline Tensor empty_image(const Tensor& x, int64_t n, int64_t c, int64_t h, int64_t w, bool channels_last) {
    return torch::stable::empty(
        {n, c, h, w}, x.scalar_type(), x.layout(), x.device(), std::nullopt,
        channels_last ? torch::headeronly::MemoryFormat::ChannelsLast : torch::headeronly::MemoryFormat::Contiguous);
}

}  // namespace cxrfast
