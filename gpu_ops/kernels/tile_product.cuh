// A tile of rows, all of one task, times that task's weight: what every dense operator is made of.
//
//            depth                     depth                   COLUMNS
//        +----------+              +-----------+            +-----------+
//   ROWS | x        |     COLUMNS  | weight    |   =>  ROWS | sums      |   => take(row, column, ...)
//        +----------+              |           |            +-----------+
//          by chunks of CHUNK      +-----------+               in fp32
#pragma once
#include "element.cuh"
#include "tile.cuh"
#include <mma.h>

constexpr int TILE_COLUMNS = 64;
constexpr int TILE_THREADS = 128;
constexpr int TILE_BLOCKS = 4;  // at once on a multiprocessor, at least: so up to 128 registers a thread

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

// Multiplies by tensor cores. A warp has all rows of 16 columns.
template <typename T, int ROWS, int STRIDE>
struct TensorCoreSums {
    nvcuda::wmma::fragment<nvcuda::wmma::accumulator, 16, 16, 16, float> sums[ROWS / 16];

    __device__ void clear() {
        for (auto& sum : sums) nvcuda::wmma::fill_fragment(sum, 0.0f);
    }

    __device__ void add(const T (*x)[STRIDE], const T (*weight)[STRIDE], int chunk) {
        const int column0 = threadIdx.x / 32 * 16;
        for (int k = 0; k < chunk; k += 16) {
            nvcuda::wmma::fragment<nvcuda::wmma::matrix_b, 16, 16, 16, T, nvcuda::wmma::col_major> right;
            nvcuda::wmma::load_matrix_sync(right, &weight[column0][k], STRIDE);
#pragma unroll
            for (int i = 0; i < ROWS / 16; i++) {
                nvcuda::wmma::fragment<nvcuda::wmma::matrix_a, 16, 16, 16, T, nvcuda::wmma::row_major> left;
                nvcuda::wmma::load_matrix_sync(left, &x[16 * i][k], STRIDE);
                nvcuda::wmma::mma_sync(sums[i], left, right, sums[i]);
            }
        }
    }

    __device__ void store(float (*out)[TILE_COLUMNS + 4]) {
        const int column0 = threadIdx.x / 32 * 16;
        for (int i = 0; i < ROWS / 16; i++)
            nvcuda::wmma::store_matrix_sync(&out[16 * i][column0], sums[i], TILE_COLUMNS + 4,
                                            nvcuda::wmma::mem_row_major);
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

// Semantics: sums[r, c] = sum over k < depth of x[r, k] * weight(c, k), for r < num_rows and the
// columns c of this block; then take(r, c, values) for each pack of columns below `columns`.
//
//   x            the tile's first row; rows lie `x_stride` elements apart
//   depth        a multiple of a pack, as are x_stride and columns
//   load_weight  (column, k) -> Pack<T> of weight[column, k ...]
//   take         (row, column, const float* of a pack's sums)
//
// All TILE_THREADS threads of the block must call it.
template <typename T, int ROWS, typename LoadWeight, typename Take>
__device__ void tile_product(const T* x, int x_stride, int num_rows, int first_column, int columns, int depth,
                             LoadWeight load_weight, Take take) {
    constexpr int PACK = Pack<T>::SIZE;
    constexpr int CHUNK = 8 * PACK;        // 128 bytes of a row
    constexpr int STRIDE = CHUNK + PACK;   // 144 bytes: eight threads' packs fall into all 32 banks
    __shared__ __align__(32) T x_chunk[ROWS][STRIDE];
    __shared__ __align__(32) T weight_chunk[TILE_COLUMNS][STRIDE];
    __shared__ __align__(32) float out[ROWS][TILE_COLUMNS + 4];
    typename SumsOf<T, ROWS, STRIDE>::type sums;
    sums.clear();
    for (int begin = 0; begin < depth; begin += CHUNK) {
        for (int i = threadIdx.x; i < ROWS * 8; i += TILE_THREADS) {
            const int row = i / 8, k = begin + i % 8 * PACK;
            const bool is_inside = row < num_rows && k < depth;
            store_pack(&x_chunk[row][k - begin],
                       is_inside ? load_pack(x + static_cast<long long>(row) * x_stride + k) : zero_pack<T>());
        }
        for (int i = threadIdx.x; i < TILE_COLUMNS * 8; i += TILE_THREADS) {
            const int column = i / 8, k = begin + i % 8 * PACK;
            const bool is_inside = first_column + column < columns && k < depth;
            store_pack(&weight_chunk[column][k - begin],
                       is_inside ? load_weight(first_column + column, k) : zero_pack<T>());
        }
        __syncthreads();
        sums.add(x_chunk, weight_chunk, CHUNK);
        __syncthreads();
    }
    sums.store(out);
    __syncthreads();
    for (int i = threadIdx.x; i < ROWS * (TILE_COLUMNS / PACK); i += TILE_THREADS) {
        const int row = i / (TILE_COLUMNS / PACK), column = i % (TILE_COLUMNS / PACK) * PACK;
        if (row < num_rows && first_column + column < columns) take(row, first_column + column, &out[row][column]);
    }
}
