// Operations between two filters: sums over splits, activations, and the gradients of both.
#pragma once

#include <cmath>

#include "cuda/pac_crf/window.cuh"
#include "math/pac_crf.h"

namespace cxrfast {

constexpr int kStepThreads = 256;
constexpr int kStepRows = kStepThreads / kWarp;  // a block has 32 pixels, with 8 threads each for the labels

template <typename T>
struct Splits {     // of a filter's result
    const T* data;  // [count, K, N]
    int count;
};

#if defined(__CUDACC__) || defined(CXRFAST_CUDA_EMULATION)

template <typename T>
__device__ inline T sum_of(const Splits<T>& splits, int64_t labels, int64_t size, int64_t i) {
    T sum = 0;
    for (int split = 0; split < splits.count; ++split) sum += __ldg(splits.data + split * labels * size + i);
    return sum;
}

// The maximum or sum over the 8 threads of a pixel; all threads of the block must call it.
template <typename T, typename F>
__device__ inline T over_labels(T value, const F& combine) {
    __shared__ T values[kStepRows][kWarp];
    const int row = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
    __syncthreads();
    values[row][lane] = value;
    __syncthreads();
    T result = values[0][lane];
    for (int other = 1; other < kStepRows; ++other) result = combine(result, values[other][lane]);
    return result;
}

// out = bias + the sum of the splits
template <typename T>
__global__ void __launch_bounds__(kStepThreads) sum_kernel(Splits<T> splits,
                                                           int channels,
                                                           int size,
                                                           const T* __restrict__ bias,  // [K] or nullptr
                                                           T* __restrict__ out) {       // [K, N]
    const int64_t total = static_cast<int64_t>(channels) * size;
    for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < total; i += int64_t{gridDim.x} * blockDim.x) {
        out[i] = sum_of(splits, channels, size, i) + (bias == nullptr ? T(0) : bias[i / size]);
    }
}

// out = activation(unary_weight * unary - the sum of the splits), without the activation after the last step.
// unary_weight is nullptr for 1.
template <typename T>
__global__ void __launch_bounds__(kStepThreads) mean_field_step_kernel(Splits<T> message,
                                                                       int labels,
                                                                       int size,
                                                                       const T* __restrict__ unary,  // [K, N]
                                                                       const T* __restrict__ unary_weight,
                                                                       Activation activation,
                                                                       bool last,
                                                                       T* out) {  // [K, N]
    const int n = blockIdx.x * kWarp + threadIdx.x % kWarp, first = threadIdx.x / kWarp;
    const bool exists = n < size, softmax = !last && activation == Activation::kSoftmax;
    const T scale = unary_weight == nullptr ? T(1) : *unary_weight;
    T top = -INFINITY;
    for (int k = first; k < labels && exists; k += kStepRows) {
        const int64_t i = static_cast<int64_t>(k) * size + n;
        const T logit = scale * unary[i] - sum_of(message, labels, size, i);
        out[i] = last || softmax ? logit : sigmoid(logit);
        top = std::fmax(top, logit);
    }
    if (!softmax) return;
    top = over_labels(top, [](T a, T b) { return std::fmax(a, b); });
    T sum = 0;
    for (int k = first; k < labels && exists; k += kStepRows) {
        T& value = out[static_cast<int64_t>(k) * size + n];
        sum += value = softmax_numerator(value, top);
    }
    sum = over_labels(sum, [](T a, T b) { return a + b; });
    for (int k = first; k < labels && exists; k += kStepRows) out[static_cast<int64_t>(k) * size + n] /= sum;
}

// The gradient of the logits of a step, given the gradient with respect to its message as splits. The message is
// subtracted, so that the gradient of the activations is the negative sum of the splits.
template <typename T>
__global__ void __launch_bounds__(kStepThreads)
    mean_field_step_gradient_kernel(Splits<T> grad_activations,
                                    int labels,
                                    int size,
                                    const T* __restrict__ activations,  // [K, N]
                                    Activation activation,
                                    T* grad_logits) {  // [K, N]
    const int n = blockIdx.x * kWarp + threadIdx.x % kWarp, first = threadIdx.x / kWarp;
    const bool exists = n < size, softmax = activation == Activation::kSoftmax;
    T mean = 0;
    for (int k = first; k < labels && exists; k += kStepRows) {
        const int64_t i = static_cast<int64_t>(k) * size + n;
        const T grad = -sum_of(grad_activations, labels, size, i), q = activations[i];
        grad_logits[i] = softmax ? grad : sigmoid_backward(q, grad);
        mean += grad * q;
    }
    if (!softmax) return;
    mean = over_labels(mean, [](T a, T b) { return a + b; });
    for (int k = first; k < labels && exists; k += kStepRows) {
        const int64_t i = static_cast<int64_t>(k) * size + n;
        grad_logits[i] = softmax_backward(activations[i], grad_logits[i], mean);
    }
}

// Every step adds unary_weight * unary, and the first one starts from unary.
template <typename T>
__global__ void __launch_bounds__(kStepThreads)
    unary_gradient_kernel(int steps,
                          int64_t count,                       // K * N
                          const T* __restrict__ grad_logits,   // [steps, K, N], after each step
                          const T* __restrict__ unary_weight,  // []
                          T* grad_unary,                       // [K, N], holds the gradient of the first activation
                          T* __restrict__ total) {             // [K, N]: the sum over steps
    for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += int64_t{gridDim.x} * blockDim.x) {
        T sum = 0;
        for (int step = 0; step < steps; ++step) sum += grad_logits[step * count + i];
        total[i] = sum;
        grad_unary[i] += *unary_weight * sum;
    }
}

#endif

}  // namespace cxrfast
