// LoRA for many tasks at once: shrink (x to the ranks), then expand (the ranks onto y).
//
// `down` is [slots, blocks * rank, num_in] and `up` [slots, num_out, rank]: the outputs fall into
// `blocks` equal blocks (query, key, value), each with ranks of its own. Tasks of smaller rank, or
// without an update of some block, have zeros there.
//
// Two ways: by rows, for few rows a task (BGMV: a gathered matrix-vector product), and by tiles of
// rows of one task that share its weight (SGMV: a segmented one), both named by Punica.
#include "tile_product.cuh"

constexpr int SMALL_ROWS = 16, LARGE_ROWS = 64;  // of a tile
constexpr int EXPAND_ROWS = 4;                   // of a thread's, as many as its registers hold
constexpr int EXPAND_OUTPUTS = 768;              // of a block's: where there are more, others shrink as well

// Semantics: inner[r] = down[slots[r]] @ x[r]. Rows with slot -1 are not written.
//
// Grid: (rows). A warp does every 4th rank, its lanes share the inputs.
template <typename T>
__global__ void low_rank_shrink_rows(T* inner,          // [rows, ranks]
                                     const T* x,        // [rows, num_in]
                                     const T* down,     // [slots, ranks, num_in]
                                     const int* slots,  // [rows]
                                     int ranks, int num_in) {
    const int slot = slots[blockIdx.x];
    if (slot < 0) return;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    const T* row = x + static_cast<long long>(blockIdx.x) * num_in;
    for (int rank = warp; rank < ranks; rank += warps) {
        const T* weights = down + (static_cast<long long>(slot) * ranks + rank) * num_in;
        float sum = 0.0f;
        for (int k = lane * Pack<T>::SIZE; k < num_in; k += 32 * Pack<T>::SIZE) {
            const Pack<T> left = load_pack(row + k), right = load_pack(weights + k);
            for (int i = 0; i < Pack<T>::SIZE; i++) sum += to_float(left.values[i]) * to_float(right.values[i]);
        }
        sum = warp_sum(sum);
        if (lane == 0) inner[static_cast<long long>(blockIdx.x) * ranks + rank] = from_float<T>(sum);
    }
}

// Semantics: y[r, o] += up[slots[r], o] . inner[r, ranks of o's block]. Rows with slot -1 stay.
//
// Grid: (rows, ceil(num_out / threads)). A thread does one output.
template <typename T>
__global__ void low_rank_expand_rows(T* y,              // [rows, num_out]
                                     const T* inner,    // [rows, blocks * rank]
                                     const T* up,       // [slots, num_out, rank]
                                     const int* slots,  // [rows]
                                     int rank, int blocks, int num_out) {
    const int slot = slots[blockIdx.x];
    const int output = blockIdx.y * blockDim.x + threadIdx.x;
    if (slot < 0 || output >= num_out) return;
    const int block = output / (num_out / blocks);
    const T* ranks = inner + (static_cast<long long>(blockIdx.x) * blocks + block) * rank;
    const T* weights = up + (static_cast<long long>(slot) * num_out + output) * rank;
    float sum = 0.0f;
    for (int k = 0; k < rank; k += Pack<T>::SIZE) {
        const Pack<T> left = load_pack(ranks + k), right = load_pack(weights + k);
        for (int i = 0; i < Pack<T>::SIZE; i++) sum += to_float(left.values[i]) * to_float(right.values[i]);
    }
    T* place = y + static_cast<long long>(blockIdx.x) * num_out + output;
    *place = from_float<T>(to_float(*place) + sum);
}

// Both by small tiles at once: a block shrinks to the ranks of its outputs, which stay with it.
//
// Grid: (tiles, blocks, ceil(outputs / EXPAND_OUTPUTS)). Dynamic shared memory: SMALL_ROWS * rank
// elements.
template <typename T>
__global__ void __launch_bounds__(DeepShape<SMALL_ROWS>::THREADS, DeepShape<SMALL_ROWS>::BLOCKS)
    low_rank_small_tiles(T* y,              // [rows, blocks * outputs]
                         const T* x,        // [rows, num_in]
                         const T* down,     // [slots, blocks * rank, num_in]
                         const T* up,       // [slots, blocks * outputs, rank]
                         const int* tiles,  // [tiles, 3]: slot, first row, rows
                         int rank, int blocks, int outputs, int num_in) {
    using Shape = DeepShape<SMALL_ROWS>;
    constexpr int PACK = Pack<T>::SIZE;
    extern __shared__ __align__(16) unsigned char shared_bytes[];
    T* inner = reinterpret_cast<T*>(shared_bytes);  // [SMALL_ROWS, rank]
    const Tile tile = read_tile(tiles, blockIdx.x);
    if (tile.slot < 0) return;
    const long long own_block = static_cast<long long>(tile.slot) * blocks + blockIdx.y;
    const T* down_weights = down + own_block * rank * num_in;
    for (int first_rank = 0; first_rank < rank; first_rank += Shape::COLUMNS) {
        tile_product<T, SMALL_ROWS, Shape::COLUMNS, Shape::SPLITS>(
            x + static_cast<long long>(tile.first_row) * num_in, num_in, tile.num_rows, first_rank, rank, num_in,
            PlainWeight<T>{down_weights},
            [&](int row, int column, const float* sums) {
                Pack<T> pack;
                for (int i = 0; i < PACK; i++) pack.values[i] = from_float<T>(sums[i]);
                store_pack(inner + row * rank + column, pack);
            });
        __syncthreads();
    }

    // A thread has a pack of outputs in some rows, and reads their weights once.
    const int first_output = blockIdx.z * EXPAND_OUTPUTS, left = outputs - first_output;
    const int num_out = blocks * outputs, packs = (left < EXPAND_OUTPUTS ? left : EXPAND_OUTPUTS) / PACK;
    const T* up_weights = up + (own_block * outputs + first_output) * rank;
    T* y_tile = y + static_cast<long long>(tile.first_row) * num_out + blockIdx.y * outputs + first_output;
    const int parts = (tile.num_rows + EXPAND_ROWS - 1) / EXPAND_ROWS;
    for (int i = threadIdx.x; i < packs * parts; i += Shape::THREADS) {
        const int column = i % packs * PACK, first_row = i / packs * EXPAND_ROWS;
        const int num_rows = tile.num_rows - first_row;
        T* place = y_tile + static_cast<long long>(first_row) * num_out + column;
        float sums[EXPAND_ROWS][PACK];  // on top of what is there
#pragma unroll
        for (int row = 0; row < EXPAND_ROWS; row++) {
            const long long offset = static_cast<long long>(row) * num_out;
            const Pack<T> old = row < num_rows ? load_pack(place + offset) : zero_pack<T>();
#pragma unroll
            for (int j = 0; j < PACK; j++) sums[row][j] = to_float(old.values[j]);
        }
        for (int k = 0; k < rank; k += PACK) {
            Pack<T> ranks[EXPAND_ROWS];
#pragma unroll
            for (int row = 0; row < EXPAND_ROWS; row++)  // those behind the tile's are not stored
                ranks[row] = load_pack(inner + (first_row + row) * rank + k);
#pragma unroll
            for (int j = 0; j < PACK; j++) {
                const Pack<T> weights = load_pack(up_weights + static_cast<long long>(column + j) * rank + k);
#pragma unroll
                for (int row = 0; row < EXPAND_ROWS; row++)
#pragma unroll
                    for (int e = 0; e < PACK; e++)
                        sums[row][j] += to_float(ranks[row].values[e]) * to_float(weights.values[e]);
            }
        }
#pragma unroll
        for (int row = 0; row < EXPAND_ROWS; row++) {
            if (row >= num_rows) break;
            Pack<T> pack;
#pragma unroll
            for (int j = 0; j < PACK; j++) pack.values[j] = from_float<T>(sums[row][j]);
            store_pack(place + static_cast<long long>(row) * num_out, pack);
        }
    }
}

// The same as low_rank_shrink_rows, by large tiles. Grid: (tiles, ceil(ranks / COLUMNS)).
template <typename T>
__global__ void __launch_bounds__(DeepShape<LARGE_ROWS>::THREADS, DeepShape<LARGE_ROWS>::BLOCKS)
    low_rank_shrink_tiles(T* inner,          // [rows, ranks]
                          const T* x,        // [rows, num_in]
                          const T* down,     // [slots, ranks, num_in]
                          const int* tiles,  // [tiles, 3]: slot, first row, rows
                          int ranks, int num_in) {
    using Shape = DeepShape<LARGE_ROWS>;
    const Tile tile = read_tile(tiles, blockIdx.x);
    if (tile.slot < 0) return;
    const T* weights = down + static_cast<long long>(tile.slot) * ranks * num_in;
    tile_product<T, LARGE_ROWS, Shape::COLUMNS, Shape::SPLITS>(
        x + static_cast<long long>(tile.first_row) * num_in, num_in, tile.num_rows, blockIdx.y * Shape::COLUMNS, ranks,
        num_in, PlainWeight<T>{weights},
        [&](int row, int column, const float* sums) {
            Pack<T> pack;
            for (int i = 0; i < Pack<T>::SIZE; i++) pack.values[i] = from_float<T>(sums[i]);
            store_pack(inner + static_cast<long long>(tile.first_row + row) * ranks + column, pack);
        });
}

// The same as low_rank_expand_rows, by large tiles. Grid: (tiles, ceil(outputs / TILE_COLUMNS), blocks).
template <typename T>
__global__ void __launch_bounds__(ShallowShape<LARGE_ROWS>::THREADS, ShallowShape<LARGE_ROWS>::BLOCKS)
    low_rank_expand_tiles(T* y,              // [rows, blocks * outputs]
                          const T* inner,    // [rows, blocks * rank]
                          const T* up,       // [slots, blocks * outputs, rank]
                          const int* tiles,  // [tiles, 3]: slot, first row, rows
                          int rank, int blocks, int outputs) {
    const Tile tile = read_tile(tiles, blockIdx.x);
    if (tile.slot < 0) return;
    const int num_out = blocks * outputs, block = blockIdx.z;
    const T* weights = up + (static_cast<long long>(tile.slot) * num_out + block * outputs) * rank;
    const T* ranks = inner + (static_cast<long long>(tile.first_row) * blocks + block) * rank;
    T* y_tile = y + static_cast<long long>(tile.first_row) * num_out + block * outputs;
    tile_product<T, LARGE_ROWS, TILE_COLUMNS, 1>(
        ranks, blocks * rank, tile.num_rows, blockIdx.y * TILE_COLUMNS, outputs, rank,
        PlainWeight<T>{weights},
        [&](int row, int column, const float* sums) {
            T* place = y_tile + static_cast<long long>(row) * num_out + column;
            Pack<T> pack = load_pack(place);
            for (int i = 0; i < Pack<T>::SIZE; i++) pack.values[i] = from_float<T>(to_float(pack.values[i]) + sums[i]);
            store_pack(place, pack);
        });
}
