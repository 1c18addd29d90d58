// Residual and LayerNorm in one pass, with the gamma and beta of each row's task.
#include "vector.h"

namespace {

struct Norm {
    const float *gamma, *beta;  // [width]
};

constexpr int SUMS = 4;  // side by side: an addition takes as many cycles as a processor begins others in

INLINE float total(const Floats (&sums)[SUMS]) { return sum_of((sums[0] + sums[1]) + (sums[2] + sums[3])); }

// Semantics: z = x + residual; x = (z - mean(z)) / sqrt(var(z) + eps) * gamma + beta. `z` holds the sums of one
// row, rounded up to whole vectors.
template <typename T>
void normalise(T* x, const T* residual, int64_t width, const Norm& norm, float eps, float* z) {
    const int64_t whole = width / LANES * LANES, rest = width - whole, many = whole / (SUMS * LANES) * SUMS * LANES;
    const auto summed = [&](int64_t i) {
        const Floats some = load(x + i) + load(residual + i);
        store(z + i, some);
        return some;
    };
    Floats sums[SUMS] = {};
    for (int64_t i = 0; i < many; i += SUMS * LANES)
#pragma GCC unroll 4
        for (int s = 0; s < SUMS; s++) sums[s] += summed(i + s * LANES);
    for (int64_t i = many; i < whole; i += LANES) sums[0] += summed(i);
    if (rest > 0) {
        const Floats some = load_first(x + whole, rest) + load_first(residual + whole, rest);
        store(z + whole, some);
        sums[0] += some;
    }
    const Floats mean = same(total(sums) / static_cast<float>(width));
    Floats squares[SUMS] = {};
    for (int64_t i = 0; i < many; i += SUMS * LANES)
#pragma GCC unroll 4
        for (int s = 0; s < SUMS; s++) {
            const Floats deviation = load(z + i + s * LANES) - mean;
            squares[s] += deviation * deviation;
        }
    for (int64_t i = many; i < whole; i += LANES) {
        const Floats deviation = load(z + i) - mean;
        squares[0] += deviation * deviation;
    }
    if (rest > 0) {
        Floats deviation = load(z + whole) - mean;
        deviation = lane_numbers() < static_cast<int32_t>(rest) ? deviation : Floats{};
        squares[0] += deviation * deviation;
    }
    const Floats factor = same(1.0f / __builtin_sqrtf(total(squares) / static_cast<float>(width) + eps));
    for (int64_t i = 0; i < whole; i += LANES)
        store(x + i, (load(z + i) - mean) * factor * load(norm.gamma + i) + load(norm.beta + i));
    if (rest > 0)
        store_first(x + whole,
                    (load(z + whole) - mean) * factor * load_first(norm.gamma + whole, rest) +
                        load_first(norm.beta + whole, rest),
                    rest);
}

template <typename T>
void normalise_rows(T* x, const T* residual, int64_t num_rows, int64_t width, const Norm& shared, float eps,
                    int64_t num_spans, const int64_t* spans, const Norm* own, float* z) {
    int64_t span = 0;
    for (int64_t row = 0; row < num_rows; row++) {
        while (span < num_spans && spans[2 * span + 1] <= row) span++;
        const bool is_own = span < num_spans && spans[2 * span] <= row;
        normalise(x + row * width, residual + row * width, width, is_own ? own[span] : shared, eps, z);
    }
}

}  // namespace

// x, residual [num_rows, width]; x is overwritten. spans [num_spans, 2], disjoint and ascending; own [num_spans, 2]:
// gamma and beta of each. z: scratch, the width rounded up to a multiple of 16.
#define DEFINE_ADD_LAYER_NORM(NAME, T)                                                                       \
    EXPORT void NAME(T* x, const T* residual, int64_t num_rows, int64_t width, const float* gamma,            \
                     const float* beta, float eps, int64_t num_spans, const int64_t* spans,                   \
                     const float* const* own, float* z) {                                                     \
        normalise_rows(x, residual, num_rows, width, Norm{gamma, beta}, eps, num_spans, spans,                \
                       reinterpret_cast<const Norm*>(own), z);                                                \
    }

DEFINE_ADD_LAYER_NORM(add_layer_norm_float32, float)
DEFINE_ADD_LAYER_NORM(add_layer_norm_bfloat16, BFloat16)
