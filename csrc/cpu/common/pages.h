// Large results on large pages.
#pragma once

#include <cstdint>

#include "common/tensor.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace cxrfast {

// Returns `fresh`, whose memory nobody has touched yet. malloc gives memory of this size back to the system at every
// free, so each call would take one page fault per 4 KiB: several times what writing the result costs. A hint: nothing
// else changes where the system has no pages of 2 MiB to give.
inline Tensor on_large_pages(const Tensor& fresh) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    constexpr uintptr_t kPage = uintptr_t{1} << 21, kAlwaysFresh = uintptr_t{32} << 20;
    const uintptr_t begin = reinterpret_cast<uintptr_t>(fresh.mutable_data_ptr());
    const uintptr_t size = static_cast<uintptr_t>(fresh.numel()) * fresh.element_size();
    if (size >= kAlwaysFresh) {
        const uintptr_t first = (begin + kPage - 1) / kPage * kPage, last = (begin + size) / kPage * kPage;
        madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
    }
#endif
    return fresh;
}

}  // namespace cxrfast
