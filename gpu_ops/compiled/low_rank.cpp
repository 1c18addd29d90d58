// Low-rank updates (LoRA) of the rows of one task.
#include "two_products.h"

namespace {

constexpr int64_t MOST_UPS = 8;

// `places` has rank, outputs, first rank and first output of each.
void read_ups(int64_t num_ups, const int64_t* places, const void* const* values, int64_t bytes, Up* ups) {
    for (int64_t i = 0; i < num_ups; i++) {
        const int64_t* at = places + 4 * i;
        ups[i] = Up{Weight{values[i], bytes, at[1], at[0]}, at[2], at[3]};
    }
}

}  // namespace

EXPORT int64_t low_rank_most_ups() { return MOST_UPS; }

EXPORT int64_t low_rank_scratch(int64_t num_in, int64_t ranks, int64_t num_ups, const int64_t* places) {
    Up ups[MOST_UPS];
    const void* values[MOST_UPS] = {};
    read_ups(num_ups, places, values, 4, ups);
    return two_products_scratch(Weight{nullptr, 4, ranks, num_in}, ups, num_ups);
}

// y [num_rows, y_width] += up (down x): x [num_rows, num_in], down [ranks, num_in], ups [outputs, rank] each.
#define DEFINE_LOW_RANK(NAME, T)                                                                               \
    EXPORT void NAME(T* y, int64_t y_width, const T* x, int64_t num_rows, int64_t num_in, const void* down,     \
                     int64_t down_bytes, int64_t ranks, int64_t num_ups, const int64_t* places,                 \
                     const void* const* up_values, int64_t up_bytes, float* scratch) {                          \
        Up ups[MOST_UPS];                                                                                       \
        read_ups(num_ups, places, up_values, up_bytes, ups);                                                    \
        two_products(y, y_width, x, num_rows, Weight{down, down_bytes, ranks, num_in}, ups, num_ups, nullptr,   \
                     scratch, [](float*, int64_t, int64_t) {});                                                 \
    }

DEFINE_LOW_RANK(add_low_rank_float32, float)
DEFINE_LOW_RANK(add_low_rank_bfloat16, BFloat16)
