// Runs the blocks of a launch one after the other, and the threads of a block as fibres.
#include <cxxabi.h>
#include <dlfcn.h>
#include <link.h>

#include <cstdlib>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "machine.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace emulation {

Launch launch;
Block block;
std::string error;
uint64_t seed = [] {
    const char* text = std::getenv("CXRFAST_EMULATION_SEED");
    return text == nullptr ? 2 : std::strtoull(text, nullptr, 10);
}();

namespace {

constexpr size_t kGuard = 4096;
constexpr unsigned char kGuardByte = 0xA5;

Fibre host;  // whoever launched
std::vector<Fibre*> all_fibres, free_fibres;
uint64_t random_state;
alignas(128) unsigned char dynamic_bytes[kSharedOptIn + kGuard];

uint64_t random_number() {  // xorshift64*
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return random_state * 0x2545F4914F6CDD1Dull >> 32;
}

// One of the bits that are set: with seed 0 the lowest, with 1 the highest, else any.
unsigned int pick(unsigned int bits) {
    if (seed == 0) return __builtin_ctz(bits);
    if (seed == 1) return 31 - __builtin_clz(bits);
    const unsigned int turn = random_number() & 31;
    const unsigned int turned = turn == 0 ? bits : bits >> turn | bits << (32 - turn);
    return (__builtin_ctz(turned) + turn) & 31;
}

// ---- errors ----

std::string triple(unsigned int x, unsigned int y, unsigned int z) {
    return "(" + std::to_string(x) + ", " + std::to_string(y) + ", " + std::to_string(z) + ")";
}

std::string kernel_name() {
    Dl_info info{};
    if (dladdr(launch.kernel, &info) == 0 || info.dli_sname == nullptr || info.dli_saddr != launch.kernel) {
        return "a kernel";
    }
    int status = 0;
    const std::unique_ptr<char, decltype(&std::free)> name(
        abi::__cxa_demangle(info.dli_sname, nullptr, nullptr, &status), &std::free);
    return status == 0 ? name.get() : info.dli_sname;
}

}  // namespace

std::string waiting(const Thread& t) {
    return "thread " + triple(t.index.x, t.index.y, t.index.z) + " waits at " + t.name + " (" + t.file + ":" +
           std::to_string(t.line) + ")";
}

void record(const std::string& message) {
    if (!error.empty()) return;
    error = kernel_name() + ", block " + triple(blockIdx.x, blockIdx.y, blockIdx.z);
    if (block.current != nullptr) error += ", thread " + triple(threadIdx.x, threadIdx.y, threadIdx.z);
    error += ": " + message;
}

void give_up(const std::string& message) {  // the fibres of the block are dropped where they stand
    record(message);
    leave_to(*block.current->fibre, host);
}

namespace {

[[noreturn]] void give_up_waiting() {
    for (unsigned int i = 0; i < block.threads; ++i) {
        const Lanes& lanes = block.lanes[i / warpSize];
        if ((lanes.at_warp >> i % warpSize & 1u) == 0) continue;
        for (unsigned int j = i / warpSize * warpSize; j < (i / warpSize + 1) * warpSize; ++j) {
            if ((lanes.at_barrier & block.all[i].mask) >> j % warpSize & 1u) {
                give_up(waiting(block.all[i]) + ", " + waiting(block.all[j]));
            }
        }
        give_up(waiting(block.all[i]) + " for lanes that never arrive");
    }
    give_up("threads wait for ever");
}

// ---- scheduling ----

}  // namespace

void set_ready(unsigned int warp, unsigned int lanes) {
    block.lanes[warp].ready |= lanes;
    block.ready_warps |= 1u << warp;
}

namespace {

Thread& next_thread() {
    if (block.ready_warps == 0) give_up_waiting();
    const unsigned int warp = pick(block.ready_warps), lane = pick(block.lanes[warp].ready);
    if ((block.lanes[warp].ready &= ~(1u << lane)) == 0) block.ready_warps &= ~(1u << warp);
    Thread& next = block.all[warp * warpSize + lane];
    block.current = &next;
    threadIdx = next.index;
    return next;
}

void run_threads();

Fibre& fresh_fibre() {
    if (free_fibres.empty()) {
        all_fibres.push_back(make_fibre());
        free_fibres.push_back(all_fibres.back());
    }
    Fibre* fibre = free_fibres.back();
    free_fibres.pop_back();
    start(*fibre, &run_threads);
    return *fibre;
}

}  // namespace

void wait() {
    Thread& self = *block.current;
    Thread& next = next_thread();
    if (&next == &self) return;
    if (next.fibre == nullptr) next.fibre = &fresh_fibre();
    switch_to(*self.fibre, *next.fibre);
}

void release_barrier() {
    for (unsigned int warp = 0; warp * warpSize < block.threads; ++warp) {
        if (block.lanes[warp].at_barrier == 0) continue;
        set_ready(warp, block.lanes[warp].at_barrier);
        block.lanes[warp].at_barrier = 0;
    }
    ++block.epoch;
    block.result = block.count;
    block.arrived = block.count = 0;
}

namespace {

void thread_exits(const Thread& thread) {
    const unsigned int id = thread.id, lane = id % warpSize;
    Lanes& lanes = block.lanes[id / warpSize];
    lanes.exited |= 1u << lane;
    for (unsigned int other = 0; other < warpSize; ++other) {
        const Thread& t = block.all[id - lane + other];
        if (lanes.at_warp >> other & 1u && t.mask >> lane & 1u) give_up("exits although " + waiting(t) + " for it");
    }
    if (--block.live != 0 && block.arrived == block.live) release_barrier();
}

// What a fibre does: runs a thread to its end, then on the same stack another one that has not started.
void run_threads() {
    for (;;) {
        Fibre* here = block.current->fibre;
        launch.call(launch.context);
        thread_exits(*block.current);
        if (block.live == 0) {
            free_fibres.push_back(here);
            leave_to(*here, host);
        }
        Thread& next = next_thread();
        if (next.fibre == nullptr) {
            next.fibre = here;
        } else {
            free_fibres.push_back(here);
            leave_to(*here, *next.fibre);
        }
    }
}

// ---- shared memory ----

#if defined(__SANITIZE_ADDRESS__)
Span static_shared() {
    return {};
}
#else
thread_local unsigned char any_shared_byte;

int find_shared(dl_phdr_info* info, size_t, void* found) {
    for (int i = 0; i < info->dlpi_phnum; ++i) {
        const auto& segment = info->dlpi_phdr[i];
        auto* data = static_cast<unsigned char*>(info->dlpi_tls_data);
        if (segment.p_type != PT_TLS || data == nullptr) continue;
        if (&any_shared_byte < data || &any_shared_byte >= data + segment.p_memsz) continue;
        *static_cast<Span*>(found) = {data, segment.p_memsz};
        return 1;
    }
    return 0;
}

// Every static __shared__ variable of this library: its thread-local segment.
Span static_shared() {
    static Span span;
    static std::thread::id owner;
    if (owner != std::this_thread::get_id()) {
        any_shared_byte = 1;  // allocates the segment
        dl_iterate_phdr(&find_shared, &span);
        owner = std::this_thread::get_id();
    }
    return span;
}
#endif

// Shared memory starts as garbage: 0xFF is NaN and -1, 0xFB a large number.
void spoil_shared(const Span& statics) {
    const int garbage = seed % 2 == 0 ? 0xFF : 0xFB;
    if (statics.bytes != 0) std::memset(const_cast<unsigned char*>(statics.data), garbage, statics.bytes);
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(dynamic_bytes, sizeof(dynamic_bytes));
#endif
    std::memset(dynamic_bytes, garbage, launch.shared_bytes);
    std::memset(dynamic_bytes + launch.shared_bytes, kGuardByte, kGuard);
#if defined(__SANITIZE_ADDRESS__)
    __asan_poison_memory_region(dynamic_bytes + launch.shared_bytes, kGuard);
#endif
}

void check_guard() {
#if defined(__SANITIZE_ADDRESS__)
    return;  // a write there has been reported
#endif
    for (size_t i = 0; i < kGuard; ++i) {
        if (dynamic_bytes[launch.shared_bytes + i] == kGuardByte) continue;
        block.current = nullptr;
        record("writes dynamic shared memory at byte " + std::to_string(launch.shared_bytes + i) + ", beyond the " +
               std::to_string(launch.shared_bytes) + " bytes asked for");
        return;
    }
}

// ---- blocks ----

void start_block(const dim3& size) {
    block.threads = block.live = size.x * size.y * size.z;
    block.arrived = block.ready_warps = block.epoch = block.atomics = 0;
    block.count = 0;
    for (Lanes& lanes : block.lanes) lanes = {};
    for (unsigned int i = 0; i < block.threads; ++i) {
        block.all[i].index = {i % size.x, i / size.x % size.y, i / (size.x * size.y)};
        block.all[i].id = i;
        block.all[i].fibre = nullptr;
        block.all[i].last_atomic = 0;
    }
    for (unsigned int warp = 0; warp * warpSize < block.threads; ++warp) {
        const unsigned int size = block.threads - warp * warpSize;
        const unsigned int lanes = size >= warpSize ? ~0u : (1u << size) - 1;
        set_ready(warp, lanes);
        block.lanes[warp].exited = ~lanes;
    }
}

void run_block() {
    start_block(blockDim);
    Thread& first = next_thread();
    first.fibre = &fresh_fibre();
    switch_to(host, *first.fibre);
    check_guard();
}

uint64_t coprime(uint64_t n) {
    const auto divides = [](uint64_t a, uint64_t b) {
        while (b != 0) a = std::exchange(b, a % b);
        return a != 1;
    };
    uint64_t factor = random_number() % n;
    while (divides(factor, n)) ++factor;
    return factor;
}

}  // namespace

void* dynamic_shared() {
    return dynamic_bytes;
}

void run_blocks() {
    const uint64_t n = uint64_t{gridDim.x} * gridDim.y * gridDim.z;
    random_state = 0x9E3779B97F4A7C15ull * (seed + 1);
    const uint64_t factor = seed <= 1 ? 1 : coprime(n), offset = seed <= 1 ? 0 : random_number() % n;
    const Span statics = static_shared();
    error.clear();
    host = {};  // another thread than the last time, maybe
    races_start(static_cast<unsigned int>(n), statics, {dynamic_bytes, sizeof(dynamic_bytes)});
    for (uint64_t i = 0; i < n && error.empty(); ++i) {
        const uint64_t id = seed == 1 ? n - 1 - i : (i * factor + offset) % n;
        blockIdx = {static_cast<unsigned int>(id % gridDim.x), static_cast<unsigned int>(id / gridDim.x % gridDim.y),
                    static_cast<unsigned int>(id / gridDim.x / gridDim.y)};
        block.order = static_cast<unsigned int>(i);
        spoil_shared(statics);
        run_block();
        races_block_ends();
    }
    races_stop();
    if (!error.empty()) free_fibres = all_fibres;  // some were dropped in the middle of the kernel
}

}  // namespace emulation
