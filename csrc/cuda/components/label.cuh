// Connected components on the GPU: finds for every foreground pixel the first pixel, in raster order, of its component.
//
// Union-find over pixels, first within tiles in shared memory, then over the edges of tiles in global memory. Maps of a
// single tile need only the first kernel. A parent is never larger than its pixel, so that a root is the first pixel of
// its set for any order of unions. A warp works on a word: 32 pixels of a row, with their foreground as a bit mask. The
// runs of a word are joined from the start.
#pragma once

#include <cstdint>

#include "common/dispatch.h"
#include "cuda/common/cuda.cuh"
#include "math/components.h"

namespace cxrfast {

constexpr int kTile = 64;  // side of a tile in pixels
constexpr int kWordsAcross = kTile / kWarp;
constexpr int kComponentThreads = 256;
constexpr unsigned int kAllLanes = 0xffffffffu;

struct Maps {
    int64_t count;
    int height, width, connectivity;

    CXRFAST_HOST_DEVICE int64_t size() const { return int64_t(height) * width; }
    CXRFAST_HOST_DEVICE int tiles_across() const { return (width + kTile - 1) / kTile; }
    CXRFAST_HOST_DEVICE int tiles_down() const { return (height + kTile - 1) / kTile; }
    CXRFAST_HOST_DEVICE int words_across() const { return (width + kWarp - 1) / kWarp; }
};

// The source of the foreground.
struct MaskSource {
    const uint8_t* mask;  // [maps, H, W], nonzero is foreground
    __device__ bool foreground(const Maps& maps, int64_t map, int pixel) const {
        return mask[map * maps.size() + pixel] != 0;
    }
};

template <typename scalar_t>
struct ScoreSource {
    const scalar_t* scores;      // [maps, H, W]
    const scalar_t* thresholds;  // [K]
    int64_t channels;
    __device__ bool foreground(const Maps& maps, int64_t map, int pixel) const {
        using acc_t = accumulate_t<scalar_t>;
        return is_foreground(static_cast<acc_t>(scores[map * maps.size() + pixel]),
                             static_cast<acc_t>(thresholds[map % channels]));
    }
};

__device__ inline int lane_index() {
    return threadIdx.x % kWarp;
}

__device__ inline bool has_bit(unsigned int word, int lane) {
    return (word >> lane & 1u) != 0;
}

// The first lane of the run of ones that contains `lane`.
__device__ inline int run_begin(unsigned int word, int lane) {
    return max(0, lane + 1 - __clz(static_cast<int>(~word << (kWarp - 1 - lane))));
}

// The lane after the last of that run.
__device__ inline int run_end(unsigned int word, int lane) {
    const unsigned int after = ~(word >> lane);
    return after == 0 ? kWarp : lane + __ffs(static_cast<int>(after)) - 1;
}

// Parents change while they are read. An outdated parent is still an ancestor.
__device__ inline int current_root(const volatile int* parent, int i) {
    for (int next = parent[i]; next != i; next = parent[i]) i = next;
    return i;
}

__device__ inline void unite_atomically(int* parent, int a, int b) {
    while (true) {
        a = current_root(parent, a);
        b = current_root(parent, b);
        if (a == b) return;
        const int from = max(a, b), to = min(a, b);
        const int before = atomicMin(&parent[from], to);
        if (before == from) return;
        // Another thread has changed the parent of `from` meanwhile: its set and `to` must still be united.
        a = before;
        b = to;
    }
}

// A tile in shared memory. Pixels are numbered row by row, with kTile per row.
struct Tile {
    int* parent;          // [rows * kTile], of foreground pixels
    int* area;            // [rows * kTile], of roots
    unsigned int* words;  // [rows * kWordsAcross]
};

inline int64_t tile_bytes(int64_t rows) {
    return rows * (2 * kTile + kWordsAcross) * sizeof(int);
}

__device__ inline Tile shared_tile(int rows) {
    int* start = dynamic_shared<int>();
    return {start, start + rows * kTile, reinterpret_cast<unsigned int*>(start + 2 * rows * kTile)};
}

// Unites a foreground pixel with its preceding neighbours, except where another pixel of the word, or a union among the
// neighbours, already does this.
__device__ inline void join_in_tile(const Tile& tile, int word, int lane, int connectivity) {
    static_assert(kWordsAcross == 2, "a word has one neighbour beside it");
    const bool is_left = word % kWordsAcross == 0;
    const unsigned int *words = tile.words, own = words[word];
    const int i = word * kWarp + lane;
    if (!has_bit(own, lane)) return;
    const unsigned int left = own << 1 | (is_left ? 0 : words[word - 1] >> (kWarp - 1));
    if (lane == 0 && has_bit(left, 0)) unite_atomically(tile.parent, i, i - 1);
    if (word < kWordsAcross) return;
    const unsigned int above = words[word - kWordsAcross];
    const unsigned int above_left = above << 1 | (is_left ? 0 : words[word - kWordsAcross - 1] >> (kWarp - 1));
    if (has_bit(above & ~(left & above_left), lane)) unite_atomically(tile.parent, i, i - kTile);
    if (connectivity == 4) return;
    const unsigned int right = own >> 1 | (is_left ? words[word + 1] << (kWarp - 1) : 0);
    const unsigned int above_right = above >> 1 | (is_left ? words[word - kWordsAcross + 1] << (kWarp - 1) : 0);
    if (has_bit(above_left & ~above & ~left, lane)) unite_atomically(tile.parent, i, i - kTile - 1);
    if (has_bit(above_right & ~above & ~right, lane)) unite_atomically(tile.parent, i, i - kTile + 1);
}

// One block per tile.
template <typename Source>
__global__ void __launch_bounds__(kComponentThreads) label_tiles(
    Maps maps,
    Source source,
    int* __restrict__ parent,  // [maps, H, W] the tile's root of each pixel, -1 for background
    int* __restrict__ area) {  // [maps, H, W] of each root within its tile; 0 elsewhere if a map has several tiles
    const int tiles = maps.tiles_across() * maps.tiles_down(), number = blockIdx.x % tiles;
    const int64_t map = blockIdx.x / tiles;
    const int top = number / maps.tiles_across() * kTile, left = number % maps.tiles_across() * kTile;
    const int rows = min(kTile, maps.height - top), words = rows * kWordsAcross;
    const int lane = lane_index(), warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
    const Tile tile = shared_tile(rows);
    const auto x_of = [&](int word) { return left + word % kWordsAcross * kWarp + lane; };
    const auto pixel_of = [&](int i) { return (top + i / kTile) * maps.width + left + i % kTile; };

    for (int word = warp; word < words; word += warps) {
        const int i = word * kWarp + lane;
        const bool inside = x_of(word) < maps.width;
        const unsigned int mask = __ballot_sync(kAllLanes, inside && source.foreground(maps, map, pixel_of(i)));
        if (lane == 0) tile.words[word] = mask;
        tile.parent[i] = word * kWarp + (has_bit(mask, lane) ? run_begin(mask, lane) : lane);
        tile.area[i] = 0;
    }
    __syncthreads();
    for (int word = warp; word < words; word += warps) join_in_tile(tile, word, lane, maps.connectivity);
    __syncthreads();
    parent += map * maps.size();
    area += map * maps.size();
    for (int word = warp; word < words; word += warps) {
        const int i = word * kWarp + lane;
        const unsigned int mask = tile.words[word];
        const int root = has_bit(mask, lane) ? current_root(tile.parent, i) : -1;
        if (root >= 0 && run_begin(mask, lane) == lane) atomicAdd(&tile.area[root], run_end(mask, lane) - lane);
        if (x_of(word) < maps.width) parent[pixel_of(i)] = root < 0 ? -1 : pixel_of(root);
    }
    __syncthreads();
    for (int word = warp; word < words; word += warps) {
        const int i = word * kWarp + lane;
        if (x_of(word) < maps.width && (tiles > 1 || tile.area[i] > 0)) area[pixel_of(i)] = tile.area[i];
    }
}

// Unites the pixel (y, x) with (y + dy, x + dx), unless one of them is background or outside.
__device__ inline void join_across(int* parent, const Maps& maps, int y, int x, int dy, int dx) {
    const int v = y + dy, u = x + dx;
    if (v < 0 || v >= maps.height || u < 0 || u >= maps.width) return;
    const int a = y * maps.width + x, b = v * maps.width + u;
    if (parent[b] >= 0) unite_atomically(parent, a, b);
}

CXRFAST_HOST_DEVICE int64_t pixels_on_edges(const Maps& maps) {
    return int64_t(maps.tiles_down() - 1) * maps.width + int64_t(maps.tiles_across() - 1) * maps.height;
}

// One thread per pixel of the first rows and columns of tiles, except those of the map itself.
__global__ void __launch_bounds__(kComponentThreads)
    merge_tiles(Maps maps, int* __restrict__ parents) {  // [maps, H, W]
    const int64_t per_map = pixels_on_edges(maps), on_rows = int64_t(maps.tiles_down() - 1) * maps.width;
    const int64_t step = int64_t(gridDim.x) * blockDim.x;
    for (int64_t at = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; at < maps.count * per_map; at += step) {
        int* parent = parents + at / per_map * maps.size();
        const int64_t edge = at % per_map;
        const bool is_row = edge < on_rows;
        const int64_t along = is_row ? edge : edge - on_rows, length = is_row ? maps.width : maps.height;
        const int first = static_cast<int>(along / length + 1) * kTile, other = static_cast<int>(along % length);
        const int y = is_row ? first : other, x = is_row ? other : first;
        if (parent[y * maps.width + x] < 0) continue;
        join_across(parent, maps, y, x, is_row ? -1 : 0, is_row ? 0 : -1);
        if (maps.connectivity == 4) continue;
        join_across(parent, maps, y, x, -1, -1);
        join_across(parent, maps, y, x, is_row ? -1 : 1, is_row ? 1 : -1);
    }
}

// Every pixel gets its final root; every final root gets the areas of the tile roots that were united with it.
__global__ void __launch_bounds__(kComponentThreads) flatten(Maps maps,
                                                             int* __restrict__ parents,  // [maps, H, W]
                                                             int* __restrict__ areas) {  // [maps, H, W]
    const int64_t step = int64_t(gridDim.x) * blockDim.x;
    for (int64_t at = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; at < maps.count * maps.size(); at += step) {
        if (parents[at] < 0) continue;
        const int64_t map = at / maps.size() * maps.size();
        const int pixel = static_cast<int>(at - map), root = current_root(parents + map, pixel);
        if (root == pixel) continue;
        if (root != parents[at]) atomicExch(&parents[at], root);  // atomic, because other threads follow the parents
        if (areas[at] > 0) atomicAdd(&areas[map + root], areas[at]);
    }
}

}  // namespace cxrfast
