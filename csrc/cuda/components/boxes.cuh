// From labelled pixels to numbered components and their statistics. All results are independent of the order in which
// threads run: they use only maxima and integer sums; scores are summed as integers.
//
// The sum of a component is a 64-bit fixed-point number, whose unit depends on the component's largest magnitude and
// its area: area * magnitude fits in 62 bits, so that the unit is 2^-48 of the largest score for 16384 pixels.
#pragma once

#include "cuda/components/label.cuh"

namespace cxrfast {

constexpr int kChunk = 1024;  // pixels of which one warp counts the roots

using Word64 = unsigned long long;  // the type of atomic operations

// Integers with the same order as the numbers; -0 equals 0. The integer of a number is never 0.
__device__ inline Word64 ordered(double x) {
    const long long bits = __double_as_longlong(x + 0.0);
    return bits < 0 ? ~static_cast<Word64>(bits) : static_cast<Word64>(bits) | Word64(1) << 63;
}

__device__ inline double from_ordered(Word64 key) {
    return __longlong_as_double(static_cast<long long>(key >> 63 != 0 ? key & ~(Word64(1) << 63) : ~key));
}

// Most threads find that they would not change the value, and skip the atomic operation.
template <typename T>
__device__ inline void raise(T* address, T value) {
    if (*static_cast<const volatile T*>(address) < value) atomicMax(address, value);
}

template <typename T>
__device__ inline void lower(T* address, T value) {
    if (*static_cast<const volatile T*>(address) > value) atomicMin(address, value);
}

// The roots and areas of all maps, and the selection of components.
struct Components {
    Maps maps;
    Select select;
    int64_t min_area;
    const int* parent;  // [maps, H, W]
    int* area;          // [maps, H, W] of roots; later their rows in the result, -1 if not selected
    Word64* best;       // [maps] with kLargest: area << 32 | ~root, with kPeak: ordered(the highest score)
    Word64* first;      // [maps] with kPeak: the first pixel with the highest score

    __device__ bool is_large(int64_t map, int root) const { return area[map * maps.size() + root] >= min_area; }

    __device__ bool keeps(int64_t map, int pixel) const {
        if (parent[map * maps.size() + pixel] != pixel || !is_large(map, pixel)) return false;
        if (select == Select::kAll) return true;
        if (select == Select::kLargest)
            return static_cast<unsigned int>(pixel) == ~static_cast<unsigned int>(best[map]);
        return parent[map * maps.size() + first[map]] == pixel;
    }
};

// Calls body(map, y, x, pixel) with the whole warp. Its lanes are adjacent in a row; lanes with x >= width are outside.
template <typename Body>
__device__ inline void for_each_word(const Maps& maps, const Body& body) {
    const int64_t across = maps.words_across(), words = maps.count * maps.height * across;
    const int64_t step = int64_t(gridDim.x) * (blockDim.x / kWarp);
    for (int64_t word = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) / kWarp; word < words; word += step) {
        const int64_t row = word / across, map = row / maps.height;
        const int y = static_cast<int>(row % maps.height);
        const int x = static_cast<int>(word % across) * kWarp + lane_index();
        body(map, y, x, y * maps.width + x);
    }
}

__global__ void __launch_bounds__(kComponentThreads) find_largest(Components all) {
    for_each_word(all.maps, [&](int64_t map, int, int x, int pixel) {
        const int64_t at = map * all.maps.size() + pixel;
        if (x >= all.maps.width || all.parent[at] != pixel || !all.is_large(map, pixel)) return;
        raise(&all.best[map], Word64(all.area[at]) << 32 | ~static_cast<unsigned int>(pixel));
    });
}

template <typename scalar_t>
__device__ inline Word64 candidate(const Components& all, const scalar_t* scores, int64_t map, int x, int pixel) {
    const int64_t start = map * all.maps.size();
    if (x >= all.maps.width || all.parent[start + pixel] < 0) return 0;
    if (!all.is_large(map, all.parent[start + pixel])) return 0;
    return ordered(static_cast<double>(scores[start + pixel]));
}

template <typename scalar_t>
__global__ void __launch_bounds__(kComponentThreads)
    find_highest(Components all, const scalar_t* __restrict__ scores) {  // [maps, H, W]
    for_each_word(all.maps, [&](int64_t map, int, int x, int pixel) {
        Word64 highest = candidate(all, scores, map, x, pixel);
        for (int lanes = kWarp / 2; lanes > 0; lanes /= 2) {
            highest = max(highest, __shfl_xor_sync(kAllLanes, highest, lanes));
        }
        if (lane_index() == 0) raise(&all.best[map], highest);
    });
}

template <typename scalar_t>
__global__ void __launch_bounds__(kComponentThreads)
    find_first_highest(Components all, const scalar_t* __restrict__ scores) {  // [maps, H, W]
    for_each_word(all.maps, [&](int64_t map, int, int x, int pixel) {
        const Word64 score = candidate(all, scores, map, x, pixel);
        if (score != 0 && score == all.best[map]) lower(&all.first[map], static_cast<Word64>(pixel));
    });
}

// Numbering. A chunk is within one map. Whole warps call body(pixel, keeps).

CXRFAST_HOST_DEVICE int64_t chunks_per_map(const Maps& maps) {
    return (maps.size() + kChunk - 1) / kChunk;
}

template <typename Body>
__device__ inline void for_each_in_chunk(const Components& all, int64_t map, int64_t chunk_of_map, const Body& body) {
    const int64_t begin = chunk_of_map * kChunk;
    const int64_t end = begin + kChunk < all.maps.size() ? begin + kChunk : all.maps.size();
    for (int64_t at = begin; at < end; at += kWarp) {
        const int64_t pixel = at + lane_index();
        body(pixel, pixel < end && all.keeps(map, static_cast<int>(pixel)));
    }
}

__device__ inline unsigned int lanes_before() {
    return (1u << lane_index()) - 1;
}

__device__ inline int64_t warp_in_grid() {
    return (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) / kWarp;
}

__device__ inline int64_t warps_in_grid() {
    return int64_t(gridDim.x) * (blockDim.x / kWarp);
}

__global__ void __launch_bounds__(kComponentThreads) count_kept(Components all, int64_t* __restrict__ counts) {
    const int64_t per_map = chunks_per_map(all.maps);
    for (int64_t chunk = warp_in_grid(); chunk < all.maps.count * per_map; chunk += warps_in_grid()) {
        const int64_t map = chunk / per_map;
        int count = 0;
        for_each_in_chunk(all, map, chunk - map * per_map,
                          [&](int64_t, bool keeps) { count += __popc(__ballot_sync(kAllLanes, keeps)); });
        if (lane_index() == 0) counts[chunk] = count;
    }
}

// One block. Replaces each count by the sum of the previous ones.
__global__ void __launch_bounds__(1024) scan_counts(int64_t* __restrict__ counts,  // [n]
                                                    int64_t n,
                                                    int64_t* __restrict__ total) {  // [1]
    __shared__ long long of_warp[kWarp];
    const int lane = lane_index(), warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
    long long before = 0;
    for (int64_t begin = 0; begin < n; begin += blockDim.x) {
        const int64_t i = begin + threadIdx.x;
        const long long own = i < n ? counts[i] : 0;
        long long sum = own;
        for (int lanes = 1; lanes < kWarp; lanes *= 2) {
            const long long other = __shfl_up_sync(kAllLanes, sum, lanes);
            if (lane >= lanes) sum += other;
        }
        if (lane == kWarp - 1) of_warp[warp] = sum;
        __syncthreads();
        long long earlier = 0, all = 0;
        for (int w = 0; w < warps; ++w) {
            if (w == warp) earlier = all;
            all += of_warp[w];
        }
        if (i < n) counts[i] = before + earlier + sum - own;
        before += all;
        __syncthreads();
    }
    if (threadIdx.x == 0) *total = before;
}

// connected_components: numbers start from 1 in every map.
__global__ void __launch_bounds__(kComponentThreads)
    number_roots(Components all, const int64_t* __restrict__ before) {  // [chunks]
    const int64_t per_map = chunks_per_map(all.maps);
    for (int64_t chunk = warp_in_grid(); chunk < all.maps.count * per_map; chunk += warps_in_grid()) {
        const int64_t map = chunk / per_map;
        int next = static_cast<int>(before[chunk] - before[map * per_map]) + 1;
        for_each_in_chunk(all, map, chunk - map * per_map, [&](int64_t pixel, bool keeps) {
            const unsigned int mask = __ballot_sync(kAllLanes, keeps);
            if (keeps) all.area[map * all.maps.size() + pixel] = next + __popc(mask & lanes_before());
            next += __popc(mask);
        });
    }
}

__global__ void __launch_bounds__(kComponentThreads)
    paint(Maps maps,
          int* __restrict__ labels,           // [maps, H, W] roots, which labels replace
          const int* __restrict__ numbers) {  // [maps, H, W] of roots
    const int64_t step = int64_t(gridDim.x) * blockDim.x;
    for (int64_t at = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; at < maps.count * maps.size(); at += step) {
        labels[at] = labels[at] < 0 ? 0 : numbers[at / maps.size() * maps.size() + labels[at]];
    }
}

// component_boxes

// What is collected of a selected component.
struct Gathered {
    Word64 peak;       // ordered(score)
    Word64 magnitude;  // the bits of the largest |score|
    Word64 sum;        // fixed point; for infinite scores, 1 if there is inf, plus 2 if there is -inf
    int x0, y0, x1, y1, area, unused;
};

template <typename scalar_t>
struct Result {
    int64_t rows, channels;
    Gathered* gathered;               // [rows] scratch
    float* boxes;                     // [rows, 4]
    scalar_t *peak, *mean;            // [rows]
    int64_t *area, *image, *channel;  // [rows]
};

template <typename scalar_t>
__global__ void __launch_bounds__(kComponentThreads)
    assign_rows(Components all, Result<scalar_t> result, const int64_t* __restrict__ before) {  // [chunks]
    const int64_t per_map = chunks_per_map(all.maps);
    for (int64_t chunk = warp_in_grid(); chunk < all.maps.count * per_map; chunk += warps_in_grid()) {
        const int64_t map = chunk / per_map;
        int64_t next = before[chunk];
        for_each_in_chunk(all, map, chunk - map * per_map, [&](int64_t pixel, bool keeps) {
            const unsigned int mask = __ballot_sync(kAllLanes, keeps);
            const int64_t row = next + __popc(mask & lanes_before());
            next += __popc(mask);
            const int64_t at = map * all.maps.size() + pixel;
            if (pixel >= all.maps.size() || all.parent[at] != pixel) return;
            const bool has_row = keeps && row < result.rows;
            if (has_row) {
                const int y = static_cast<int>(pixel / all.maps.width), x = static_cast<int>(pixel % all.maps.width);
                result.gathered[row] = {0, 0, 0, x, y, x + 1, y + 1, all.area[at], 0};
                result.image[row] = map / result.channels;
                result.channel[row] = map % result.channels;
            }
            all.area[at] = has_row ? static_cast<int>(row) : -1;
        });
    }
}

// The row of the component in the result; -1 for background and components that are not selected.
__device__ inline int row_of(const Components& all, int64_t map, int x, int pixel) {
    if (x >= all.maps.width) return -1;
    const int root = all.parent[map * all.maps.size() + pixel];
    return root < 0 ? -1 : all.area[map * all.maps.size() + root];
}

template <typename scalar_t>
__global__ void __launch_bounds__(kComponentThreads)
    gather_extents(Components all, Result<scalar_t> result, const scalar_t* __restrict__ scores) {  // [maps, H, W]
    for_each_word(all.maps, [&](int64_t map, int y, int x, int pixel) {
        const int row = row_of(all, map, x, pixel), lane = lane_index();
        const unsigned int mask = __ballot_sync(kAllLanes, row >= 0);
        const double score = row < 0 ? 0.0 : static_cast<double>(scores[map * all.maps.size() + pixel]);
        const int end = row < 0 ? lane : run_end(mask, lane);
        Word64 peak = ordered(score), magnitude = static_cast<Word64>(__double_as_longlong(fabs(score)));
        for (int lanes = 1; lanes < kWarp; lanes *= 2) {
            const Word64 other_peak = __shfl_down_sync(kAllLanes, peak, lanes);
            const Word64 other_magnitude = __shfl_down_sync(kAllLanes, magnitude, lanes);
            if (lane + lanes >= end) continue;
            peak = max(peak, other_peak);
            magnitude = max(magnitude, other_magnitude);
        }
        if (row < 0 || run_begin(mask, lane) != lane) return;
        Gathered& component = result.gathered[row];
        raise(&component.peak, peak);
        raise(&component.magnitude, magnitude);
        lower(&component.x0, x);
        raise(&component.x1, x + end - lane);
        raise(&component.y1, y + 1);
    });
}

// The number of bits by which a score is shifted to the left before it is rounded to an integer.
__device__ inline int fixed_point(const Gathered& component) {
    int exponent = 0;
    frexp(__longlong_as_double(static_cast<long long>(component.magnitude)), &exponent);
    return 62 - exponent - (kWarp - __clz(component.area));
}

__device__ inline bool is_infinite(const Gathered& component) {
    return isinf(__longlong_as_double(static_cast<long long>(component.magnitude)));
}

template <typename scalar_t>
__global__ void __launch_bounds__(kComponentThreads)
    gather_sums(Components all, Result<scalar_t> result, const scalar_t* __restrict__ scores) {  // [maps, H, W]
    for_each_word(all.maps, [&](int64_t map, int, int x, int pixel) {
        const int row = row_of(all, map, x, pixel), lane = lane_index();
        const unsigned int mask = __ballot_sync(kAllLanes, row >= 0);
        const int end = row < 0 ? lane : run_end(mask, lane);
        double sum = 0.0;
        if (row >= 0) {
            Gathered& component = result.gathered[row];
            const double score = static_cast<double>(scores[map * all.maps.size() + pixel]);
            if (!is_infinite(component)) {
                sum = ldexp(score, fixed_point(component));
            } else if (isinf(score)) {
                atomicOr(&component.sum, score > 0 ? Word64(1) : Word64(2));
            }
        }
        // The pixels of a run within a word are summed in a fixed order, always by the same tree.
        for (int lanes = 1; lanes < kWarp; lanes *= 2) {
            const double other = __shfl_down_sync(kAllLanes, sum, lanes);
            if (lane + lanes < end) sum += other;
        }
        if (row < 0 || run_begin(mask, lane) != lane || sum == 0.0) return;
        atomicAdd(&result.gathered[row].sum, static_cast<Word64>(llrint(sum)));
    });
}

__device__ inline double mean_of(const Gathered& component) {
    if (is_infinite(component)) {
        const double infinity = __longlong_as_double(static_cast<long long>(component.magnitude));
        return component.sum == 1 ? infinity : component.sum == 2 ? -infinity : infinity - infinity;
    }
    const double sum = static_cast<double>(static_cast<long long>(component.sum));
    return ldexp(sum, -fixed_point(component)) / component.area;
}

// One thread per row. Rows without a component are 0, with image and channel -1.
template <typename scalar_t>
__global__ void __launch_bounds__(kComponentThreads)
    write_rows(Result<scalar_t> result, const int64_t* __restrict__ count) {  // [1]
    const int64_t step = int64_t(gridDim.x) * blockDim.x;
    for (int64_t row = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; row < result.rows; row += step) {
        const bool exists = row < *count;
        const Gathered component = exists ? result.gathered[row] : Gathered{};
        float* box = result.boxes + 4 * row;
        box[0] = component.x0;
        box[1] = component.y0;
        box[2] = component.x1;
        box[3] = component.y1;
        result.peak[row] = static_cast<scalar_t>(exists ? from_ordered(component.peak) : 0.0);
        result.mean[row] = static_cast<scalar_t>(exists ? mean_of(component) : 0.0);
        result.area[row] = component.area;
        if (exists) continue;
        result.image[row] = -1;
        result.channel[row] = -1;
    }
}

}  // namespace cxrfast
