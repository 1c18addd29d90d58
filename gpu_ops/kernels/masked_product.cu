// MaskBERT for many tasks at once: the shared weight, with each task's dropped weights left out.
#include "tile_product.cuh"

// A pack of the weight and the byte of bits that covers it, of which a pack of floats has half.
template <typename T>
struct MaskedWeight {
    struct Raw {
        Pack<T> pack;
        unsigned bits;
    };
    const T* weight;            // [columns, depth]
    const unsigned char* kept;  // [columns, depth / 8]
    int depth;

    static __device__ Raw none() { return Raw{zero_pack<T>(), 0u}; }
    __device__ Raw load(int column, int k) const {
        const unsigned byte = kept[static_cast<long long>(column) * (depth / 8) + k / 8];
        return Raw{load_pack(weight + static_cast<long long>(column) * depth + k), byte >> k % 8};
    }
    static __device__ Pack<T> finish(const Raw& raw) {
        // Four bytes at a time: one float, or two elements of two bytes.
        constexpr int IN_WORD = 4 / sizeof(T);
        unsigned words[4];
        memcpy(words, &raw.pack, sizeof(words));
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const unsigned first = 0u - (raw.bits >> i * IN_WORD & 1u);  // all bits, or none
            const unsigned last = 0u - (raw.bits >> (i * IN_WORD + IN_WORD - 1) & 1u);
            words[i] &= (first & 0x0000ffffu) | (last & 0xffff0000u);
        }
        Pack<T> pack;
        memcpy(&pack, words, sizeof(words));
        return pack;
    }
};

// Many rows of a task read each part of the weight once for twice as many columns: the L2 cache is
// what bounds them.
template <int ROWS>
struct MaskShape : TileShape<ROWS == 64 ? 128 : TILE_COLUMNS, DeepShape<ROWS>::SPLITS> {
    static constexpr int BLOCKS = ROWS == 64 ? 2 : 1;
};

// Semantics: y[r] = (weight * kept[s]) @ x[r], s the slot of r's tile. Rows in no tile are not
// written. Bit k % 8 of kept[s, o, k / 8] tells whether weight[o, k] is kept.
//
// The weight is shared by all tasks, so the L2 cache holds it. Grid: (tiles, ceil(num_out / COLUMNS)).
template <typename T, int ROWS>
__global__ void __launch_bounds__(MaskShape<ROWS>::THREADS, MaskShape<ROWS>::BLOCKS)
    masked_product(T* y,                       // [rows, num_out]
                   const T* x,                 // [rows, num_in]
                   const T* weight,            // [num_out, num_in]
                   const unsigned char* kept,  // [slots, num_out, num_in / 8]
                   const int* tiles,           // [tiles, 3]: slot, first row, rows
                   int num_out, int num_in) {
    const Tile tile = read_tile(tiles, blockIdx.x);
    if (tile.slot < 0) return;
    const unsigned char* bits = kept + static_cast<long long>(tile.slot) * num_out * (num_in / 8);
    tile_product<T, ROWS, MaskShape<ROWS>::COLUMNS, MaskShape<ROWS>::SPLITS>(
        x + static_cast<long long>(tile.first_row) * num_in, num_in, tile.num_rows, blockIdx.y * MaskShape<ROWS>::COLUMNS,
        num_out, num_in,
        MaskedWeight<T>{weight, bits, num_in},
        [&](int row, int column, const float* sums) {
            Pack<T> pack;
            for (int i = 0; i < Pack<T>::SIZE; i++) pack.values[i] = from_float<T>(sums[i]);
            store_pack(y + static_cast<long long>(tile.first_row + row) * num_out + column, pack);
        });
}
