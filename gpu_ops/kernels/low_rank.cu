// LoRA for many tasks at once: shrink (x to the ranks), then expand (the ranks onto y).
//
// `down` is [slots, blocks * rank, num_in] and `up` [slots, num_out, rank]: the outputs fall into
// `blocks` equal blocks (query, key, value), each with ranks of its own. Tasks of smaller rank, or
// without an update of some block, have zeros there.
//
// Two ways: by rows, for few rows a task (BGMV: a gathered matrix-vector product), and by tiles of
// rows of one task that share its weight (SGMV: a segmented one), both named by Punica.
#include "tile_product.cuh"

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

// The same as low_rank_shrink_rows, by tiles. Grid: (tiles, ceil(ranks / TILE_COLUMNS)).
template <typename T, int ROWS>
__global__ void __launch_bounds__(DeepShape<ROWS>::THREADS, DeepShape<ROWS>::BLOCKS)
    low_rank_shrink_tiles(T* inner,          // [rows, ranks]
                          const T* x,        // [rows, num_in]
                          const T* down,     // [slots, ranks, num_in]
                          const int* tiles,  // [tiles, 3]: slot, first row, rows
                          int ranks, int num_in) {
    const Tile tile = read_tile(tiles, blockIdx.x);
    if (tile.slot < 0) return;
    const T* weights = down + static_cast<long long>(tile.slot) * ranks * num_in;
    tile_product<T, ROWS, TILE_COLUMNS, DeepShape<ROWS>::SPLITS>(
        x + static_cast<long long>(tile.first_row) * num_in, num_in, tile.num_rows, blockIdx.y * TILE_COLUMNS, ranks,
        num_in, PlainWeight<T>{weights, num_in},
        [&](int row, int column, const float* sums) {
            Pack<T> pack;
            for (int i = 0; i < Pack<T>::SIZE; i++) pack.values[i] = from_float<T>(sums[i]);
            store_pack(inner + static_cast<long long>(tile.first_row + row) * ranks + column, pack);
        });
}

// The same as low_rank_expand_rows, by tiles. Grid: (tiles, ceil(outputs / TILE_COLUMNS), blocks).
template <typename T, int ROWS>
__global__ void __launch_bounds__(TileShape<TILE_COLUMNS, 1>::THREADS, TILE_BLOCKS)
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
    tile_product<T, ROWS, TILE_COLUMNS, 1>(
        ranks, blocks * rank, tile.num_rows, blockIdx.y * TILE_COLUMNS, outputs, rank,
        PlainWeight<T>{weights, rank},
        [&](int row, int column, const float* sums) {
            T* place = y_tile + static_cast<long long>(row) * num_out + column;
            Pack<T> pack = load_pack(place);
            for (int i = 0; i < Pack<T>::SIZE; i++) pack.values[i] = from_float<T>(to_float(pack.values[i]) + sums[i]);
            store_pack(place, pack);
        });
}
