// x a^T, something in between, and b^T of it added to y: what low-rank updates and adapters are, for the rows of
// one task.
#pragma once
#include "float16.h"
#include "panels.h"

// A weight [outputs, inputs] as a task has it: of float16 (2 bytes) or float32 (4).
struct Weight {
    const void* values;
    int64_t bytes, outputs, inputs;

    int64_t panel_size() const { return rounded_up(outputs, PANEL) * inputs; }

    void pack(float* panels) const {
        if (bytes == 2)
            pack_transposed(static_cast<const Float16*>(values), inputs, outputs, inputs, panels);
        else
            pack_transposed(static_cast<const float*>(values), inputs, outputs, inputs, panels);
    }
};

// Part of what stands in between, from one rank on, and where its product goes.
struct Up {
    Weight weight;
    int64_t first_rank, first_output;
};

template <int ROWS>
INLINE void multiply_tile(const float* a, int64_t a_width, const float* panels, int64_t depth, float* c,
                          int64_t columns) {
    multiply<ROWS>(a, a_width, panels, depth, c, columns, columns);
}

// As above for 1 to ROWS rows.
template <int ROWS>
void multiply_rows(int64_t rows, const float* a, int64_t a_width, const float* panels, int64_t depth, float* c,
                   int64_t columns) {
    if (rows == ROWS)
        multiply_tile<ROWS>(a, a_width, panels, depth, c, columns);
    else if constexpr (ROWS > 1)
        multiply_rows<ROWS - 1>(rows, a, a_width, panels, depth, c, columns);
}

inline const float* as_floats(const float* from, int64_t, float*) { return from; }

inline const float* as_floats(const BFloat16* from, int64_t count, float* to) {
    for (int64_t i = 0; i < count; i += LANES) {
        if (i + LANES <= count)
            store(to + i, load(from + i));
        else
            store_first(to + i, load_first(from + i, count - i), count - i);
    }
    return to;
}

inline int64_t two_products_scratch(const Weight& down, const Up* ups, int64_t num_ups) {
    int64_t packed = down.panel_size(), widest = 0;
    for (int64_t i = 0; i < num_ups; i++) {
        packed += ups[i].weight.panel_size();
        const int64_t width = rounded_up(ups[i].weight.outputs, LANES);
        widest = width > widest ? width : widest;
    }
    return packed + TILE_ROWS * (rounded_up(down.outputs, LANES) + widest + down.inputs);
}

// y [num_rows, y_width], x [num_rows, down.inputs]. between(tile, width) changes [TILE_ROWS, width] in place;
// up_bias: null, or added with the only up weight.
template <typename T, typename Between>
void two_products(T* y, int64_t y_width, const T* x, int64_t num_rows, const Weight& down, const Up* ups,
                  int64_t num_ups, const float* up_bias, float* scratch, const Between& between) {
    const int64_t ranks = rounded_up(down.outputs, LANES);
    float* down_panels = scratch;
    down.pack(down_panels);
    scratch += down.panel_size();
    float* up_panels = scratch;
    for (int64_t i = 0; i < num_ups; i++) {
        ups[i].weight.pack(scratch);
        scratch += ups[i].weight.panel_size();
    }
    float* inner = scratch;
    float* wide = inner + TILE_ROWS * ranks;
    float* added = wide + TILE_ROWS * down.inputs;
    const Tiles tiles(num_rows);
    for (int64_t row = 0, number = 0; row < num_rows; row += tiles.rows_of(number++)) {
        const int64_t rows = tiles.rows_of(number);
        const float* tile = as_floats(x + row * down.inputs, rows * down.inputs, wide);
        multiply_rows<TILE_ROWS>(rows, tile, down.inputs, down_panels, down.inputs, inner, ranks);
        between(inner, rows, ranks);
        const float* panels = up_panels;
        for (int64_t i = 0; i < num_ups; i++) {
            const Weight& up = ups[i].weight;
            const int64_t columns = rounded_up(up.outputs, LANES);
            multiply_rows<TILE_ROWS>(rows, inner + ups[i].first_rank, ranks, panels, up.inputs, added, columns);
            panels += up.panel_size();
            for (int64_t r = 0; r < rows; r++) {
                T* to = y + (row + r) * y_width + ups[i].first_output;
                for (int64_t c = 0; c < up.outputs; c += LANES) {
                    const int64_t left = up.outputs - c;
                    Floats more = load(added + r * columns + c);
                    if (left >= LANES) {
                        if (up_bias != nullptr) more += load(up_bias + c);
                        store(to + c, load(to + c) + more);
                    } else {
                        if (up_bias != nullptr) more += load_first(up_bias + c, left);
                        store_first(to + c, load_first(to + c, left) + more, left);
                    }
                }
            }
        }
    }
}
