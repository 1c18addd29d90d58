// A tile of rows, all of one task, times that task's weight: what every dense operator is made of.
//
//            depth                     depth                   COLUMNS
//        +----------+              +-----------+            +-----------+
//   ROWS | x        |     COLUMNS  | weight    |   =>  ROWS | sums      |   => take(row, column, ...)
//        +----------+              |           |            +-----------+
//            by chunks             +-----------+               in fp32
//
// While a chunk is multiplied, the next one is on its way into registers: a block has few chunks
// and waits for memory more than for anything else.
#pragma once
#include "element.cuh"
#include "tensor_core.cuh"
#include "tile.cuh"

constexpr int TILE_COLUMNS = 64;

// Of a row of sums in shared memory: eight lanes' rows fall into different banks.
template <int COLUMNS>
constexpr int OUT_STRIDE = COLUMNS + 8;

// The threads of a block: SPLITS groups, each with a part of the depth and sums of its own. One
// group waits for memory at each chunk; several wait at the same time, which is what few blocks need.
template <int COLUMNS_, int SPLITS_>
struct TileShape {
    static constexpr int COLUMNS = COLUMNS_, SPLITS = SPLITS_;
    static constexpr int GROUP_THREADS = 2 * COLUMNS;
    static constexpr int THREADS = SPLITS * GROUP_THREADS;
};

// BLOCKS: at once on a multiprocessor, at least. Three of 128 threads leave each 168 registers.

// Of a product with a great depth. Few rows are few tiles: more blocks then, each of eight warps
// that wait for memory at the same time.
template <int ROWS>
struct DeepShape : TileShape<ROWS == 16 ? 16 : TILE_COLUMNS, ROWS == 16 ? 8 : 1> {
    static constexpr int BLOCKS = ROWS == 16 ? 2 : 3;
};

// Of a product whose depth is a chunk or two.
template <int ROWS>
struct ShallowShape : TileShape<TILE_COLUMNS, 1> {
    static constexpr int BLOCKS = ROWS == 16 ? 8 : 3;
};

// Multiplies by FMAs, of any type. Of 64 columns a thread has every 16th, and every 8th row; of 16
// columns one, and every 2nd row.
template <typename T, int ROWS, int COLUMNS, int STRIDE>
struct PlainSums {
    static constexpr int ACROSS = COLUMNS < 64 ? COLUMNS / 16 : 4;
    static constexpr int ROW_STEP = 2 * ACROSS;
    float sums[ROWS / ROW_STEP][ACROSS];

    static __device__ int first_row(int thread) { return thread / 16 % ROW_STEP; }
    static __device__ int first_column(int thread) { return thread % 16; }

    __device__ void clear() {
        for (auto& row : sums)
            for (float& sum : row) sum = 0.0f;
    }

    __device__ void add(const T (*x)[STRIDE], const T (*weight)[STRIDE], int chunk, int thread) {
        const int row0 = first_row(thread), column0 = first_column(thread);
#pragma unroll 1  // or it takes more registers than there are
        for (int k = 0; k < chunk; k += Pack<T>::SIZE) {
            Pack<T> right[ACROSS];
#pragma unroll
            for (int j = 0; j < ACROSS; j++) right[j] = load_pack(&weight[column0 + 16 * j][k]);
#pragma unroll
            for (int i = 0; i < ROWS / ROW_STEP; i++) {
                const Pack<T> left = load_pack(&x[row0 + ROW_STEP * i][k]);
#pragma unroll
                for (int j = 0; j < ACROSS; j++)
#pragma unroll
                    for (int e = 0; e < Pack<T>::SIZE; e++)
                        sums[i][j] += to_float(left.values[e]) * to_float(right[j].values[e]);
            }
        }
    }

    __device__ void store(float (*out)[OUT_STRIDE<COLUMNS>], int thread) {
        const int row0 = first_row(thread), column0 = first_column(thread);
        for (int i = 0; i < ROWS / ROW_STEP; i++)
            for (int j = 0; j < ACROSS; j++) out[row0 + ROW_STEP * i][column0 + 16 * j] = sums[i][j];
    }
};

// Multiplies by tensor cores. A warp has a square.
template <typename T, int ROWS, int COLUMNS, int STRIDE>
struct TensorCoreSums {
    static constexpr int SIDE = ROWS == 64 ? 2 : 1;  // in sixteens
    static constexpr int WARPS_ACROSS = COLUMNS / (16 * SIDE);
    float sums[SIDE][2 * SIDE][4];  // of 16 rows and 8 columns each

    static __device__ int first_row(int thread) { return thread / 32 / WARPS_ACROSS * 16 * SIDE; }
    static __device__ int first_column(int thread) { return thread / 32 % WARPS_ACROSS * 16 * SIDE; }

    __device__ void clear() {
        for (auto& row : sums)
            for (auto& part : row)
                for (float& sum : part) sum = 0.0f;
    }

    __device__ void add(const T (*x)[STRIDE], const T (*weight)[STRIDE], int chunk, int thread) {
        // Which row of a sixteen, and which eight of its elements, a lane gives the place of: the
        // quarters of `x` go down first, those of `weight` across.
        const int lane = thread % 32, eighth = lane % 8, odd = lane / 8 % 2 * 8, second = lane / 16 * 8;
        const int row = first_row(thread) + eighth + odd, column = first_column(thread) + eighth + second;
#pragma unroll 2
        for (int k = 0; k < chunk; k += 16) {
            unsigned right[SIDE][4];
#pragma unroll
            for (int j = 0; j < SIDE; j++) load_matrices(right[j], &weight[column + 16 * j][k + odd]);
#pragma unroll
            for (int i = 0; i < SIDE; i++) {
                unsigned left[4];
                load_matrices(left, &x[row + 16 * i][k + second]);
#pragma unroll
                for (int j = 0; j < 2 * SIDE; j++)
                    multiply_add<T>(sums[i][j], left, right[j / 2][j % 2 * 2], right[j / 2][j % 2 * 2 + 1]);
            }
        }
    }

    __device__ void store(float (*out)[OUT_STRIDE<COLUMNS>], int thread) {
        const int row = first_row(thread) + thread % 32 / 4, column = first_column(thread) + thread % 4 * 2;
#pragma unroll
        for (int i = 0; i < SIDE; i++)
#pragma unroll
            for (int j = 0; j < 2 * SIDE; j++)
#pragma unroll
                for (int lower = 0; lower < 2; lower++)
                    *reinterpret_cast<float2*>(&out[row + 16 * i + 8 * lower][column + 8 * j]) =
                        make_float2(sums[i][j][2 * lower], sums[i][j][2 * lower + 1]);
    }
};

// Tensor cores would round the products of floats to ten bits.
template <typename T, int ROWS, int COLUMNS, int STRIDE>
struct SumsOf {
    using type = TensorCoreSums<T, ROWS, COLUMNS, STRIDE>;
};
template <int ROWS, int COLUMNS, int STRIDE>
struct SumsOf<float, ROWS, COLUMNS, STRIDE> {
    using type = PlainSums<float, ROWS, COLUMNS, STRIDE>;
};

// Where a tile's weight comes from: what `load` returns is held in registers until `finish`.
template <typename T>
struct PlainWeight {
    using Raw = uint4;
    const T* weight;  // [columns, depth], fewer than 2^31 elements

    static __device__ Raw none() { return ZERO_BYTES; }
    __device__ Raw load(unsigned element) const { return load_bytes(weight + element); }
    static __device__ uint4 finish(const Raw& raw) { return raw; }
};

// Semantics: sums[r, c] = sum over k < depth of x[r, k] * weight[c, k], for r < num_rows and the
// columns c of this block; then take(r, c, values) for each pack of columns below `columns`.
//
//   x            the tile's first row; rows lie `x_stride` elements apart
//   depth        a multiple of a pack, as are x_stride and columns
//   weight       PlainWeight, or one like it
//   take         (row, column, const float* of a pack's sums)
//
// All threads of the block, TileShape<COLUMNS, SPLITS>::THREADS, must call it, and wait for each
// other before they call it again.
template <typename T, int ROWS, int COLUMNS, int SPLITS, typename Weight, typename Take>
__device__ void tile_product(const T* x, int x_stride, int num_rows, int first_column, int columns, int depth,
                             Weight weight, Take take) {
    using Shape = TileShape<COLUMNS, SPLITS>;
    constexpr int THREADS = Shape::GROUP_THREADS;
    constexpr int PACK = Pack<T>::SIZE;
    constexpr int CHUNK_PACKS = 8;  // of a row: what a thread can hold in registers
    constexpr int CHUNK = CHUNK_PACKS * PACK;
    constexpr int STRIDE = CHUNK + PACK;  // an odd number of packs: eight threads' fall into all banks
    constexpr int X_PACKS = ROWS * CHUNK_PACKS / THREADS;
    constexpr int WEIGHT_PACKS = COLUMNS * CHUNK_PACKS / THREADS;
    constexpr int CHUNK_BYTES = SPLITS * (ROWS + COLUMNS) * STRIDE * sizeof(T);
    constexpr int OUT_BYTES = SPLITS * ROWS * OUT_STRIDE<COLUMNS> * sizeof(float);
    __shared__ __align__(32) unsigned char storage[CHUNK_BYTES > OUT_BYTES ? CHUNK_BYTES : OUT_BYTES];
    const int group = threadIdx.x / THREADS, thread = threadIdx.x % THREADS;
    const auto x_chunk = reinterpret_cast<T(*)[STRIDE]>(storage) + group * (ROWS + COLUMNS);
    const auto weight_chunk = x_chunk + ROWS;
    const auto out = reinterpret_cast<float(*)[OUT_STRIDE<COLUMNS>]>(storage);  // when the chunks are done

    // What a thread reads first: of each AT_ONCE-th row and column the same pack. Behind the last
    // row, and the last column, the last one is read again: what comes of it is not taken.
    constexpr int AT_ONCE = THREADS / CHUNK_PACKS;
    const int own_row = thread / CHUNK_PACKS, own_k = thread % CHUNK_PACKS * PACK;
    unsigned x_elements[X_PACKS], weight_elements[WEIGHT_PACKS];
    int next_k = group * CHUNK + own_k;
#pragma unroll
    for (int i = 0; i < X_PACKS; i++)
        x_elements[i] = min(i * AT_ONCE + own_row, num_rows - 1) * x_stride + next_k;
#pragma unroll
    for (int i = 0; i < WEIGHT_PACKS; i++)
        weight_elements[i] = min(first_column + i * AT_ONCE + own_row, columns - 1) * depth + next_k;

    uint4 next_x[X_PACKS];
    typename Weight::Raw next_weight[WEIGHT_PACKS];
    const auto fetch = [&]() {
        const bool is_inside = next_k < depth;
#pragma unroll
        for (int i = 0; i < X_PACKS; i++) {
            next_x[i] = is_inside ? load_bytes(x + x_elements[i]) : ZERO_BYTES;
            x_elements[i] += SPLITS * CHUNK;
        }
#pragma unroll
        for (int i = 0; i < WEIGHT_PACKS; i++) {
            next_weight[i] = is_inside ? weight.load(weight_elements[i]) : Weight::none();
            weight_elements[i] += SPLITS * CHUNK;
        }
        next_k += SPLITS * CHUNK;
    };

    typename SumsOf<T, ROWS, COLUMNS, STRIDE>::type sums;
    sums.clear();
    fetch();
    for (int begin = group * CHUNK; begin - group * CHUNK < depth; begin += SPLITS * CHUNK) {
#pragma unroll
        for (int i = 0; i < X_PACKS; i++) store_bytes(&x_chunk[i * AT_ONCE + own_row][own_k], next_x[i]);
#pragma unroll
        for (int i = 0; i < WEIGHT_PACKS; i++)
            store_bytes(&weight_chunk[i * AT_ONCE + own_row][own_k], Weight::finish(next_weight[i]));
        __syncthreads();
        if (begin + SPLITS * CHUNK < depth) fetch();
        const int left = depth - begin;  // below one: this group has no more, others do
        sums.add(x_chunk, weight_chunk, left < CHUNK ? left : CHUNK, thread);  // behind `left` there are zeros
        __syncthreads();
    }
    sums.store(out + group * ROWS, thread);
    __syncthreads();
    for (int i = threadIdx.x; i < ROWS * (COLUMNS / PACK); i += Shape::THREADS) {
        const int row = i / (COLUMNS / PACK), column = i % (COLUMNS / PACK) * PACK;
        if (row >= num_rows || first_column + column >= columns) continue;
        float values[PACK];
#pragma unroll
        for (int e = 0; e < PACK; e++) values[e] = out[row][column + e];
#pragma unroll
        for (int split = 1; split < SPLITS; split++)
#pragma unroll
            for (int e = 0; e < PACK; e++) values[e] += out[split * ROWS + row][column + e];
        take(row, first_column + column, values);
    }
}
