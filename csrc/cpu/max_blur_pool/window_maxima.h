// Loops over the elements of a sliding window, each a contiguous row: their maxima, the positions of the maxima, and
// the gradient that an element receives from the windows that contain it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "common/macros.h"
#include "math/max_blur_pool.h"

namespace cxrfast {
namespace {

template <typename acc_t>
using index_t =
    std::conditional_t<std::is_same_v<acc_t, double>, int64_t, int32_t>;  // of equal width, to share vectors

// A row of the loops: its start, and the number of its element in the window.
template <typename T, typename acc_t>
struct Element {
    const T* x;
    index_t<acc_t> number;
};

// A row of windows: the gradient of each window's maximum, and the number of the maximum's element.
template <typename acc_t>
struct Windows {
    const acc_t* grad;
    const index_t<acc_t>* index;
    index_t<acc_t> number;  // of the element whose gradient is computed
};

// Processes N more elements of take_maxima; the first ones if not `continues`.
template <int N, bool kIndex, typename T, typename acc_t>
CXRFAST_ALWAYS_INLINE void take_maxima_of(acc_t* __restrict__ maxima,
                                          index_t<acc_t>* __restrict__ index,
                                          const Element<T, acc_t>* elements,
                                          bool continues,
                                          int64_t n) {
    const T* x[N];
    index_t<acc_t> number[N];
    for (int e = 0; e < N; ++e) x[e] = elements[e].x;
    for (int e = 0; e < N; ++e) number[e] = elements[e].number;
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) {
        acc_t maximum = continues ? maxima[i] : static_cast<acc_t>(x[0][i]);
        index_t<acc_t> which = kIndex && continues ? index[i] : number[0];
#pragma GCC unroll 4
        for (int e = 0; e < N; ++e) {
            const acc_t value = static_cast<acc_t>(x[e][i]);
            const bool replaces = replaces_maximum(value, maximum);
            maximum = replaces ? value : maximum;
            which = replaces ? number[e] : which;
        }
        maxima[i] = maximum;
        if (kIndex) index[i] = which;
    }
}

// maxima[i] = max over e of elements[e].x[i]; with kIndex, index[i] is the number of that element. Elements are in
// raster order.
template <bool kIndex, typename T, typename acc_t>
CXRFAST_CPU_CLONES void take_maxima(acc_t* __restrict__ maxima,
                                    index_t<acc_t>* __restrict__ index,
                                    const Element<T, acc_t>* elements,  // [count], count > 0
                                    int64_t count,
                                    int64_t n) {
    int64_t e = 0;
    for (; count - e >= 4; e += 4) take_maxima_of<4, kIndex>(maxima, index, elements + e, e > 0, n);
    for (; count - e >= 2; e += 2) take_maxima_of<2, kIndex>(maxima, index, elements + e, e > 0, n);
    for (; count - e >= 1; e += 1) take_maxima_of<1, kIndex>(maxima, index, elements + e, e > 0, n);
}

// Processes N more windows of gather; the first ones if not `continues`.
template <int N, typename acc_t>
CXRFAST_ALWAYS_INLINE void gather_from(acc_t* __restrict__ sums,
                                       const Windows<acc_t>* windows,
                                       bool continues,
                                       int64_t n) {
    const acc_t* grad[N];
    const index_t<acc_t>* index[N];
    index_t<acc_t> number[N];
    for (int w = 0; w < N; ++w) grad[w] = windows[w].grad;
    for (int w = 0; w < N; ++w) index[w] = windows[w].index;
    for (int w = 0; w < N; ++w) number[w] = windows[w].number;
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) {
        acc_t sum = continues ? sums[i] : acc_t(0);
#pragma GCC unroll 4
        for (int w = 0; w < N; ++w) {
            const acc_t value = grad[w][i];
            sum += index[w][i] == number[w] ? value : acc_t(0);
        }
        sums[i] = sum;
    }
}

// sums[i] = sum over w of the gradients of those windows[w] whose maximum is the element i.
template <typename acc_t>
CXRFAST_CPU_CLONES void gather(acc_t* __restrict__ sums,
                               const Windows<acc_t>* windows,  // [count]
                               int64_t count,
                               int64_t n) {
    if (count == 0) std::fill_n(sums, n, acc_t(0));
    int64_t w = 0;
    for (; count - w >= 4; w += 4) gather_from<4>(sums, windows + w, w > 0, n);
    for (; count - w >= 2; w += 2) gather_from<2>(sums, windows + w, w > 0, n);
    for (; count - w >= 1; w += 1) gather_from<1>(sums, windows + w, w > 0, n);
}

}  // namespace
}  // namespace cxrfast
