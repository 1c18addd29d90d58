// x W^T + b: of a weight that stays and is laid out in panels once, of the same weight with a task's sparse change,
// and of a weight that is used once.
//
// The loops are those of Goto and van de Geijn (2008): a panel of the weight, DEPTH inputs deep, stays in the
// first cache while all tiles of some rows of x, which stay in the second, go by.
#include "panels.h"
#include "sparse_change.h"

namespace {

constexpr int64_t DEPTH = 384;
constexpr int64_t BLOCK_TILES = 168 / TILE_ROWS;
constexpr int64_t STEP = 8;             // inputs between two fetches ahead
constexpr int64_t LINE = 16;            // floats
constexpr int64_t MOST_FETCHING = 8;    // tiles: with more, the processor fetches ahead well enough itself
constexpr int64_t STEP_LINES = STEP * PANEL / LINE;

inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// Lays up to TILE_ROWS rows of [depth] out as [depth, TILE_ROWS]; writes up to LANES floats more.
inline void pack_tile(const float* x, int64_t width, int64_t rows, int64_t depth, float* tile) {
    int64_t d = 0;
    if constexpr (TILE_ROWS <= LANES)
        for (; d + LANES <= depth; d += LANES) {
            Floats square[LANES];
            for (int i = 0; i < LANES; i++) square[i] = i < rows ? load(x + i * width + d) : Floats{};
            transpose(square);
            // What stands behind the tile's rows is overwritten by the next.
            for (int64_t i = 0; i < LANES; i++) store(tile + (d + i) * TILE_ROWS, square[i]);
        }
    for (; d < depth; d++)
        for (int64_t i = 0; i < rows; i++) tile[d * TILE_ROWS + i] = x[i * width + d];
}

// y[ROWS, PANEL] = before + tile panel; before: [ROWS, PANEL] or, of width 0, the same for all rows. Added to the
// sum and not begun with, as the rounding of a long sum grows with its length. Meanwhile `lines` of what is read
// next come nearer with every step.
template <int ROWS>
void multiply_tile(const float* tile, const float* panel, int64_t depth, const float* before, int64_t before_width,
                   float* y, int64_t y_width, const float* ahead, int64_t lines) {
    Floats sums[ROWS][PANEL_VECTORS] = {};
    const auto add = [&](int64_t from, int64_t count) __attribute__((always_inline)) {
        const float* a = tile + from * TILE_ROWS;
        add_panel([=](int64_t k, int64_t i) { return a[k * TILE_ROWS + i]; }, panel + from * PANEL, count, sums);
    };
    int64_t k = 0;
    for (; lines > 0 && k + STEP <= depth; k += STEP) {
        for (int64_t i = 0; i < lines; i++, ahead += LINE) __builtin_prefetch(ahead, 0, 2);
        add(k, STEP);
    }
    add(k, depth - k);
#pragma GCC unroll 12
    for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 4
        for (int v = 0; v < PANEL_VECTORS; v++) sums[i][v] += load(before + i * before_width + v * LANES);
    store_panel(sums, y, y_width);
}

template <int ROWS, typename... Arguments>
void multiply_rows(int64_t rows, Arguments... arguments) {
    if (rows == ROWS)
        multiply_tile<ROWS>(arguments...);
    else if constexpr (ROWS > 1)
        multiply_rows<ROWS - 1>(rows, arguments...);
}

// One panel's columns of all tiles of a block. `bias`: null where y has the sums of the inputs before. `next`: the
// panel that is read after this one.
inline void multiply_block(const float* tiles, int64_t rows, int64_t depth, const float* panel, const float* next,
                           const float* bias, float* y, int64_t y_width, int64_t columns) {
    const bool is_whole = columns >= PANEL;
    float first[PANEL] = {};
    if (bias != nullptr) memcpy(first, bias, least(columns, PANEL) * sizeof(float));
    const float* const next_end = next + depth * PANEL;
    const int64_t num_tiles = (rows + TILE_ROWS - 1) / TILE_ROWS;
    const int64_t share = num_tiles > MOST_FETCHING ? 0 : (STEP_LINES + num_tiles - 1) / num_tiles;
    for (int64_t row = 0; row < rows; row += TILE_ROWS, tiles += TILE_ROWS * depth) {
        const int64_t count = least(rows - row, TILE_ROWS), lines = next < next_end ? share : 0;
        float* to = y + row * y_width;
        if (is_whole) {
            const float* before = bias != nullptr ? first : to;
            multiply_rows<TILE_ROWS>(count, tiles, panel, depth, before, bias != nullptr ? 0 : y_width, to, y_width,
                                     next, lines);
        } else {
            float wide[TILE_ROWS * PANEL];
            for (int64_t i = 0; i < count; i++) {
                const float* from = bias != nullptr ? first : to + i * y_width;
                memcpy(wide + i * PANEL, from, columns * sizeof(float));
                memset(wide + i * PANEL + columns, 0, (PANEL - columns) * sizeof(float));
            }
            multiply_rows<TILE_ROWS>(count, tiles, panel, depth, wide, int64_t{PANEL}, wide, int64_t{PANEL}, next,
                                     lines);
            for (int64_t i = 0; i < count; i++)
                memcpy(to + i * y_width, wide + i * PANEL, columns * sizeof(float));
        }
        next += depth / STEP * lines * LINE;
    }
}

struct Panel {
    const float *weights, *next;
};

// panel_at(first input, inputs, first output) gives [inputs, PANEL] and where the one after it is read.
template <typename PanelAt>
void multiply_all(const float* x, int64_t rows, int64_t num_in, const float* bias, int64_t num_out, float* y,
                  int64_t block_rows, float* tiles, const PanelAt& panel_at) {
    for (int64_t row = 0; row < rows; row += block_rows) {
        const int64_t count = least(rows - row, block_rows);
        for (int64_t first = 0; first < num_in; first += DEPTH) {
            const int64_t depth = least(num_in - first, DEPTH);
            for (int64_t r = 0; r < count; r += TILE_ROWS)
                pack_tile(x + (row + r) * num_in + first, num_in, least(count - r, TILE_ROWS), depth,
                          tiles + r * depth);
            for (int64_t out = 0; out < num_out; out += PANEL) {
                const Panel panel = panel_at(first, depth, out);
                multiply_block(tiles, count, depth, panel.weights, panel.next, first == 0 ? bias + out : nullptr,
                               y + row * num_out + out, num_out, num_out - out);
            }
        }
    }
}

// Some inputs of a panel's outputs with their changes; `next`: of each output the first change that is not behind.
inline void change_panel(const Change& change, int64_t first, int64_t depth, int64_t out, int64_t outputs,
                         int32_t* next, float* panel) {
    for (int64_t c = 0; c < outputs; c++) {
        int64_t i = next[out + c];
        for (const int64_t end = change.offset(out + c + 1); i < end; i++) {
            const int64_t column = change.column(i) - first;
            if (column >= depth) break;
            float& weight = panel[column * PANEL + c];
            weight += change.added(i, weight);
        }
        next[out + c] = static_cast<int32_t>(i);
    }
}

int64_t tiles_size(int64_t rows, int64_t num_in) {
    return rounded_up(rows, TILE_ROWS) * least(num_in, DEPTH) + LANES;
}

}  // namespace

// Floats that a weight [num_out, num_in] takes in panels.
EXPORT int64_t product_panels(int64_t num_out, int64_t num_in) { return rounded_up(num_out, PANEL) * num_in; }

EXPORT void product_pack(const float* weight, int64_t num_out, int64_t num_in, float* panels) {
    for (int64_t first = 0; first < num_in; first += DEPTH) {
        const int64_t depth = least(num_in - first, DEPTH);
        pack_transposed(weight + first, num_in, num_out, depth, panels);
        panels += rounded_up(num_out, PANEL) * depth;
    }
}

// Floats of scratch for so many rows.
EXPORT int64_t product_packed_scratch(int64_t rows, int64_t num_in) {
    return tiles_size(least(rows, BLOCK_TILES * TILE_ROWS), num_in);
}

EXPORT int64_t product_scratch(int64_t rows, int64_t num_in) {
    return tiles_size(rows, num_in) + PANEL * least(num_in, DEPTH);
}

EXPORT int64_t product_changed_scratch(int64_t rows, int64_t num_in, int64_t num_out) {
    return product_scratch(rows, num_in) + num_out;
}

// y [rows, num_out] = x [rows, num_in] W^T + bias [num_out], W as product_pack laid it out.
EXPORT void product_packed(const float* x, int64_t rows, int64_t num_in, const float* panels, const float* bias,
                           int64_t num_out, float* y, float* scratch) {
    const int64_t width = rounded_up(num_out, PANEL);
    multiply_all(x, rows, num_in, bias, num_out, y, BLOCK_TILES * TILE_ROWS, scratch,
                 [=](int64_t first, int64_t depth, int64_t out) {
                     const float* panel = panels + first * width + out * depth;
                     return Panel{panel, panel + depth * PANEL};
                 });
}

// The same, W [num_out, num_in] as it is: each panel is laid out when its turn comes, once for all rows.
EXPORT void product(const float* x, int64_t rows, int64_t num_in, const float* weight, const float* bias,
                    int64_t num_out, float* y, float* scratch) {
    float* panel = scratch + tiles_size(rows, num_in);
    multiply_all(x, rows, num_in, bias, num_out, y, rows, scratch, [=](int64_t first, int64_t depth, int64_t out) {
        const float* from = weight + out * num_in + first;
        pack_transposed(from, num_in, least(num_out - out, PANEL), depth, panel);
        return Panel{panel, from + PANEL * num_in};
    });
}

// The same, W in panels with a change, which is written into a copy of each panel; as `patch_weight` takes it.
EXPORT void product_changed(const float* x, int64_t rows, int64_t num_in, const float* panels, const float* bias,
                            int64_t num_out, const void* columns, int64_t column_bytes, const void* offsets,
                            int64_t offset_bytes, const void* values, int64_t value_bytes, float* y,
                            float* scratch) {
    const Change change{columns, offsets, values, column_bytes, offset_bytes, value_bytes};
    const int64_t width = rounded_up(num_out, PANEL);
    float* panel = scratch + tiles_size(rows, num_in);
    auto* next = reinterpret_cast<int32_t*>(scratch + product_scratch(rows, num_in));
    for (int64_t out = 0; out < num_out; out++) next[out] = static_cast<int32_t>(change.offset(out));
    multiply_all(x, rows, num_in, bias, num_out, y, rows, scratch, [=](int64_t first, int64_t depth, int64_t out) {
        const float* from = panels + first * width + out * depth;
        memcpy(panel, from, depth * PANEL * sizeof(float));
        change_panel(change, first, depth, out, least(num_out - out, PANEL), next, panel);
        return Panel{panel, from + depth * PANEL};
    });
}
