// Large pages for large results.
#pragma once

#include <cstdint>

#include "common/tensor.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace cxrfast {

// Returns `fresh`, whose memory must not have been accessed yet. malloc returns blocks of this size to the system at
// every free, so that every call would cause a page fault per 4 KiB, which takes several times as long as writing the
// result. This is only a hint: it has no effect on systems without pages of 2 MiB.
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
