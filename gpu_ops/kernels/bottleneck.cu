// Bottleneck adapters for many tasks at once: down with its activation, then up onto h.
#include "tile_product.cuh"

// Semantics: inner[r] = act(down[s] @ h[r] + down_bias[s]), s the slot of r's tile; act is GELU, or
// ReLU where is_relu[s]. Grid: (tiles, ceil(bottleneck / COLUMNS)).
template <typename T, int ROWS>
__global__ void __launch_bounds__(DeepShape<ROWS>::THREADS, DeepShape<ROWS>::BLOCKS)
    bottleneck_down(T* inner,             // [rows, bottleneck]
                    const T* h,           // [rows, hidden]
                    const T* down,        // [slots, bottleneck, hidden]
                    const T* down_bias,   // [slots, bottleneck]
                    const int* is_relu,   // [slots]
                    const int* tiles,     // [tiles, 3]: slot, first row, rows
                    int bottleneck, int hidden) {
    const Tile tile = read_tile(tiles, blockIdx.x);
    if (tile.slot < 0) return;
    const T* weights = down + static_cast<long long>(tile.slot) * bottleneck * hidden;
    const T* bias = down_bias + static_cast<long long>(tile.slot) * bottleneck;
    const bool relu = is_relu[tile.slot] != 0;
    using Shape = DeepShape<ROWS>;
    tile_product<T, ROWS, Shape::COLUMNS, Shape::SPLITS>(
        h + static_cast<long long>(tile.first_row) * hidden, hidden, tile.num_rows, blockIdx.y * Shape::COLUMNS,
        bottleneck, hidden,
        PlainWeight<T>{weights},
        [&](int row, int column, const float* sums) {
            const Pack<T> added = load_pack(bias + column);
            Pack<T> pack;
            for (int i = 0; i < Pack<T>::SIZE; i++) {
                const float value = sums[i] + to_float(added.values[i]);
                pack.values[i] = from_float<T>(relu ? fmaxf(value, 0.0f) : gelu(value));
            }
            store_pack(inner + static_cast<long long>(tile.first_row + row) * bottleneck + column, pack);
        });
}

// Semantics: h[r] += up[s] @ inner[r] + up_bias[s]. Grid: (tiles, ceil(hidden / TILE_COLUMNS)).
template <typename T, int ROWS>
__global__ void __launch_bounds__(ShallowShape<ROWS>::THREADS, ShallowShape<ROWS>::BLOCKS)
    bottleneck_up(T* h,               // [rows, hidden]
                  const T* inner,     // [rows, bottleneck]
                  const T* up,        // [slots, hidden, bottleneck]
                  const T* up_bias,   // [slots, hidden]
                  const int* tiles,   // [tiles, 3]: slot, first row, rows
                  int bottleneck, int hidden) {
    const Tile tile = read_tile(tiles, blockIdx.x);
    if (tile.slot < 0) return;
    const T* weights = up + static_cast<long long>(tile.slot) * hidden * bottleneck;
    const T* bias = up_bias + static_cast<long long>(tile.slot) * hidden;
    tile_product<T, ROWS, TILE_COLUMNS, 1>(
        inner + static_cast<long long>(tile.first_row) * bottleneck, bottleneck, tile.num_rows,
        blockIdx.y * TILE_COLUMNS, hidden, bottleneck,
        PlainWeight<T>{weights},
        [&](int row, int column, const float* sums) {
            T* place = h + static_cast<long long>(tile.first_row + row) * hidden + column;
            const Pack<T> added = load_pack(bias + column);
            Pack<T> pack = load_pack(place);
            for (int i = 0; i < Pack<T>::SIZE; i++)
                pack.values[i] = from_float<T>(to_float(pack.values[i]) + sums[i] + to_float(added.values[i]));
            store_pack(place, pack);
        });
}
