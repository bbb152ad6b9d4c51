// The machine behind cuda_runtime.h: runs the blocks of a launch one after the other, the threads of a block as fibres.
#include "cuda_runtime.h"

#include <cxxabi.h>
#include <dlfcn.h>
#include <link.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "fibre.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace emulation {
namespace {

constexpr unsigned int kMostThreads = 1024, kWarps = kMostThreads / warpSize;
constexpr size_t kSharedAlways = 48 << 10, kSharedOptIn = 99 << 10, kGuard = 4096;
constexpr unsigned char kGuardByte = 0xA5;

struct Thread {
    uint3 index;
    Fibre* fibre = nullptr;  // where it runs, once started
    // What it waits for.
    Warp kind{};
    const char *name = "", *file = "";
    int line = 0, source = 0;
    unsigned int mask = 0;
    uint64_t value = 0, result = 0;
};

struct Lanes {  // of one warp, one bit each
    unsigned int ready = 0, exited = 0, at_barrier = 0, at_warp = 0;
};

struct Launch {
    const void* kernel;
    void (*call)(void*);
    void* context;
    size_t shared_bytes;
};

// The block that runs.
struct Block {
    unsigned int threads, live, arrived, ready_warps;
    int count, result;  // of threads at the barrier whose predicate holds; of the last barrier
    Lanes lanes[kWarps];
    Thread all[kMostThreads];
    Thread* current;
};

std::mutex one_launch;
Launch launch;
Block block;
Fibre host;  // whoever launched
std::vector<Fibre*> all_fibres, free_fibres;
std::string error;  // of the last launch
std::map<const void*, int> opted_in;
uint64_t seed = [] {
    const char* text = std::getenv("CXRFAST_EMULATION_SEED");
    return text == nullptr ? 2 : std::strtoull(text, nullptr, 10);
}();
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

[[noreturn]] void give_up(const std::string& message) {  // the fibres of the block are dropped where they stand
    record(message);
    leave_to(*block.current->fibre, host);
}

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

void set_ready(unsigned int warp, unsigned int lanes) {
    block.lanes[warp].ready |= lanes;
    block.ready_warps |= 1u << warp;
}

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

// Leaves the current thread waiting; returns when it has been made ready and picked.
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
    block.result = block.count;
    block.arrived = block.count = 0;
}

void thread_exits(const Thread& thread) {
    const unsigned int id = static_cast<unsigned int>(&thread - block.all), lane = id % warpSize;
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

struct Span {
    unsigned char* data = nullptr;
    size_t bytes = 0;
};

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
    if (statics.bytes != 0) std::memset(statics.data, garbage, statics.bytes);
    std::memset(dynamic_bytes, garbage, launch.shared_bytes);
    std::memset(dynamic_bytes + launch.shared_bytes, kGuardByte, kGuard);
}

void check_guard() {
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
    block.arrived = block.ready_warps = 0;
    block.count = 0;
    for (Lanes& lanes : block.lanes) lanes = {};
    for (unsigned int i = 0; i < block.threads; ++i) {
        block.all[i].index = {i % size.x, i / size.x % size.y, i / (size.x * size.y)};
        block.all[i].fibre = nullptr;
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

void run_blocks() {
    const uint64_t n = uint64_t{gridDim.x} * gridDim.y * gridDim.z;
    random_state = 0x9E3779B97F4A7C15ull * (seed + 1);
    const uint64_t factor = seed <= 1 ? 1 : coprime(n), offset = seed <= 1 ? 0 : random_number() % n;
    const Span statics = static_shared();
    for (uint64_t i = 0; i < n && error.empty(); ++i) {
        const uint64_t id = seed == 1 ? n - 1 - i : (i * factor + offset) % n;
        blockIdx = {static_cast<unsigned int>(id % gridDim.x), static_cast<unsigned int>(id / gridDim.x % gridDim.y),
                    static_cast<unsigned int>(id / gridDim.x / gridDim.y)};
        spoil_shared(statics);
        run_block();
    }
    if (!error.empty()) free_fibres = all_fibres;  // some were dropped in the middle of the kernel
}

}  // namespace

// ---- what kernels call ----

unsigned int lane() {
    return static_cast<unsigned int>(block.current - block.all) % warpSize;
}

void* dynamic_shared() {
    return dynamic_bytes;
}

void fail(const char* message, const char* file, int line) {
    give_up(std::string(message) + " (" + file + ":" + std::to_string(line) + ")");
}

void atomic_access(const volatile void*, size_t) {}

int barrier(Barrier kind, const char* name, bool predicate, const char* file, int line) {
    Thread& self = *block.current;
    const unsigned int id = static_cast<unsigned int>(&self - block.all);
    self.name = name, self.file = file, self.line = line;
    if (block.arrived != 0) {  // any thread that waits will do
        unsigned int warp = 0;
        while (block.lanes[warp].at_barrier == 0) ++warp;
        const Thread& other = block.all[warp * warpSize + __builtin_ctz(block.lanes[warp].at_barrier)];
        if (other.line != line) give_up("arrives at another barrier: " + waiting(self) + ", " + waiting(other));
    }
    block.lanes[id / warpSize].at_barrier |= 1u << id % warpSize;
    block.count += predicate;
    const int threads = static_cast<int>(block.live);
    if (++block.arrived == block.live) release_barrier();
    wait();
    switch (kind) {
        case Barrier::plain:
            return 0;
        case Barrier::count:
            return block.result;
        case Barrier::all:
            return block.result == threads;
        case Barrier::any:
            return block.result != 0;
    }
    return 0;
}

namespace {

uint64_t combine(Warp kind, uint64_t a, uint64_t b) {
    const auto ua = static_cast<uint32_t>(a), ub = static_cast<uint32_t>(b);
    const auto sa = static_cast<int32_t>(ua), sb = static_cast<int32_t>(ub);
    switch (kind) {
        case Warp::add:
            return ua + ub;
        case Warp::min:
            return ua < ub ? ua : ub;
        case Warp::max:
            return ua > ub ? ua : ub;
        case Warp::min_signed:
            return static_cast<uint32_t>(sa < sb ? sa : sb);
        case Warp::max_signed:
            return static_cast<uint32_t>(sa > sb ? sa : sb);
        case Warp::bit_and:
            return ua & ub;
        case Warp::bit_or:
            return ua | ub;
        case Warp::bit_xor:
            return ua ^ ub;
        default:
            return 0;
    }
}

// All lanes of the mask have arrived: their results.
void complete_warp(Thread* threads, unsigned int mask, Warp kind) {
    uint64_t common = 0;
    bool first = true;
    for (unsigned int i = 0; i < warpSize; ++i) {
        if ((mask >> i & 1u) == 0) continue;
        const uint64_t value = threads[i].value;
        common = kind == Warp::ballot ? common | value << i : first ? value : combine(kind, common, value);
        first = false;
    }
    for (unsigned int i = 0; i < warpSize; ++i) {
        if ((mask >> i & 1u) == 0) continue;
        Thread& t = threads[i];
        if (kind == Warp::shuffle) {
            t.result = threads[t.source == kOwnValue ? i : t.source].value;
        } else if (kind == Warp::match) {
            t.result = 0;
            for (unsigned int j = 0; j < warpSize; ++j) {
                if (mask >> j & 1u && threads[j].value == t.value) t.result |= 1u << j;
            }
        } else {
            t.result = common;
        }
    }
}

void check_mask(const Thread& t, unsigned int lane, unsigned int exited) {
    const auto refuse = [&](const std::string& why) {
        give_up(std::string(t.name) + ": " + why + " (" + t.file + ":" + std::to_string(t.line) + ")");
    };
    if ((t.mask >> lane & 1u) == 0) refuse("the mask lacks the calling lane");
    if (t.mask & exited) {
        refuse("the mask names lane " + std::to_string(__builtin_ctz(t.mask & exited)) +
               ", which has exited or does not exist");
    }
    if (t.kind == Warp::shuffle && t.source != kOwnValue && (t.mask >> t.source & 1u) == 0) {
        refuse("reads lane " + std::to_string(t.source) + ", which the mask lacks");
    }
}

}  // namespace

uint64_t warp(Warp kind, const char* name, unsigned int mask, uint64_t value, int source, const char* file, int line) {
    Thread& self = *block.current;
    const unsigned int id = static_cast<unsigned int>(&self - block.all), lane = id % warpSize, warp = id / warpSize;
    Thread* threads = &block.all[id - lane];
    Lanes& lanes = block.lanes[warp];
    self.kind = kind, self.name = name, self.file = file, self.line = line;
    self.mask = mask, self.value = value, self.source = source;
    check_mask(self, lane, lanes.exited);
    lanes.at_warp |= 1u << lane;
    if ((lanes.at_warp & mask) == mask) {
        for (unsigned int i = 0; i < warpSize; ++i) {
            const Thread& t = threads[i];
            if (mask >> i & 1u && (t.kind != kind || t.mask != mask || t.line != line)) {
                give_up("meets another warp function: " + waiting(self) + ", " + waiting(t));
            }
        }
        complete_warp(threads, mask, kind);
        lanes.at_warp &= ~mask;
        set_ready(warp, mask);
    }
    wait();
    return self.result;
}

cudaError_t run(const cudaLaunchConfig_t& config, const void* kernel, void (*thread)(void*), void* context) {
    const std::lock_guard<std::mutex> lock(one_launch);
    const dim3 &grid = config.gridDim, &size = config.blockDim;
    const uint64_t threads = uint64_t{size.x} * size.y * size.z;
    if (grid.x < 1 || grid.y < 1 || grid.z < 1 || grid.x > 0x7fffffff || grid.y > 65535 || grid.z > 65535 ||
        threads < 1 || threads > kMostThreads || size.z > 64) {
        return cudaErrorInvalidConfiguration;
    }
    const auto allowed = opted_in.find(kernel);
    if (config.dynamicSmemBytes > (allowed == opted_in.end() ? kSharedAlways : static_cast<size_t>(allowed->second))) {
        return cudaErrorInvalidValue;
    }
    launch = {kernel, thread, context, config.dynamicSmemBytes};
    gridDim = grid, blockDim = size;
    error.clear();
    run_blocks();
    return error.empty() ? cudaSuccess : cudaErrorLaunchFailure;
}

}  // namespace emulation

// The order of blocks and threads: 0 ascending, 1 descending, any other number shuffled by it.
extern "C" __attribute__((visibility("default"))) void cxrfast_emulation_seed(uint64_t value) {
    emulation::seed = value;
}

const char* cudaGetErrorString(cudaError_t code) {
    switch (code) {
        case cudaSuccess:
            return "no error";
        case cudaErrorInvalidValue:
            return "invalid argument";
        case cudaErrorInvalidConfiguration:
            return "invalid configuration argument";
        case cudaErrorLaunchFailure:
            return emulation::error.c_str();
    }
    return "unknown error";
}

cudaError_t cudaGetDevice(int* device) {
    *device = 0;
    return cudaSuccess;
}

// A small device, so that a kernel which asks for too much fails here.
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
    switch (attribute) {
        case cudaDevAttrMaxThreadsPerBlock:
            *value = emulation::kMostThreads;
            break;
        case cudaDevAttrMaxSharedMemoryPerBlock:
            *value = emulation::kSharedAlways;
            break;
        case cudaDevAttrMaxSharedMemoryPerBlockOptin:
            *value = emulation::kSharedOptIn;
            break;
        case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
            *value = 100 << 10;
            break;
        case cudaDevAttrMaxThreadsPerMultiProcessor:
            *value = 1536;
            break;
        case cudaDevAttrMultiProcessorCount:
            *value = 3;
            break;
        case cudaDevAttrL2CacheSize:
            *value = 1 << 20;
            break;
        case cudaDevAttrComputeCapabilityMajor:
            *value = 8;
            break;
        case cudaDevAttrComputeCapabilityMinor:
            *value = 6;
            break;
    }
    return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
    if (value < 0 || static_cast<size_t>(value) > emulation::kSharedOptIn) return cudaErrorInvalidValue;
    emulation::opted_in[kernel] = value;
    return cudaSuccess;
}
