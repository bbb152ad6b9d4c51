// The check of all kernels. Python validates what users pass; these checks repeat what memory safety depends on.
#pragma once

#include <torch/headeronly/util/Exception.h>

#define CXRFAST_CHECK(condition, ...) STD_TORCH_CHECK(condition, __VA_ARGS__)
