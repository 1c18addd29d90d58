// IA3's scales by themselves, for a site without an epilogue.
#include "element.cuh"

// Semantics: y[r] *= scales[slots[r]]; rows with slot -1 stay.
//
// Grid: (rows, ceil(width / (packs * threads))). A thread does one pack of a row.
template <typename T>
__global__ void scale(T* y,              // [rows, width]
                      const T* scales,   // [slots, width]
                      const int* slots,  // [rows]
                      int width) {
    const int column = (blockIdx.y * blockDim.x + threadIdx.x) * Pack<T>::SIZE;
    const int slot = slots[blockIdx.x];
    if (column >= width || slot < 0) return;
    T* place = y + static_cast<long long>(blockIdx.x) * width + column;
    const Pack<T> factors = load_pack(scales + static_cast<long long>(slot) * width + column);
    Pack<T> pack = load_pack(place);
    for (int i = 0; i < Pack<T>::SIZE; i++)
        pack.values[i] = from_float<T>(to_float(pack.values[i]) * to_float(factors.values[i]));
    store_pack(place, pack);
}
