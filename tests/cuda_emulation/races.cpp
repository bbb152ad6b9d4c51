// Finds races: two threads that touch the same memory, one of them writing, with nothing between them that orders them.
//
// The kernels are compiled with -fsanitize=thread, which calls a function before every access to memory. Here are these
// functions; the sanitizer's own runtime is not linked. For every four bytes the last write is kept, and for every two
// the last read: neighbouring halves are often two threads'. Barriers and warp functions order the threads that meet
// there, atomics the blocks and threads that execute them (which ones they synchronise with is not looked at: what is
// found is a race, but some races are not found). A plain read beside atomics of others is let through: union-find
// lives on it, and a device reads words whole.
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <unordered_map>
#include <vector>

#include "machine.h"

namespace emulation {
namespace {

struct Record {
    unsigned int order, epoch, warp_epoch, atomics;
    unsigned short thread;
    unsigned char bytes = 0;  // which of the four, one bit each; 0: nobody has been here
    unsigned char flags = 0;
};
constexpr unsigned char kAtomic = 1, kManyThreads = 2, kManyWarps = 4;

constexpr int kHalves = 2;
struct Cell {
    Record write, read[kHalves];
};

constexpr uintptr_t kPage = 4096;
struct Page {
    uint64_t launch = 0;
    Cell cells[kPage / 4];
};

bool watching = false;
uint64_t launches = 0;
Span shared[2];
std::vector<unsigned int> atomics_of;  // of each block that has run
std::unordered_map<uintptr_t, Page> pages;
Page* last_page = nullptr;
uintptr_t last_page_number = 0;

Page& page_of(uintptr_t address) {
    const uintptr_t number = address / kPage;
    if (last_page == nullptr || number != last_page_number) {
        last_page = &pages[number];
        last_page_number = number;
        if (last_page->launch != launches) {
            *last_page = {};
            last_page->launch = launches;
        }
    }
    return *last_page;
}

bool is_ordered(const Record& earlier, bool is_shared) {
    if (earlier.order != block.order) {  // shared memory is another block's
        return is_shared || (atomics_of[earlier.order] > earlier.atomics && block.atomics > 0);
    }
    if (earlier.epoch < block.epoch) return true;
    const Thread& self = *block.current;
    if (earlier.thread == self.id && (earlier.flags & kManyThreads) == 0) return true;
    const bool same_warp = earlier.thread / warpSize == self.id / warpSize && (earlier.flags & kManyWarps) == 0;
    if (same_warp && earlier.warp_epoch < block.lanes[self.id / warpSize].epoch) return true;
    return block.all[earlier.thread].last_atomic > earlier.atomics && self.last_atomic > earlier.atomics;
}

Record now(unsigned char bytes, unsigned char flags) {
    const unsigned int id = block.current->id;
    return {block.order, block.epoch, block.lanes[id / warpSize].epoch, block.atomics, static_cast<unsigned short>(id),
            bytes,       flags};
}

void remember_read(Record& read, const Record& latest) {
    Record merged = latest;
    if (read.bytes != 0 && read.order == latest.order && read.epoch == latest.epoch) {
        merged.bytes |= read.bytes;
        merged.flags |= read.flags;
        if (read.thread != latest.thread) merged.flags |= kManyThreads;
        if (read.thread / warpSize != latest.thread / warpSize) merged.flags |= kManyWarps;
    }
    read = merged;
}

std::string source_line(const void* code) {  // of an instruction in this library, if binutils are installed
    Dl_info info{};
    if (dladdr(code, &info) == 0) return "";
    char command[4096], line[1024] = "";
    std::snprintf(command, sizeof(command), "addr2line -s -e '%s' %#zx 2>/dev/null", info.dli_fname,
                  static_cast<size_t>(static_cast<const char*>(code) - static_cast<const char*>(info.dli_fbase)) - 1);
    if (FILE* pipe = popen(command, "r")) {
        if (std::fgets(line, sizeof(line), pipe) == nullptr) line[0] = 0;
        pclose(pipe);
    }
    std::string text = line;
    while (!text.empty() && text.back() == '\n') text.pop_back();
    return text.empty() || text[0] == '?' ? "" : " (" + text + ")";
}

[[noreturn]] void report(const char* verb, const Record& earlier, bool was_write, bool is_shared, const void* code) {
    watching = false;
    const bool same_block = earlier.order == block.order;
    std::string who = same_block ? "thread " + std::to_string(earlier.thread) : "a thread of another block";
    if (earlier.flags & kManyThreads) who = "several threads";
    give_up(std::string("race: ") + verb + (is_shared ? " shared" : " global") + " memory that " + who +
            (earlier.flags & kAtomic ? " changed atomically"
             : was_write             ? " wrote"
                                     : " read") +
            " with nothing between them that orders the two" + source_line(code));
}

void access(const volatile void* address, size_t size, bool is_write, bool is_atomic, const void* code) {
    const auto start = reinterpret_cast<uintptr_t>(address);
    const Fibre& fibre = *block.current->fibre;
    if (start - reinterpret_cast<uintptr_t>(fibre.stack) < fibre.bytes) return;  // the thread's own
    const void* plain = const_cast<const void*>(address);
    const bool is_shared = shared[0].contains(plain) || shared[1].contains(plain);
    for (uintptr_t word = start / 4; word <= (start + size - 1) / 4; ++word) {
        const uintptr_t first = word * 4 < start ? start - word * 4 : 0;
        const uintptr_t end = start + size - word * 4 < 4 ? start + size - word * 4 : 4;
        const auto bytes = static_cast<unsigned char>((1u << end) - (1u << first));
        Cell& cell = page_of(word * 4).cells[word % (kPage / 4)];
        const bool excused = (cell.write.flags & kAtomic) && (is_atomic || !is_write);
        if ((cell.write.bytes & bytes) && !excused && !is_ordered(cell.write, is_shared)) {
            report(is_atomic ? "changes atomically" : is_write ? "writes" : "reads", cell.write, true, is_shared, code);
        }
        for (int half = 0; half < kHalves; ++half) {
            const auto touched = static_cast<unsigned char>(bytes & (3u << 2 * half));
            Record& read = cell.read[half];
            if (touched == 0) continue;
            if (!is_write) remember_read(read, now(touched, 0));
            if (is_write && !is_atomic && (read.bytes & touched) && !is_ordered(read, is_shared)) {
                report("writes", read, false, is_shared, code);
            }
        }
        if (is_write) cell.write = now(bytes, is_atomic ? kAtomic : 0);
    }
}

}  // namespace

void races_start(unsigned int blocks, const Span& static_shared, const Span& dynamic_shared) {
    ++launches;
    last_page = nullptr;
    if (pages.size() > 1 << 12) pages.clear();
    atomics_of.assign(blocks, 0);
    shared[0] = static_shared;
    shared[1] = dynamic_shared;
    watching = true;
}

void races_block_ends() {
    atomics_of[block.order] = block.atomics;
}

void races_stop() {
    watching = false;
}

void atomic_access(const volatile void* address, size_t size) {
    if (watching) access(address, size, true, true, __builtin_return_address(0));
    block.current->last_atomic = ++block.atomics;
}

}  // namespace emulation

using emulation::access;
using emulation::watching;

extern "C" {

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}

#define CXRFAST_ACCESS(SIZE)                                                            \
    void __tsan_read##SIZE(void* address) {                                             \
        if (watching) access(address, SIZE, false, false, __builtin_return_address(0)); \
    }                                                                                   \
    void __tsan_write##SIZE(void* address) {                                            \
        if (watching) access(address, SIZE, true, false, __builtin_return_address(0));  \
    }                                                                                   \
    void __tsan_unaligned_read##SIZE(void* address) {                                   \
        if (watching) access(address, SIZE, false, false, __builtin_return_address(0)); \
    }                                                                                   \
    void __tsan_unaligned_write##SIZE(void* address) {                                  \
        if (watching) access(address, SIZE, true, false, __builtin_return_address(0));  \
    }
CXRFAST_ACCESS(1)
CXRFAST_ACCESS(2)
CXRFAST_ACCESS(4)
CXRFAST_ACCESS(8)
CXRFAST_ACCESS(16)

void __tsan_read_range(void* address, unsigned long size) {
    if (watching && size != 0) access(address, size, false, false, __builtin_return_address(0));
}
void __tsan_write_range(void* address, unsigned long size) {
    if (watching && size != 0) access(address, size, true, false, __builtin_return_address(0));
}

// What the torch glue beside the kernels needs: reference counts and guards of statics.
#define CXRFAST_HOST_ATOMIC(T, BITS)                                                                             \
    T __tsan_atomic##BITS##_load(const volatile T* address, int) {                                               \
        return __atomic_load_n(address, __ATOMIC_SEQ_CST);                                                       \
    }                                                                                                            \
    void __tsan_atomic##BITS##_store(volatile T* address, T value, int) {                                        \
        __atomic_store_n(address, value, __ATOMIC_SEQ_CST);                                                      \
    }                                                                                                            \
    T __tsan_atomic##BITS##_exchange(volatile T* address, T value, int) {                                        \
        return __atomic_exchange_n(address, value, __ATOMIC_SEQ_CST);                                            \
    }                                                                                                            \
    T __tsan_atomic##BITS##_fetch_add(volatile T* address, T value, int) {                                       \
        return __atomic_fetch_add(address, value, __ATOMIC_SEQ_CST);                                             \
    }                                                                                                            \
    T __tsan_atomic##BITS##_fetch_sub(volatile T* address, T value, int) {                                       \
        return __atomic_fetch_sub(address, value, __ATOMIC_SEQ_CST);                                             \
    }                                                                                                            \
    int __tsan_atomic##BITS##_compare_exchange_strong(volatile T* address, T* expected, T value, int, int) {     \
        return __atomic_compare_exchange_n(address, expected, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST); \
    }                                                                                                            \
    int __tsan_atomic##BITS##_compare_exchange_weak(volatile T* address, T* expected, T value, int, int) {       \
        return __atomic_compare_exchange_n(address, expected, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST); \
    }
CXRFAST_HOST_ATOMIC(unsigned char, 8)
CXRFAST_HOST_ATOMIC(unsigned short, 16)
CXRFAST_HOST_ATOMIC(unsigned int, 32)
CXRFAST_HOST_ATOMIC(unsigned long, 64)

}  // extern "C"
