// MaskBERT for many tasks at once: the shared weight, with each task's dropped weights left out.
#include "tile_product.cuh"

// Returns the values of a pack whose bits are set, and zeros for the others.
template <typename T>
__device__ uint4 mask_bytes(const uint4& bytes, unsigned bits) {
    unsigned words[4] = {bytes.x, bytes.y, bytes.z, bytes.w};
    // Of a word of two elements, the second one's bit comes 16 above the first one's.
    const unsigned spread = sizeof(T) == 4 ? bits : bits | bits << 15;
#pragma unroll
    for (int i = 0; i < 4; i++)
        words[i] &= sizeof(T) == 4 ? 0u - (spread >> i & 1u) : (spread >> 2 * i & 0x00010001u) * 0xffffu;
    return make_uint4(words[0], words[1], words[2], words[3]);
}

// A pack of the weight and the byte of bits that covers it, of which a pack of floats has half.
template <typename T>
struct MaskedWeight {
    struct Raw {
        uint4 bytes;
        unsigned bits;
    };
    const T* weight;            // [columns, depth], fewer than 2^31 elements
    const unsigned char* kept;  // [columns, depth / 8]

    static __device__ Raw none() { return Raw{ZERO_BYTES, 0u}; }
    __device__ Raw load(unsigned element) const {
        const unsigned byte = kept[element / 8];
        return Raw{load_bytes(weight + element), sizeof(T) == 4 ? byte >> element % 8 : byte};
    }
    static __device__ uint4 finish(const Raw& raw) { return mask_bytes<T>(raw.bytes, raw.bits); }
};

// Few rows are few tiles: their blocks have more threads, which share out the depth.
template <int ROWS>
struct MaskShape : TileShape<TILE_COLUMNS, ROWS == 16 ? 4 : 1> {
    static constexpr int BLOCKS = ROWS == 16 ? 1 : 4;  // at once on a multiprocessor
};

// Semantics: y[r] = (weight * kept[s]) @ x[r], s the slot of r's tile. Rows in no tile are not
// written. Bit k % 8 of kept[s, o, k / 8] tells whether weight[o, k] is kept.
//
// The weight is shared by all tasks, so the L2 cache holds it. Grid: (tiles, ceil(num_out / TILE_COLUMNS)).
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
    tile_product<T, ROWS, TILE_COLUMNS, MaskShape<ROWS>::SPLITS>(
        x + static_cast<long long>(tile.first_row) * num_in, num_in, tile.num_rows, blockIdx.y * TILE_COLUMNS, num_out,
        num_in, MaskedWeight<T>{weight, bits},
        [&](int row, int column, const float* sums) {
            Pack<T> pack;
            for (int i = 0; i < Pack<T>::SIZE; i++) pack.values[i] = from_float<T>(sums[i]);
            store_pack(y + static_cast<long long>(tile.first_row + row) * num_out + column, pack);
        });
}
