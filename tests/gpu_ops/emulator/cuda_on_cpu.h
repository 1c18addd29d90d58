// Runs CUDA kernels on the CPU, for tests: one fiber per CUDA thread, one block at a time.
//
// A warp runs until all its lanes wait or have ended, then the next one does, so that missing
// barriers show; the order of blocks, warps and lanes is the caller's. Number types are NVIDIA's
// own. What a GPU leaves undefined is an error here: a barrier or shuffle that not all lanes
// reach, a shuffle from a lane outside the mask, memory that starts as anything but NaN.
// Atomics, inline PTX and textures are not there: a kernel that uses them does not compile.
//
// Under ThreadSanitizer each lane is one of its fibers. Nothing orders two lanes but a barrier that
// both passed, and nothing orders two blocks, so what a GPU might run in another order is a race,
// whatever order it runs in here.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <csetjmp>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <numeric>
#include <random>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <sys/mman.h>
#include <ucontext.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef __SANITIZE_THREAD__
#include <thread>

#include <sanitizer/tsan_interface.h>
#endif

#undef __global__
#undef __device__
#undef __host__
#undef __constant__
#undef __shared__
#undef __launch_bounds__
#undef __forceinline__
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __CUDA_ARCH__ 800

// A named section can be poisoned as a whole, but has no red zones, and its bytes serve every block:
// so not under a sanitizer. A block has a thread of its own where ThreadSanitizer looks.
#if defined(__SANITIZE_ADDRESS__)
#define __shared__ static
#elif defined(__SANITIZE_THREAD__)
#define __shared__ static thread_local
#else
#define __shared__ static __attribute__((section("emu_shared")))
// Weak, since a file may hold no static shared memory at all.
extern "C" char __start_emu_shared[] __attribute__((weak, visibility("hidden")));
extern "C" char __stop_emu_shared[] __attribute__((weak, visibility("hidden")));
#endif

// What the emulator itself reads and writes is no access of a kernel.
#ifdef __SANITIZE_THREAD__
#define EMU_UNSEEN __attribute__((no_sanitize("thread"), noinline))
#else
#define EMU_UNSEEN
#endif

static uint3 threadIdx, blockIdx;
static dim3 blockDim, gridDim;

namespace emu {

constexpr int WARP = 32;
constexpr unsigned ALL_LANES = 0xffffffffu;
constexpr size_t STACK_BYTES = 128 << 10;

enum class State { READY, WAITS_IN_WARP, WAITS_IN_BLOCK, DONE };

// Room for what a lane gives to one operation of its warp.
struct alignas(8) Offer {
    unsigned char bytes[24];
};

struct Lane {
    State state;
    int line;            // where it waits
    unsigned mask;       // of the warp operation that it waits in
    Offer offers[2];     // to the other lanes, in turn: a fast lane may offer the next
    int turn;
    uint3 index;
    bool is_started;
    char* stack;
    ucontext_t context;
    jmp_buf resume;
    void* fake_stack;
    void* fiber;
    unsigned char block_turn, warp_turn;  // which token its next barrier takes
};

// What ThreadSanitizer knows a barrier by: two, taken in turn. With one, a fast lane that arrives at
// the next barrier would be ordered before a slow one that has still to leave this one.
using Tokens = std::array<uint64_t, 2>;

// A block's own. It lives as long as the launch: to ThreadSanitizer, a token where an earlier block
// had one orders the two, and to free memory is to write it.
struct BlockMemory {
    Tokens block_tokens;
    std::vector<Tokens> warp_tokens;
    void* dynamic_shared = nullptr;

    BlockMemory() = default;
    BlockMemory(const BlockMemory&) = delete;
    ~BlockMemory() { std::free(dynamic_shared); }

    // Exactly so many bytes, for the red zones of a sanitizer.
    bool allocate(size_t shared_bytes, size_t num_lanes) {
        warp_tokens.resize((num_lanes + WARP - 1) / WARP);
        if (posix_memalign(&dynamic_shared, 1024, std::max<size_t>(shared_bytes, 1))) return false;
        std::memset(dynamic_shared, 0xff, shared_bytes);
        return true;
    }
};

struct Launch {
    std::function<void()> kernel;
    std::vector<Lane> lanes;
    Lane* current;
    std::string error;
    ucontext_t scheduler;
    jmp_buf scheduler_resume;
    void* scheduler_fake_stack;
    const void* scheduler_stack;
    size_t scheduler_stack_bytes;
    void* scheduler_fiber;
    BlockMemory* memory;
    uint64_t end_token;  // of no barrier, or it would order blocks
};

static Launch* launch_now = nullptr;

// All that came before an `arrive` at a token comes before what follows a `depart` from it.
EMU_UNSEEN static void arrive(uint64_t* token) {
#ifdef __SANITIZE_THREAD__
    __tsan_release(token);
#endif
}

EMU_UNSEEN static void depart(uint64_t* token) {
#ifdef __SANITIZE_THREAD__
    __tsan_acquire(token);
#endif
}

EMU_UNSEEN inline int lane_in_warp(const Lane& lane) { return (&lane - launch_now->lanes.data()) % WARP; }
EMU_UNSEEN inline Lane* warp_of(const Lane& lane) { return &launch_now->lanes[0] + (&lane - &launch_now->lanes[0]) / WARP * WARP; }
EMU_UNSEEN inline int lanes_of_warp(const Lane* warp) {
    return std::min<long>(WARP, &launch_now->lanes[0] + launch_now->lanes.size() - warp);
}

EMU_UNSEEN __attribute__((noinline)) static void leave_lane(bool is_last) {
    Launch& launch = *launch_now;
    Lane& lane = *launch.current;
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(is_last ? nullptr : &lane.fake_stack, launch.scheduler_stack,
                                   launch.scheduler_stack_bytes);
    swapcontext(&lane.context, &launch.scheduler);
    __sanitizer_finish_switch_fiber(lane.fake_stack, nullptr, nullptr);
#elif defined(__SANITIZE_THREAD__)
    __tsan_switch_to_fiber(launch.scheduler_fiber, __tsan_switch_to_fiber_no_sync);
    swapcontext(&lane.context, &launch.scheduler);
#else
    if (is_last || _setjmp(lane.resume) == 0) _longjmp(launch.scheduler_resume, 1);
#endif
}

// A C++ exception cannot leave a fiber: the message is kept and the fiber never resumed.
EMU_UNSEEN __attribute__((noinline)) static void fail(const std::string& message, int line) {
    Lane& lane = *launch_now->current;
    if (launch_now->error.empty())
        launch_now->error = "line " + std::to_string(line) + ", thread " + std::to_string(lane.index.x) +
                            "," + std::to_string(lane.index.y) + " of block " + std::to_string(blockIdx.x) + "," +
                            std::to_string(blockIdx.y) + ": " + message;
    leave_lane(false);
}

EMU_UNSEEN static void lane_main() {
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(nullptr, &launch_now->scheduler_stack,
                                    &launch_now->scheduler_stack_bytes);
#endif
    launch_now->kernel();
    arrive(&launch_now->end_token);
    launch_now->current->state = State::DONE;
    leave_lane(true);
}

EMU_UNSEEN static void enter_lane(Lane& lane) {
    Launch& launch = *launch_now;
    launch.current = &lane;
    threadIdx = lane.index;
    if (!lane.is_started) {
        lane.is_started = true;
        getcontext(&lane.context);
        lane.context.uc_stack.ss_sp = lane.stack;
        lane.context.uc_stack.ss_size = STACK_BYTES;
        lane.context.uc_link = nullptr;
        makecontext(&lane.context, lane_main, 0);
#if defined(__SANITIZE_THREAD__)
        lane.fiber = __tsan_create_fiber(0);
#elif !defined(__SANITIZE_ADDRESS__)
        if (_setjmp(launch.scheduler_resume) == 0) setcontext(&lane.context);
        return;
#endif
    }
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(&launch.scheduler_fake_stack, lane.stack, STACK_BYTES);
    swapcontext(&launch.scheduler, &lane.context);
    __sanitizer_finish_switch_fiber(launch.scheduler_fake_stack, nullptr, nullptr);
#elif defined(__SANITIZE_THREAD__)
    __tsan_switch_to_fiber(lane.fiber, __tsan_switch_to_fiber_no_sync);
    swapcontext(&launch.scheduler, &lane.context);
#else
    if (_setjmp(launch.scheduler_resume) == 0) _longjmp(lane.resume, 1);
#endif
}

EMU_UNSEEN static void wait_in_block(int line) {
    Lane& lane = *launch_now->current;
    lane.state = State::WAITS_IN_BLOCK;
    lane.line = line;
    leave_lane(false);
}

// Orders nothing: shuffles and matrices do not, on a device either.
EMU_UNSEEN static void wait_in_warp(int line, unsigned mask = ALL_LANES) {
    Lane& lane = *launch_now->current;
    if (!(mask >> lane_in_warp(lane) & 1)) fail("the mask does not name the lane itself", line);
    lane.state = State::WAITS_IN_WARP;
    lane.line = line;
    lane.mask = mask;
    leave_lane(false);
}

EMU_UNSEEN static void sync_block(int line) {
    uint64_t* token = &launch_now->memory->block_tokens[launch_now->current->block_turn++ % 2];
    arrive(token);
    wait_in_block(line);
    depart(token);
}

EMU_UNSEEN static void sync_warp(int line, unsigned mask = ALL_LANES) {
    Lane& lane = *launch_now->current;
#ifdef __SANITIZE_THREAD__
    if (mask != ALL_LANES) fail("barriers of part of a warp are not known under ThreadSanitizer", line);
#endif
    uint64_t* token = &launch_now->memory->warp_tokens[(&lane - &launch_now->lanes[0]) / WARP][lane.warp_turn++ % 2];
    arrive(token);
    wait_in_warp(line, mask);
    depart(token);
}

// Offers bytes to the other lanes, and returns which of the offers it was when all have come.
template <typename T>
EMU_UNSEEN int exchange(int line, unsigned mask, const T& value) {
    static_assert(sizeof(T) <= sizeof(Offer));
    Lane& lane = *launch_now->current;
    int turn = lane.turn;
    lane.turn ^= 1;
    std::memcpy(&lane.offers[turn], &value, sizeof(T));
    wait_in_warp(line, mask);
    return turn;
}

template <typename T>
EMU_UNSEEN T offered(int lane, int turn) {
    T value;
    std::memcpy(&value, &warp_of(*launch_now->current)[lane].offers[turn], sizeof(T));
    return value;
}

template <typename T>
EMU_UNSEEN T shuffle(int line, unsigned mask, T value, int source) {
    int turn = exchange(line, mask, value);
    if (!(mask >> source & 1)) fail("shuffle from lane " + std::to_string(source) + ", outside the mask", line);
    return offered<T>(source, turn);
}

// Lets the lanes of a warp pass whose operation all lanes of its mask have reached.
EMU_UNSEEN static bool open_warp(Lane* warp) {
    int size = lanes_of_warp(warp);
    for (int i = 0; i < size; i++) {
        Lane& first = warp[i];
        if (first.state != State::WAITS_IN_WARP) continue;
        bool is_complete = true;
        for (int j = 0; j < WARP; j++) {
            if (!(first.mask >> j & 1)) continue;
            launch_now->current = &first;
            if (j >= size || warp[j].state == State::DONE) {
                launch_now->error = "line " + std::to_string(first.line) + ": lane " + std::to_string(i) +
                                    " waits for lane " + std::to_string(j) + ", which has exited or never was";
                return false;
            }
            is_complete &= warp[j].state == State::WAITS_IN_WARP && warp[j].line == first.line &&
                           warp[j].mask == first.mask;
        }
        if (!is_complete) continue;
        for (int j = 0; j < size; j++)
            if (first.mask >> j & 1) warp[j].state = State::READY;
        return true;
    }
    return false;
}

EMU_UNSEEN static void open_block() {
    Launch& launch = *launch_now;
    int line = 0;
    for (Lane& lane : launch.lanes) {
        if (lane.state == State::DONE) continue;
        if (lane.state != State::WAITS_IN_BLOCK || (line && lane.line != line)) {
            launch.error = "deadlock: a lane waits at line " + std::to_string(lane.line) + ", another at line " +
                           std::to_string(line);
            return;
        }
        line = lane.line;
    }
    for (Lane& lane : launch.lanes)
        if (lane.state != State::DONE) lane.state = State::READY;
}

// 0: forward, 1: backward, else a shuffle with that seed; of `count` things.
EMU_UNSEEN static std::vector<int> order_of(int count, int order, int salt) {
    std::vector<int> places(count);
    std::iota(places.begin(), places.end(), 0);
    if (order == 1) std::reverse(places.begin(), places.end());
    if (order > 1) std::shuffle(places.begin(), places.end(), std::mt19937(order * 1000 + salt));
    return places;
}

EMU_UNSEEN static bool all_done() {
    return std::all_of(launch_now->lanes.begin(), launch_now->lanes.end(),
                       [](const Lane& lane) { return lane.state == State::DONE; });
}

EMU_UNSEEN static void run_warp(Lane* warp, const std::vector<int>& lane_order) {
    int size = lanes_of_warp(warp);
    do {
        for (int place : lane_order) {
            if (place >= size || warp[place].state != State::READY) continue;
            enter_lane(warp[place]);
            if (!launch_now->error.empty()) return;
        }
    } while (open_warp(warp) && launch_now->error.empty());
}

EMU_UNSEEN static void run_block(int order) {
    Launch& launch = *launch_now;
    for (size_t i = 0; i < launch.lanes.size(); i++) {
        Lane& lane = launch.lanes[i];
        unsigned rest = i / blockDim.x;
        lane.state = State::READY;
        lane.is_started = false;
        lane.turn = 0;
        lane.block_turn = lane.warp_turn = 0;
        lane.fiber = nullptr;
        lane.index = uint3{unsigned(i % blockDim.x), rest % blockDim.y, rest / blockDim.y};
    }
    int num_warps = (launch.lanes.size() + WARP - 1) / WARP;
    while (!all_done()) {
        for (int warp : order_of(num_warps, order, blockIdx.x)) {
            run_warp(&launch.lanes[warp * WARP], order_of(WARP, order, warp));
            if (!launch.error.empty()) return;
        }
        if (all_done()) return;
        open_block();
        if (!launch.error.empty()) return;
    }
}

static void poison_static_shared() {
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    if (__start_emu_shared) std::memset(__start_emu_shared, 0xff, __stop_emu_shared - __start_emu_shared);
#endif
}

static char* stacks_for(size_t num_lanes) {
    static char* stacks = nullptr;
    static size_t bytes = 0;
#ifdef __SANITIZE_THREAD__
    bool is_usable = false;  // memory that two blocks use looks like a race between them
#else
    bool is_usable = bytes >= num_lanes * STACK_BYTES;
#endif
    if (!is_usable) {
        if (stacks) munmap(stacks, bytes);
        bytes = num_lanes * STACK_BYTES;
        stacks = static_cast<char*>(mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    }
#ifdef __SANITIZE_ADDRESS__
    __asan_unpoison_memory_region(stacks, bytes);  // a failed launch leaves its frames behind
#endif
    return stacks;
}

EMU_UNSEEN static void run_block_here(int order) {
    Launch& launch = *launch_now;
#ifdef __SANITIZE_THREAD__
    launch.scheduler_fiber = __tsan_get_current_fiber();
#endif
    run_block(order);
#ifdef __SANITIZE_THREAD__
    for (Lane& lane : launch.lanes)
        if (lane.fiber) __tsan_destroy_fiber(lane.fiber);
#endif
}

EMU_UNSEEN static void run_block_alone(int order) {
    Launch& launch = *launch_now;
    char* stacks = stacks_for(launch.lanes.size());
    for (size_t i = 0; i < launch.lanes.size(); i++) launch.lanes[i].stack = stacks + i * STACK_BYTES;
#ifdef __SANITIZE_THREAD__
    std::thread(run_block_here, order).join();  // which has shared memory of its own
#else
    run_block_here(order);
#endif
}

EMU_UNSEEN static std::string run(std::function<void()> kernel, dim3 grid, dim3 block, size_t shared_bytes, int order) {
    gridDim = grid;
    blockDim = block;
    Launch launch{};
    launch_now = &launch;
    launch.kernel = std::move(kernel);
    launch.lanes.resize(size_t(block.x) * block.y * block.z);
    std::vector<BlockMemory> memory(grid.x * grid.y * grid.z);
    for (int place : order_of(memory.size(), order, 0)) {
        unsigned rest = place / grid.x;
        blockIdx = uint3{place % grid.x, rest % grid.y, rest / grid.y};
        poison_static_shared();
        launch.memory = &memory[place];
        if (!launch.memory->allocate(shared_bytes, launch.lanes.size())) return "no memory";
        run_block_alone(order);
        if (!launch.error.empty()) break;
    }
    depart(&launch.end_token);
    launch_now = nullptr;
    return launch.error;
}

template <typename... A, size_t... I>
std::string launch(void (*kernel)(A...), void** params, dim3 grid, dim3 block, size_t shared_bytes, int order,
                   std::index_sequence<I...>) {
    return run([=] { kernel(*static_cast<std::remove_reference_t<A>*>(params[I])...); }, grid, block, shared_bytes,
               order);
}

template <typename A>
constexpr char code_of() {
    if (std::is_pointer_v<A>) return 'P';
    if (std::is_same_v<A, int>) return 'i';
    if (std::is_same_v<A, float>) return 'f';
    return '?';
}

template <typename... A>
std::string signature(void (*)(A...)) {
    return std::string{code_of<std::remove_cv_t<A>>()...};
}

EMU_UNSEEN inline void* dynamic_shared() { return launch_now->memory->dynamic_shared; }

// What the generated entry points return: the text lives until the next call.
inline const char* keep(std::string text) {
    static std::string kept;
    kept = std::move(text);
    return kept.c_str();
}

}  // namespace emu

#define EMU_EXPORT(number, ...)                                                                                \
    extern "C" __attribute__((visibility("default"))) const char* signature_##number() {                      \
        return emu::keep(emu::signature(&__VA_ARGS__));                                                        \
    }                                                                                                          \
    extern "C" __attribute__((visibility("default"))) const char* launch_##number(                             \
        const unsigned* grid, const unsigned* block, size_t shared_bytes, void** params, int order) {          \
        return emu::keep([&]<typename... A>(void (*kernel)(A...)) {                                            \
            return emu::launch(kernel, params, dim3(grid[0], grid[1], grid[2]),                                \
                               dim3(block[0], block[1], block[2]), shared_bytes, order,                        \
                               std::index_sequence_for<A...>());                                               \
        }(&__VA_ARGS__));                                                                                      \
    }

#define __syncthreads() emu::sync_block(__LINE__)
#define __syncwarp(...) emu::sync_warp(__LINE__ __VA_OPT__(, ) __VA_ARGS__)
#define __shfl_xor_sync(mask, value, flip) \
    emu::shuffle(__LINE__, mask, value, emu::lane_in_warp(*emu::launch_now->current) ^ (flip))
#define __shfl_sync(mask, value, source) emu::shuffle(__LINE__, mask, value, source)

static float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
static int min(int a, int b) { return a < b ? a : b; }

// In place of `tensor_core.cuh`, which says what these do. They order nothing, as on a device; what
// they read of shared memory, the lane reads that gets it.
namespace emu {

struct MatrixParts {
    unsigned left[4], right[2];
};

inline void load_matrices_at(int line, unsigned (&parts)[4], const void* row) {
    if (reinterpret_cast<uintptr_t>(row) % 16) fail("a row of a matrix must begin at a multiple of 16 bytes", line);
    int turn = exchange(line, ALL_LANES, row), lane = lane_in_warp(*launch_now->current);
    for (int matrix = 0; matrix < 4; matrix++) {
        auto place = static_cast<const char*>(offered<const void*>(matrix * 8 + lane / 4, turn));
        std::memcpy(&parts[matrix], place + lane % 4 * 4, 4);
    }
}

template <typename T>
float element(unsigned part, int number) {
    T elements[2];
    std::memcpy(elements, &part, sizeof(part));
    return float(elements[number]);
}

// An object, so that a macro can pass the line before the type.
struct MultiplyAdd {
    int line;

    template <typename T>
    void add(float (&sums)[4], const unsigned (&left)[4], unsigned right_upper, unsigned right_lower) const {
        MatrixParts own{{left[0], left[1], left[2], left[3]}, {right_upper, right_lower}};
        int turn = exchange(line, ALL_LANES, own), lane = lane_in_warp(*launch_now->current);
        for (int place = 0; place < 4; place++) {
            int half = place / 2, column = lane % 4 * 2 + place % 2;
            for (int k = 0; k < 16; k++) {
                auto row = offered<MatrixParts>(lane / 4 * 4 + k % 8 / 2, turn);
                auto of_column = offered<MatrixParts>(column * 4 + k % 8 / 2, turn);
                sums[place] += element<T>(row.left[k / 8 * 2 + half], k % 2) * element<T>(of_column.right[k / 8], k % 2);
            }
        }
    }
};

}  // namespace emu

#define load_matrices(...) emu::load_matrices_at(__LINE__, __VA_ARGS__)
#define multiply_add emu::MultiplyAdd{__LINE__}.template add
