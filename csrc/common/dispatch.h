// The type dispatch of all kernels: float32, float64, and float16 and bfloat16, which accumulate in float32.
#pragma once

#include <torch/headeronly/core/Dispatch.h>
#include <torch/headeronly/core/ScalarType.h>

#include <type_traits>

// The body is a lambda, [&] { ... }, in which `scalar_t` is the element type. It may contain commas.
#define CXRFAST_DISPATCH_FLOATING(TYPE, NAME, ...)                                                  \
    THO_DISPATCH_SWITCH(TYPE, NAME,                                                                 \
                        THO_DISPATCH_CASE(torch::headeronly::ScalarType::Float, __VA_ARGS__)        \
                            THO_DISPATCH_CASE(torch::headeronly::ScalarType::Double, __VA_ARGS__)   \
                                THO_DISPATCH_CASE(torch::headeronly::ScalarType::Half, __VA_ARGS__) \
                                    THO_DISPATCH_CASE(torch::headeronly::ScalarType::BFloat16, __VA_ARGS__))

namespace cxrfast {

// The accumulation type of sums of scalar_t.
template <typename scalar_t>
using accumulate_t = std::conditional_t<std::is_same_v<scalar_t, double>, double, float>;

inline torch::headeronly::ScalarType accumulate_type(torch::headeronly::ScalarType type) {
    using torch::headeronly::ScalarType;
    return type == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

}  // namespace cxrfast
