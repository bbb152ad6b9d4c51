// One check for all kernels. Python has validated what a user passes; these repeat the invariants memory safety needs.
#pragma once

#include <torch/headeronly/util/Exception.h>

#define CXRFAST_CHECK(condition, ...) STD_TORCH_CHECK(condition, __VA_ARGS__)
