// One dispatch for all kernels: float32, float64, and float16/bfloat16 that accumulate in float32.
#pragma once

#include <torch/headeronly/core/Dispatch.h>
#include <torch/headeronly/core/ScalarType.h>

#include <type_traits>

// The body is a lambda, [&] { ... }, in which `scalar_t` is the element type; it may contain commas.
#define CXRFAST_DISPATCH_FLOATING(TYPE, NAME, ...)                                                  \
    THO_DISPATCH_SWITCH(TYPE, NAME,                                                                 \
                        THO_DISPATCH_CASE(torch::headeronly::ScalarType::Float, __VA_ARGS__)        \
                            THO_DISPATCH_CASE(torch::headeronly::ScalarType::Double, __VA_ARGS__)   \
                                THO_DISPATCH_CASE(torch::headeronly::ScalarType::Half, __VA_ARGS__) \
                                    THO_DISPATCH_CASE(torch::headeronly::ScalarType::BFloat16, __VA_ARGS__))

namespace cxrfast {

// What a sum of scalar_t is accumulated in.
template <typename scalar_t>
using accumulate_t = std::conditional_t<std::is_same_v<scalar_t, double>, double, float>;

inline torch::headeronly::ScalarType accumulate_type(torch::headeronly::ScalarType type) {
    using torch::headeronly::ScalarType;
    return type == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

}  // namespace cxrfast
