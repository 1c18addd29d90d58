// The epilogue of a shared product: one read and one write for bias, activation and scale.
#include "element.cuh"

// Semantics: y[r] = act(y[r] + bias[r]) * scale[r], where bias[r] is biases[bias_slots[r]], or
// shared_bias if the slot is -1, and scale[r] is scales[scale_slots[r]], or 1.
//
// Grid: (rows, ceil(width / (packs * threads))). A thread does one pack of a row.
template <typename T, bool GELU, bool SCALED>
__global__ void bias_gelu(T* y,                  // [rows, width]
                          const T* shared_bias,  // [width]
                          const T* biases,       // [slots, width]
                          const int* bias_slots,   // [rows]
                          const T* scales,       // [slots, width], null unless SCALED
                          const int* scale_slots,  // [rows], null unless SCALED
                          int width) {
    const int column = (blockIdx.y * blockDim.x + threadIdx.x) * Pack<T>::SIZE;
    if (column >= width) return;
    const int bias_slot = bias_slots[blockIdx.x];
    const T* bias = bias_slot < 0 ? shared_bias : biases + static_cast<long long>(bias_slot) * width;
    T* place = y + static_cast<long long>(blockIdx.x) * width + column;
    const Pack<T> added = load_pack(bias + column);
    Pack<T> pack = load_pack(place);
    float values[Pack<T>::SIZE];
    for (int i = 0; i < Pack<T>::SIZE; i++) {
        values[i] = to_float(pack.values[i]) + to_float(added.values[i]);
        if (GELU) values[i] = gelu(values[i]);
    }
    if (SCALED) {
        const int scale_slot = scale_slots[blockIdx.x];
        if (scale_slot >= 0) {
            const Pack<T> scale = load_pack(scales + static_cast<long long>(scale_slot) * width + column);
            for (int i = 0; i < Pack<T>::SIZE; i++) values[i] *= to_float(scale.values[i]);
        }
    }
    for (int i = 0; i < Pack<T>::SIZE; i++) pack.values[i] = from_float<T>(values[i]);
    store_pack(place, pack);
}
