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
constexpr int TILE_THREADS = 128;
constexpr int TILE_BLOCKS = 3;  // at once on a multiprocessor, at least: so up to 168 registers a thread

// Multiplies by FMAs, of any type. A thread has every 8th row and every 16th column.
template <typename T, int ROWS, int STRIDE>
struct PlainSums {
    float sums[ROWS / 8][TILE_COLUMNS / 16];

    __device__ void clear() {
        for (auto& row : sums)
            for (float& sum : row) sum = 0.0f;
    }

    __device__ void add(const T (*x)[STRIDE], const T (*weight)[STRIDE], int chunk) {
        const int row0 = threadIdx.x / 16, column0 = threadIdx.x % 16;
#pragma unroll 1  // or it takes more registers than there are
        for (int k = 0; k < chunk; k += Pack<T>::SIZE) {
            Pack<T> right[TILE_COLUMNS / 16];
#pragma unroll
            for (int j = 0; j < TILE_COLUMNS / 16; j++) right[j] = load_pack(&weight[column0 + 16 * j][k]);
#pragma unroll
            for (int i = 0; i < ROWS / 8; i++) {
                const Pack<T> left = load_pack(&x[row0 + 8 * i][k]);
#pragma unroll
                for (int j = 0; j < TILE_COLUMNS / 16; j++)
#pragma unroll
                    for (int e = 0; e < Pack<T>::SIZE; e++)
                        sums[i][j] += to_float(left.values[e]) * to_float(right[j].values[e]);
            }
        }
    }

    __device__ void store(float (*out)[TILE_COLUMNS + 4]) {
        const int row0 = threadIdx.x / 16, column0 = threadIdx.x % 16;
        for (int i = 0; i < ROWS / 8; i++)
            for (int j = 0; j < TILE_COLUMNS / 16; j++) out[row0 + 8 * i][column0 + 16 * j] = sums[i][j];
    }
};

// Multiplies by tensor cores. A warp has a square of fragments.
template <typename T, int ROWS, int STRIDE>
struct TensorCoreSums {
    static constexpr int SIDE = ROWS == 64 ? 2 : 1;
    static constexpr int WARPS_ACROSS = TILE_COLUMNS / (16 * SIDE);
    nvcuda::wmma::fragment<nvcuda::wmma::accumulator, 16, 16, 16, float> sums[SIDE][SIDE];

    static __device__ int first_row() { return threadIdx.x / 32 / WARPS_ACROSS * 16 * SIDE; }
    static __device__ int first_column() { return threadIdx.x / 32 % WARPS_ACROSS * 16 * SIDE; }

    __device__ void clear() {
        for (auto& row : sums)
            for (auto& sum : row) nvcuda::wmma::fill_fragment(sum, 0.0f);
    }

    __device__ void add(const T (*x)[STRIDE], const T (*weight)[STRIDE], int chunk) {
#pragma unroll 2
        for (int k = 0; k < chunk; k += 16) {
            nvcuda::wmma::fragment<nvcuda::wmma::matrix_b, 16, 16, 16, T, nvcuda::wmma::col_major> right[SIDE];
#pragma unroll
            for (int j = 0; j < SIDE; j++)
                nvcuda::wmma::load_matrix_sync(right[j], &weight[first_column() + 16 * j][k], STRIDE);
#pragma unroll
            for (int i = 0; i < SIDE; i++) {
                nvcuda::wmma::fragment<nvcuda::wmma::matrix_a, 16, 16, 16, T, nvcuda::wmma::row_major> left;
                nvcuda::wmma::load_matrix_sync(left, &x[first_row() + 16 * i][k], STRIDE);
#pragma unroll
                for (int j = 0; j < SIDE; j++) nvcuda::wmma::mma_sync(sums[i][j], left, right[j], sums[i][j]);
            }
        }
    }

    __device__ void store(float (*out)[TILE_COLUMNS + 4]) {
        for (int i = 0; i < SIDE; i++)
            for (int j = 0; j < SIDE; j++)
                nvcuda::wmma::store_matrix_sync(&out[first_row() + 16 * i][first_column() + 16 * j], sums[i][j],
                                                TILE_COLUMNS + 4, nvcuda::wmma::mem_row_major);
    }
};

// Tensor cores would round the products of floats to ten bits.
template <typename T, int ROWS, int STRIDE>
struct SumsOf {
    using type = TensorCoreSums<T, ROWS, STRIDE>;
};
template <int ROWS, int STRIDE>
struct SumsOf<float, ROWS, STRIDE> {
    using type = PlainSums<float, ROWS, STRIDE>;
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
// All TILE_THREADS threads of the block must call it.
template <typename T, int ROWS, typename Weight, typename Take>
__device__ void tile_product(const T* x, int x_stride, int num_rows, int first_column, int columns, int depth,
                             Weight weight, Take take) {
    constexpr int PACK = Pack<T>::SIZE;
    constexpr int CHUNK_PACKS = ROWS == 64 ? 8 : 16;    // of a row: what a thread can hold in registers
    constexpr int CHUNK = CHUNK_PACKS * PACK;
    constexpr int STRIDE = CHUNK + PACK;  // an odd number of packs: eight threads' fall into all banks
    constexpr int X_PACKS = ROWS * CHUNK_PACKS / TILE_THREADS;
    constexpr int WEIGHT_PACKS = TILE_COLUMNS * CHUNK_PACKS / TILE_THREADS;
    constexpr int CHUNK_BYTES = (ROWS + TILE_COLUMNS) * STRIDE * sizeof(T);
    constexpr int OUT_BYTES = ROWS * (TILE_COLUMNS + 4) * sizeof(float);
    __shared__ __align__(32) unsigned char storage[CHUNK_BYTES > OUT_BYTES ? CHUNK_BYTES : OUT_BYTES];
    const auto x_chunk = reinterpret_cast<T(*)[STRIDE]>(storage);
    const auto weight_chunk = x_chunk + ROWS;
    const auto out = reinterpret_cast<float(*)[TILE_COLUMNS + 4]>(storage);  // when the chunks are done

    Pack<T> next_x[X_PACKS];
    typename Weight::Raw next_weight[WEIGHT_PACKS];
    const auto fetch = [&](int begin) {
#pragma unroll
        for (int i = 0; i < X_PACKS; i++) {
            const int place = i * TILE_THREADS + threadIdx.x;
            const int row = place / CHUNK_PACKS, k = begin + place % CHUNK_PACKS * PACK;
            const bool is_inside = row < num_rows && k < depth;
            next_x[i] = is_inside ? load_pack(x + static_cast<long long>(row) * x_stride + k) : zero_pack<T>();
        }
#pragma unroll
        for (int i = 0; i < WEIGHT_PACKS; i++) {
            const int place = i * TILE_THREADS + threadIdx.x;
            const int column = first_column + place / CHUNK_PACKS, k = begin + place % CHUNK_PACKS * PACK;
            const bool is_inside = column < columns && k < depth;
            next_weight[i] = is_inside ? weight.load(column, k) : Weight::none();
        }
    };

    typename SumsOf<T, ROWS, STRIDE>::type sums;
    sums.clear();
    fetch(0);
    for (int begin = 0; begin < depth; begin += CHUNK) {
#pragma unroll
        for (int i = 0; i < X_PACKS; i++) {
            const int place = i * TILE_THREADS + threadIdx.x;
            store_pack(&x_chunk[place / CHUNK_PACKS][place % CHUNK_PACKS * PACK], next_x[i]);
        }
#pragma unroll
        for (int i = 0; i < WEIGHT_PACKS; i++) {
            const int place = i * TILE_THREADS + threadIdx.x;
            store_pack(&weight_chunk[place / CHUNK_PACKS][place % CHUNK_PACKS * PACK],
                       Weight::finish(next_weight[i]));
        }
        __syncthreads();
        if (begin + CHUNK < depth) fetch(begin + CHUNK);
        const int left = depth - begin;
        sums.add(x_chunk, weight_chunk, left < CHUNK ? left : CHUNK);  // behind `left` there are zeros
        __syncthreads();
    }
    sums.store(out);
    __syncthreads();
    for (int i = threadIdx.x; i < ROWS * (TILE_COLUMNS / PACK); i += TILE_THREADS) {
        const int row = i / (TILE_COLUMNS / PACK), column = i % (TILE_COLUMNS / PACK) * PACK;
        if (row < num_rows && first_column + column < columns) take(row, first_column + column, &out[row][column]);
    }
}
