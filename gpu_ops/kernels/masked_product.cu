// MaskBERT for many tasks at once: the shared weight, with each task's dropped weights left out.
#include "tile_product.cuh"

// Semantics: y[r] = (weight * kept[s]) @ x[r], s the slot of r's tile. Rows in no tile are not
// written. Bit k % 8 of kept[s, o, k / 8] tells whether weight[o, k] is kept.
//
// A thread loads a pack of the weight, which all tasks share and the L2 cache holds, and the bits
// for it. Grid: (tiles, ceil(num_out / TILE_COLUMNS)).
template <typename T, int ROWS>
__global__ void __launch_bounds__(TILE_THREADS, TILE_BLOCKS)
    masked_product(T* y,                       // [rows, num_out]
                   const T* x,                 // [rows, num_in]
                   const T* weight,            // [num_out, num_in]
                   const unsigned char* kept,  // [slots, num_out, num_in / 8]
                   const int* tiles,           // [tiles, 3]: slot, first row, rows
                   int num_out, int num_in) {
    const Tile tile = read_tile(tiles, blockIdx.x);
    if (tile.slot < 0) return;
    const unsigned char* bits = kept + static_cast<long long>(tile.slot) * num_out * (num_in / 8);
    tile_product<T, ROWS>(
        x + static_cast<long long>(tile.first_row) * num_in, num_in, tile.num_rows, blockIdx.y * TILE_COLUMNS,
        num_out, num_in,
        [&](int column, int k) {
            const unsigned byte = bits[static_cast<long long>(column) * (num_in / 8) + k / 8] >> k % 8;
            Pack<T> pack = load_pack(weight + static_cast<long long>(column) * num_in + k);
            for (int i = 0; i < Pack<T>::SIZE; i++)
                if (!(byte >> i & 1)) pack.values[i] = from_float<T>(0.0f);
            return pack;
        },
        [&](int row, int column, const float* sums) {
            Pack<T> pack;
            for (int i = 0; i < Pack<T>::SIZE; i++) pack.values[i] = from_float<T>(sums[i]);
            store_pack(y + static_cast<long long>(tile.first_row + row) * num_out + column, pack);
        });
}
