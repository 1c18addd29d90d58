// Bottleneck adapters of the rows of one task.
#include "gelu.h"
#include "two_products.h"

namespace {

enum Activation : int64_t { RELU = 0, GELU = 1 };

// Adds the bias to [rows, width] and activates; the bias is padded to `width`.
struct Activate {
    const float* bias;
    int64_t activation;

    void operator()(float* tile, int64_t rows, int64_t width) const {
        for (int64_t r = 0; r < rows; r++)
            for (int64_t c = 0; c < width; c += LANES) {
                float* at = tile + r * width + c;
                const Floats x = load(at) + load(bias + c);
                store(at, activation == GELU ? gelu(x) : max_keeping_nan(x, Floats{}));
            }
    }
};

}  // namespace

EXPORT int64_t bottleneck_scratch(int64_t hidden, int64_t bottleneck) {
    const Up up{Weight{nullptr, 4, hidden, bottleneck}, 0, 0};
    return rounded_up(bottleneck, LANES) +
           two_products_scratch(Weight{nullptr, 4, bottleneck, hidden}, &up, 1);
}

// h [num_rows, hidden] += up activation(down h + down_bias) + up_bias: down [bottleneck, hidden], up [hidden,
// bottleneck], biases float32.
#define DEFINE_BOTTLENECK(NAME, T)                                                                             \
    EXPORT void NAME(T* h, int64_t num_rows, int64_t hidden, int64_t bottleneck, const void* down,              \
                     int64_t down_bytes, const float* down_bias, const void* up, int64_t up_bytes,              \
                     const float* up_bias, int64_t activation, float* scratch) {                                \
        const int64_t width = rounded_up(bottleneck, LANES);                                                    \
        float* bias = scratch;                                                                                  \
        for (int64_t i = 0; i < width; i++) bias[i] = i < bottleneck ? down_bias[i] : 0.0f;                     \
        const Up to{Weight{up, up_bytes, hidden, bottleneck}, 0, 0};                                            \
        two_products(h, hidden, h, num_rows, Weight{down, down_bytes, bottleneck, hidden}, &to, 1, up_bias,     \
                     scratch + width, Activate{bias, activation});                                              \
    }

DEFINE_BOTTLENECK(add_bottleneck_float32, float)
DEFINE_BOTTLENECK(add_bottleneck_bfloat16, BFloat16)
