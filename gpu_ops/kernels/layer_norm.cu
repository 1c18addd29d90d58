// The epilogue of a sub-layer's last product: bias, residual and LayerNorm in one pass.
#include "element.cuh"

// Semantics: z = x[r] + bias[r] + residual[r];
//     out[r] = (z - mean(z)) / sqrt(var(z) + eps) * gamma[r] + beta[r],
// where (bias, gamma, beta)[r] are params[slots[r]], or shared_params if the slot is -1.
// `out` may be `x` or `residual`.
//
// Grid: (ceil(rows / warps of a block)). A warp does one row. Dynamic shared memory: floats,
// warps * `width` rounded up to whole packs of a warp. Each lane reads back what it wrote itself, so
// no barrier is needed; lanes lie side by side, so that each has a bank of its own.
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
    constexpr int STEP = 32 * Pack<T>::SIZE;  // columns of a warp at once
    float* z = sums_of_block + warp * ((width + STEP - 1) / STEP * STEP) + lane;
    const int slot = slots[row];
    const T* bias = slot < 0 ? shared_params : params + static_cast<long long>(slot) * 3 * width;
    const T* gamma = bias + width;
    const T* beta = gamma + width;
    const long long start = static_cast<long long>(row) * width;

    float sum = 0.0f;
    for (int column = lane * Pack<T>::SIZE; column < width; column += STEP) {
        const Pack<T> first = load_pack(x + start + column), second = load_pack(residual + start + column);
        const Pack<T> third = load_pack(bias + column);
        for (int i = 0; i < Pack<T>::SIZE; i++) {
            const float value = to_float(first.values[i]) + to_float(third.values[i]) + to_float(second.values[i]);
            z[column / STEP * STEP + 32 * i] = value;
            sum += value;
        }
    }
    const float mean = warp_sum(sum) / width;
    float squares = 0.0f;
    for (int column = lane * Pack<T>::SIZE; column < width; column += STEP)
        for (int i = 0; i < Pack<T>::SIZE; i++) {
            const float deviation = z[column / STEP * STEP + 32 * i] - mean;
            squares += deviation * deviation;
        }
    const float factor = rsqrtf(warp_sum(squares) / width + eps);
    for (int column = lane * Pack<T>::SIZE; column < width; column += STEP) {
        const Pack<T> stretch = load_pack(gamma + column), shift = load_pack(beta + column);
        Pack<T> pack;
        for (int i = 0; i < Pack<T>::SIZE; i++)
            pack.values[i] = from_float<T>((z[column / STEP * STEP + 32 * i] - mean) * factor * to_float(stretch.values[i]) +
                                           to_float(shift.values[i]));
        store_pack(out + start + column, pack);
    }
}
