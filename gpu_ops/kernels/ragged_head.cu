// The tasks' output layers, any number of labels each, in one launch.
#include "element.cuh"

// Semantics: logits[r, l] = weights[first[s] + l] . vectors[r] + biases[first[s] + l] for the labels
// l < num_labels[s], s = slots[r]; what lies behind a row's labels, and rows with slot -1, are 0.
//
// Grid: (rows). A warp does every 4th label, its lanes share the vector.
template <typename T>
__global__ void ragged_head(float* logits,            // [rows, max_labels]
                            const T* vectors,         // [rows, hidden]
                            const T* weights,         // [labels of all slots, hidden]
                            const T* biases,          // [labels of all slots]
                            const int* first_label,   // [slots]
                            const int* num_labels,    // [slots]
                            const int* slots,         // [rows]
                            int max_labels, int hidden) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    const int slot = slots[blockIdx.x];
    const int labels = slot < 0 ? 0 : num_labels[slot];
    const T* vector = vectors + static_cast<long long>(blockIdx.x) * hidden;
    float* out = logits + static_cast<long long>(blockIdx.x) * max_labels;
    for (int label = warp; label < max_labels; label += warps) {
        float sum = 0.0f;
        if (label < labels) {
            const T* row = weights + static_cast<long long>(first_label[slot] + label) * hidden;
            for (int k = lane * Pack<T>::SIZE; k < hidden; k += 32 * Pack<T>::SIZE) {
                const Pack<T> left = load_pack(vector + k), right = load_pack(row + k);
                for (int i = 0; i < Pack<T>::SIZE; i++) sum += to_float(left.values[i]) * to_float(right.values[i]);
            }
            sum = warp_sum(sum) + to_float(biases[first_label[slot] + label]);
        }
        if (lane == 0) out[label] = sum;
    }
}
