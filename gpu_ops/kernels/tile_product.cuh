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
#include "tile.cuh"
#include <mma.h>

constexpr int TILE_COLUMNS = 64;
constexpr int TILE_BLOCKS = 3;  // at once on a multiprocessor, at least: so up to 168 registers a thread

// The threads of a block: SPLITS groups, each with a part of the depth and sums of its own. One
// group waits for memory at each chunk; several wait at the same time, which is what few blocks need.
template <int COLUMNS_, int SPLITS_>
struct TileShape {
    static constexpr int COLUMNS = COLUMNS_, SPLITS = SPLITS_;
    static constexpr int GROUP_THREADS = 2 * COLUMNS;
    static constexpr int THREADS = SPLITS * GROUP_THREADS;
};

// Of a product with a great depth: by tiles of few rows where there are few rows.
template <int ROWS>
struct DeepShape : TileShape<TILE_COLUMNS, ROWS == 16 ? 4 : 1> {
    static constexpr int BLOCKS = ROWS == 16 ? 1 : TILE_BLOCKS;
};

// Multiplies by FMAs, of any type. A thread has every 8th row and every 16th of 64 columns.
template <typename T, int ROWS, int COLUMNS, int STRIDE>
struct PlainSums {
    float sums[ROWS / 8][4];

    static __device__ int first_row(int thread) { return thread / 16 % 8; }
    static __device__ int first_column(int thread) { return thread / 128 * 64 + thread % 16; }

    __device__ void clear() {
        for (auto& row : sums)
            for (float& sum : row) sum = 0.0f;
    }

    __device__ void add(const T (*x)[STRIDE], const T (*weight)[STRIDE], int chunk, int thread) {
        const int row0 = first_row(thread), column0 = first_column(thread);
#pragma unroll 1  // or it takes more registers than there are
        for (int k = 0; k < chunk; k += Pack<T>::SIZE) {
            Pack<T> right[4];
#pragma unroll
            for (int j = 0; j < 4; j++) right[j] = load_pack(&weight[column0 + 16 * j][k]);
#pragma unroll
            for (int i = 0; i < ROWS / 8; i++) {
                const Pack<T> left = load_pack(&x[row0 + 8 * i][k]);
#pragma unroll
                for (int j = 0; j < 4; j++)
#pragma unroll
                    for (int e = 0; e < Pack<T>::SIZE; e++)
                        sums[i][j] += to_float(left.values[e]) * to_float(right[j].values[e]);
            }
        }
    }

    __device__ void store(float (*out)[COLUMNS + 4], int thread) {
        const int row0 = first_row(thread), column0 = first_column(thread);
        for (int i = 0; i < ROWS / 8; i++)
            for (int j = 0; j < 4; j++) out[row0 + 8 * i][column0 + 16 * j] = sums[i][j];
    }
};

// Multiplies by tensor cores. A warp has a square of fragments.
template <typename T, int ROWS, int COLUMNS, int STRIDE>
struct TensorCoreSums {
    static constexpr int SIDE = ROWS == 64 ? 2 : 1;
    static constexpr int WARPS_ACROSS = COLUMNS / (16 * SIDE);
    nvcuda::wmma::fragment<nvcuda::wmma::accumulator, 16, 16, 16, float> sums[SIDE][SIDE];

    static __device__ int first_row(int thread) { return thread / 32 / WARPS_ACROSS * 16 * SIDE; }
    static __device__ int first_column(int thread) { return thread / 32 % WARPS_ACROSS * 16 * SIDE; }

    __device__ void clear() {
        for (auto& row : sums)
            for (auto& sum : row) nvcuda::wmma::fill_fragment(sum, 0.0f);
    }

    __device__ void add(const T (*x)[STRIDE], const T (*weight)[STRIDE], int chunk, int thread) {
        const int row0 = first_row(thread), column0 = first_column(thread);
#pragma unroll 2
        for (int k = 0; k < chunk; k += 16) {
            nvcuda::wmma::fragment<nvcuda::wmma::matrix_b, 16, 16, 16, T, nvcuda::wmma::col_major> right[SIDE];
#pragma unroll
            for (int j = 0; j < SIDE; j++)
                nvcuda::wmma::load_matrix_sync(right[j], &weight[column0 + 16 * j][k], STRIDE);
#pragma unroll
            for (int i = 0; i < SIDE; i++) {
                nvcuda::wmma::fragment<nvcuda::wmma::matrix_a, 16, 16, 16, T, nvcuda::wmma::row_major> left;
                nvcuda::wmma::load_matrix_sync(left, &x[row0 + 16 * i][k], STRIDE);
#pragma unroll
                for (int j = 0; j < SIDE; j++) nvcuda::wmma::mma_sync(sums[i][j], left, right[j], sums[i][j]);
            }
        }
    }

    __device__ void store(float (*out)[COLUMNS + 4], int thread) {
        const int row0 = first_row(thread), column0 = first_column(thread);
        for (int i = 0; i < SIDE; i++)
            for (int j = 0; j < SIDE; j++)
                nvcuda::wmma::store_matrix_sync(&out[row0 + 16 * i][column0 + 16 * j], sums[i][j], COLUMNS + 4,
                                                nvcuda::wmma::mem_row_major);
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
    using Raw = Pack<T>;
    const T* weight;  // [columns, depth]
    int depth;

    static __device__ Raw none() { return zero_pack<T>(); }
    __device__ Raw load(int column, int k) const {
        return load_pack(weight + static_cast<long long>(column) * depth + k);
    }
    static __device__ Pack<T> finish(const Raw& raw) { return raw; }
};

// Semantics: sums[r, c] = sum over k < depth of x[r, k] * weight[c, k], for r < num_rows and the
// columns c of this block; then take(r, c, values) for each pack of columns below `columns`.
//
//   x            the tile's first row; rows lie `x_stride` elements apart
//   depth        a multiple of a pack, as are x_stride and columns
//   weight       PlainWeight, or one like it
//   take         (row, column, const float* of a pack's sums)
//
// All threads of the block, TileShape<COLUMNS, SPLITS>::THREADS, must call it.
template <typename T, int ROWS, int COLUMNS, int SPLITS, typename Weight, typename Take>
__device__ void tile_product(const T* x, int x_stride, int num_rows, int first_column, int columns, int depth,
                             Weight weight, Take take) {
    using Shape = TileShape<COLUMNS, SPLITS>;
    constexpr int THREADS = Shape::GROUP_THREADS;
    constexpr int PACK = Pack<T>::SIZE;
    // Of a row: what a thread can hold in registers, and a block in shared memory.
    constexpr int CHUNK_PACKS = ROWS == 64 || SPLITS > 1 ? 8 : 16;
    constexpr int CHUNK = CHUNK_PACKS * PACK;
    constexpr int STRIDE = CHUNK + PACK;  // an odd number of packs: eight threads' fall into all banks
    constexpr int X_PACKS = ROWS * CHUNK_PACKS / THREADS;
    constexpr int WEIGHT_PACKS = COLUMNS * CHUNK_PACKS / THREADS;
    constexpr int CHUNK_BYTES = SPLITS * (ROWS + COLUMNS) * STRIDE * sizeof(T);
    constexpr int OUT_BYTES = SPLITS * ROWS * (COLUMNS + 4) * sizeof(float);
    __shared__ __align__(32) unsigned char storage[CHUNK_BYTES > OUT_BYTES ? CHUNK_BYTES : OUT_BYTES];
    const int group = threadIdx.x / THREADS, thread = threadIdx.x % THREADS;
    const auto x_chunk = reinterpret_cast<T(*)[STRIDE]>(storage) + group * (ROWS + COLUMNS);
    const auto weight_chunk = x_chunk + ROWS;
    const auto out = reinterpret_cast<float(*)[COLUMNS + 4]>(storage);  // when the chunks are done

    Pack<T> next_x[X_PACKS];
    typename Weight::Raw next_weight[WEIGHT_PACKS];
    const auto fetch = [&](int begin) {
#pragma unroll
        for (int i = 0; i < X_PACKS; i++) {
            const int place = i * THREADS + thread;
            const int row = place / CHUNK_PACKS, k = begin + place % CHUNK_PACKS * PACK;
            const bool is_inside = row < num_rows && k < depth;
            next_x[i] = is_inside ? load_pack(x + static_cast<long long>(row) * x_stride + k) : zero_pack<T>();
        }
#pragma unroll
        for (int i = 0; i < WEIGHT_PACKS; i++) {
            const int place = i * THREADS + thread;
            const int column = first_column + place / CHUNK_PACKS, k = begin + place % CHUNK_PACKS * PACK;
            const bool is_inside = column < columns && k < depth;
            next_weight[i] = is_inside ? weight.load(column, k) : Weight::none();
        }
    };

    typename SumsOf<T, ROWS, COLUMNS, STRIDE>::type sums;
    sums.clear();
    fetch(group * CHUNK);
    for (int begin = group * CHUNK; begin - group * CHUNK < depth; begin += SPLITS * CHUNK) {
#pragma unroll
        for (int i = 0; i < X_PACKS; i++) {
            const int place = i * THREADS + thread;
            store_pack(&x_chunk[place / CHUNK_PACKS][place % CHUNK_PACKS * PACK], next_x[i]);
        }
#pragma unroll
        for (int i = 0; i < WEIGHT_PACKS; i++) {
            const int place = i * THREADS + thread;
            store_pack(&weight_chunk[place / CHUNK_PACKS][place % CHUNK_PACKS * PACK],
                       Weight::finish(next_weight[i]));
        }
        __syncthreads();
        if (begin + SPLITS * CHUNK < depth) fetch(begin + SPLITS * CHUNK);
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
