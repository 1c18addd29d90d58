// The exact GELU, x Phi(x) with the normal distribution Phi, in place.
#include "gelu.h"

namespace {

template <typename T>
void gelu_in_place(T* x, int64_t count) {
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES) store(x + i, gelu(load(x + i)));
    if (i < count) store_first(x + i, gelu(load_first(x + i, count - i)), count - i);
}

}  // namespace

EXPORT void gelu_float32(float* x, int64_t count) { gelu_in_place(x, count); }
EXPORT void gelu_bfloat16(BFloat16* x, int64_t count) { gelu_in_place(x, count); }
