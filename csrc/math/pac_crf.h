// Pixel-adaptive convolution and its CRF (Su et al. 2019): the window and the formulas, for all back ends.
#pragma once

#include <cmath>
#include <cstdint>

#include "common/macros.h"
#include "math/sigmoid.h"

namespace cxrfast {

enum class Activation : int64_t { kSoftmax = 0, kSigmoid = 1 };

struct Offset {
    int64_t dy, dx;
};

// The offset of tap 0 .. k*k-1 of a window, in raster order, from its centre.
CXRFAST_HOST_DEVICE Offset window_offset(int64_t tap, int64_t kernel, int64_t dilation) {
    return {(tap / kernel - kernel / 2) * dilation, (tap % kernel - kernel / 2) * dilation};
}

// The opposite tap: pixel j is tap t of pixel i exactly if i is tap mirrored_tap(t) of j.
CXRFAST_HOST_DEVICE int64_t mirrored_tap(int64_t tap, int64_t kernel) {
    return kernel * kernel - 1 - tap;
}

// K(f_i, f_j) = exp(-1/2 |f_i - f_j|^2), Su et al. Eq. 3 with the Gaussian kernel.
template <typename F = StandardFunctions, typename T>
CXRFAST_FORMULA T pair_affinity(T squared_distance) {
    return F::exp(T(-0.5) * squared_distance);
}

// The softmax of a label before division by the sum over labels, relative to the largest logit.
template <typename F = StandardFunctions, typename T>
CXRFAST_FORMULA T softmax_numerator(T logit, T greatest) {
    return F::exp(logit - greatest);
}

// Gradients of the logits from the values and gradients of the activations; `mean` is Σ q·grad over the labels of a
// pixel.
template <typename T>
CXRFAST_FORMULA T softmax_backward(T q, T grad, T mean) {
    return q * (grad - mean);
}

template <typename T>
CXRFAST_FORMULA T sigmoid_backward(T q, T grad) {
    return grad * (q * (T(1) - q));
}

}  // namespace cxrfast
