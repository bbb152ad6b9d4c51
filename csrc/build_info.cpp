// cxrfast._build_info: how this installation was compiled. This is the only part that uses CPython. It is therefore
// built separately, with pybind11 and without the target macro of the stable ABI.
#include <pybind11/pybind11.h>

#ifndef CXRFAST_TORCH_VERSION
#error \
    "setup.py passes CXRFAST_TORCH_VERSION, CXRFAST_TARGET, CXRFAST_FLAGS, CXRFAST_CUDA_ARCHS and CXRFAST_CUDA_MISSING"
#endif

PYBIND11_MODULE(_build_info, m) {
    m.doc() = "How this installation of cxrfast was compiled.";
    m.attr("torch_version") = CXRFAST_TORCH_VERSION;  // the torch whose headers were used
    m.attr("torch_target") = CXRFAST_TARGET;          // the oldest torch that can load the libraries
    m.attr("compiler_flags") = CXRFAST_FLAGS;
    m.attr("cuda_archs") = CXRFAST_CUDA_ARCHS;      // empty: no CUDA library was built
    m.attr("cuda_missing") = CXRFAST_CUDA_MISSING;  // the reason
#if defined(__clang__)
    m.attr("compiler") = "clang " __clang_version__;
#elif defined(__GNUC__)
    m.attr("compiler") = "g++ " __VERSION__;
#else
    m.attr("compiler") = "unknown";
#endif
}
