// The epilogue of a sub-layer's last product: bias, residual and LayerNorm in one pass.
#include "element.cuh"

// Semantics: z = x[r] + bias[r] + residual[r];
//     out[r] = (z - mean(z)) / sqrt(var(z) + eps) * gamma[r] + beta[r],
// where (bias, gamma, beta)[r] are params[slots[r]], or shared_params if the slot is -1.
// `out` may be `x` or `residual`.
//
// Grid: (ceil(rows / warps of a block)). A warp does one row. Dynamic shared memory: warps * width
// floats; each lane reads back what it wrote itself, so no barrier is needed.
template <typename T>
__global__ void layer_norm(T* out,                  // [rows, width]
                           const T* x,              // [rows, width]
                           const T* residual,       // [rows, width]
                           const T* shared_params,  // [3, width]: bias, gamma, beta
                           const T* params,         // [slots, 3, width]
                           const int* slots,        // [rows]
                           float eps, int rows, int width) {
    extern __shared__ float sums_of_block[];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int row = blockIdx.x * (blockDim.x / 32) + warp;
    if (row >= rows) return;  // the whole warp
    float* z = sums_of_block + warp * width;
    const int slot = slots[row];
    const T* bias = slot < 0 ? shared_params : params + static_cast<long long>(slot) * 3 * width;
    const T* gamma = bias + width;
    const T* beta = gamma + width;
    const long long start = static_cast<long long>(row) * width;

    float sum = 0.0f;
    for (int column = lane * Pack<T>::SIZE; column < width; column += 32 * Pack<T>::SIZE) {
        const Pack<T> first = load_pack(x + start + column), second = load_pack(residual + start + column);
        const Pack<T> third = load_pack(bias + column);
        for (int i = 0; i < Pack<T>::SIZE; i++) {
            const float value = to_float(first.values[i]) + to_float(third.values[i]) + to_float(second.values[i]);
            z[column + i] = value;
            sum += value;
        }
    }
    const float mean = warp_sum(sum) / width;
    float squares = 0.0f;
    for (int column = lane * Pack<T>::SIZE; column < width; column += 32 * Pack<T>::SIZE)
        for (int i = 0; i < Pack<T>::SIZE; i++) {
            const float deviation = z[column + i] - mean;
            squares += deviation * deviation;
        }
    const float factor = rsqrtf(warp_sum(squares) / width + eps);
    for (int column = lane * Pack<T>::SIZE; column < width; column += 32 * Pack<T>::SIZE) {
        const Pack<T> stretch = load_pack(gamma + column), shift = load_pack(beta + column);
        Pack<T> pack;
        for (int i = 0; i < Pack<T>::SIZE; i++)
            pack.values[i] = from_float<T>((z[column + i] - mean) * factor * to_float(stretch.values[i]) +
                                           to_float(shift.values[i]));
        store_pack(out + start + column, pack);
    }
}
