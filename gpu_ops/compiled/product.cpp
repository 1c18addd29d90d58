// x W^T + b: of a weight that stays and is laid out in panels once, with the sparse changes of tasks in their rows,
// and of a weight that is used once.
//
// The loops are those of Goto and van de Geijn (2008): a panel of the weight, DEPTH inputs deep, stays in the
// first cache while all tiles of some rows of x, which stay in the second, go by.
#include "panels.h"
#include "sparse_change.h"

namespace {

constexpr int64_t DEPTH = 384;
constexpr int64_t BLOCK_TILES = 336 / TILE_ROWS;
constexpr int64_t STEP = 8;             // inputs between two fetches ahead
constexpr int64_t LINE = 16;            // floats
constexpr int64_t MOST_FETCHING = 8;    // tiles: with more, the processor fetches ahead well enough itself
constexpr int64_t STEP_LINES = STEP * PANEL / LINE;

inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

int64_t tiles_size(int64_t rows, int64_t num_in) {
    return rounded_up(rows, TILE_ROWS) * least(num_in, DEPTH) + LANES;
}

int64_t panel_size(int64_t num_in) { return PANEL * least(num_in, DEPTH); }

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

// A task's change while it is written into panels.
struct Patch {
    const Change* change;  // null: the weight as it is
    int32_t* next;         // of each output the first change that is behind the inputs so far
};

// Rows of one weight, side by side.
struct Part {
    int64_t row;
    Tiles tiles;
    Patch patch;
};

// What is read next, to be fetched while tiles go by.
struct Ahead {
    const float *at, *end;
    int64_t lines;  // with every step
};

// One panel's columns of some tiles. `bias`: null where y has the sums of the inputs before.
inline void multiply_tiles(const float* tiles, const Part& part, int64_t depth, const float* panel, const float* bias,
                           float* y, int64_t y_width, int64_t columns, Ahead& ahead) {
    const bool is_whole = columns >= PANEL;
    float first[PANEL] = {};
    if (bias != nullptr) memcpy(first, bias, least(columns, PANEL) * sizeof(float));
    for (int64_t tile = 0; tile < part.tiles.count(); tile++, tiles += TILE_ROWS * depth) {
        const int64_t count = part.tiles.rows_of(tile), lines = ahead.at < ahead.end ? ahead.lines : 0;
        float* to = y;
        y += count * y_width;
        if (is_whole) {
            const float* before = bias != nullptr ? first : to;
            multiply_rows<TILE_ROWS>(count, tiles, panel, depth, before, bias != nullptr ? 0 : y_width, to, y_width,
                                     ahead.at, lines);
        } else {
            float wide[TILE_ROWS * PANEL];
            for (int64_t i = 0; i < count; i++) {
                const float* from = bias != nullptr ? first : to + i * y_width;
                memcpy(wide + i * PANEL, from, columns * sizeof(float));
                memset(wide + i * PANEL + columns, 0, (PANEL - columns) * sizeof(float));
            }
            multiply_rows<TILE_ROWS>(count, tiles, panel, depth, wide, int64_t{PANEL}, wide, int64_t{PANEL},
                                     ahead.at, lines);
            for (int64_t i = 0; i < count; i++)
                memcpy(to + i * y_width, wide + i * PANEL, columns * sizeof(float));
        }
        ahead.at += depth / STEP * lines * LINE;
    }
}

// A copy of a panel, into which one change after the other is written and taken back.
class ChangedPanel {
  public:
    ChangedPanel(float* scratch, int64_t num_in)
        : copy_(scratch),
          replaced_(scratch + panel_size(num_in)),
          places_(reinterpret_cast<int32_t*>(scratch + 2 * panel_size(num_in))) {}

    static int64_t scratch_size(int64_t num_in) { return 3 * panel_size(num_in); }

    // Returns `panel`, some inputs of some outputs, with their changes; good until they are taken back.
    const float* with(const Patch& patch, const float* panel, int64_t first, int64_t depth, int64_t out,
                      int64_t outputs) {
        if (panel_ != panel) memcpy(copy_, panel, depth * PANEL * sizeof(float));
        panel_ = panel;
        int32_t* next = patch.next + out;
        if (first == 0)
            for (int64_t c = 0; c < outputs; c++) next[c] = static_cast<int32_t>(patch.change->offset(out + c));
        patch.change->visit([&](const auto* columns, const auto* values) {
            for (int64_t c = 0; c < outputs; c++)
                next[c] = write(columns, values, next[c], patch.change->offset(out + c + 1), first, depth, c);
        });
        return copy_;
    }

    void take_back() {
        for (int64_t i = 0; i < count_; i++) copy_[places_[i]] = replaced_[i];
        count_ = 0;
    }

  private:
    // Writes an output's changes from `i` on; returns the first that is behind these inputs.
    template <typename Column, typename Value>
    int32_t write(const Column* columns, const Value* values, int32_t i, int64_t end, int64_t first, int64_t depth,
                  int64_t output) {
        for (; i < end && columns[i] < first + depth; i++) {
            const int64_t place = (columns[i] - first) * PANEL + output;
            const float weight = copy_[place];
            replaced_[count_] = weight;
            places_[count_++] = static_cast<int32_t>(place);
            copy_[place] = changed(weight, values, i);
        }
        return i;
    }

    float *copy_, *replaced_;
    int32_t* places_;
    int64_t count_ = 0;
    const float* panel_ = nullptr;  // that the copy is of
};

struct Panel {
    const float *weights, *next;
};

// Some rows of x with all panels. panel_at(first input, inputs, first output) gives [inputs, PANEL], which stands as
// it is until the next, and where the one after it is read.
template <typename PanelAt>
void multiply_block(const Part* parts, int64_t num_parts, const float* x, int64_t num_in, const float* bias,
                    int64_t num_out, float* y, float* tiles, ChangedPanel* changed, const PanelAt& panel_at) {
    int64_t num_tiles = 0;
    bool is_changed = false;
    for (const Part* part = parts; part < parts + num_parts; part++) {
        num_tiles += part->tiles.count();
        is_changed |= part->patch.change != nullptr;
    }
    const int64_t lines = num_tiles > MOST_FETCHING && !is_changed ? 0 : (STEP_LINES + num_tiles - 1) / num_tiles;
    for (int64_t first = 0; first < num_in; first += DEPTH) {
        const int64_t depth = least(num_in - first, DEPTH);
        float* tile = tiles;
        for (const Part* part = parts; part < parts + num_parts; part++) {
            const float* from = x + part->row * num_in + first;
            for (int64_t i = 0; i < part->tiles.count(); i++, tile += TILE_ROWS * depth) {
                pack_tile(from, num_in, part->tiles.rows_of(i), depth, tile);
                from += part->tiles.rows_of(i) * num_in;
            }
        }
        for (int64_t out = 0; out < num_out; out += PANEL) {
            const Panel panel = panel_at(first, depth, out);
            const int64_t outputs = least(num_out - out, PANEL);
            Ahead ahead{panel.next, panel.next + depth * PANEL, lines};
            tile = tiles;
            for (const Part* part = parts; part < parts + num_parts; part++) {
                const bool has_change = part->patch.change != nullptr;
                const float* weights =
                    has_change ? changed->with(part->patch, panel.weights, first, depth, out, outputs) : panel.weights;
                multiply_tiles(tile, *part, depth, weights, first == 0 ? bias + out : nullptr,
                               y + part->row * num_out + out, num_out, num_out - out, ahead);
                if (has_change) changed->take_back();
                tile += part->tiles.count() * TILE_ROWS * depth;
            }
        }
    }
}

// Cuts rows into blocks, and these into parts: the rows of each task that has a change, and what is between them.
class Blocks {
  public:
    Blocks(int64_t rows, int64_t num_out, int64_t num_tasks, const ChangedRows* tasks, int32_t* next)
        : rows_(rows), num_out_(num_out), task_(tasks), end_(tasks + num_tasks), next_(next) {}

    // The parts of the next block; 0: there is none.
    int64_t take(Part (&parts)[BLOCK_TILES]) {
        int64_t num_parts = 0;
        for (int64_t tiles = 0; row_ < rows_ && tiles < BLOCK_TILES; tiles += parts[num_parts++].tiles.count()) {
            while (task_ < end_ && task_->end <= row_) task_++;
            const bool is_changed = task_ < end_ && row_ >= task_->start;
            const int64_t end = is_changed ? task_->end : task_ < end_ ? task_->start : rows_;
            const int64_t room = (BLOCK_TILES - tiles) * TILE_ROWS, count = least(end - row_, room);
            // A change is written once for a block: one that fits the next as a whole is left to it.
            if (is_changed && tiles > 0 && count < end - row_ && end - row_ <= BLOCK_TILES * TILE_ROWS) break;
            const Patch patch{is_changed ? &task_->change : nullptr, next_ + num_parts * num_out_};
            parts[num_parts] = Part{row_, Tiles(count), patch};
            row_ += count;
        }
        return num_parts;
    }

  private:
    int64_t rows_, num_out_, row_ = 0;
    const ChangedRows *task_, *end_;
    int32_t* next_;
};

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

// Floats of scratch.
EXPORT int64_t product_scratch(int64_t rows, int64_t num_in) { return tiles_size(rows, num_in) + panel_size(num_in); }

EXPORT int64_t product_packed_scratch(int64_t num_in, int64_t num_out) {
    return tiles_size(BLOCK_TILES * TILE_ROWS, num_in) + ChangedPanel::scratch_size(num_in) +
           BLOCK_TILES * num_out;
}

// y [rows, num_out] = x [rows, num_in] W^T + bias [num_out], W as product_pack laid it out, with each task's change in
// its rows. A change is written into a copy of each panel, used and taken back. tasks: ascending and disjoint.
EXPORT void product_packed(const float* x, int64_t rows, int64_t num_in, const float* panels, const float* bias,
                           int64_t num_out, int64_t num_tasks, const int64_t* tasks, float* y, float* scratch) {
    const int64_t width = rounded_up(num_out, PANEL);
    float* const behind_tiles = scratch + tiles_size(BLOCK_TILES * TILE_ROWS, num_in);
    ChangedPanel changed(behind_tiles, num_in);
    auto* next = reinterpret_cast<int32_t*>(behind_tiles + ChangedPanel::scratch_size(num_in));
    Blocks blocks(rows, num_out, num_tasks, reinterpret_cast<const ChangedRows*>(tasks), next);
    Part parts[BLOCK_TILES];
    while (const int64_t num_parts = blocks.take(parts))
        multiply_block(parts, num_parts, x, num_in, bias, num_out, y, scratch, &changed,
                       [=](int64_t first, int64_t depth, int64_t out) {
                           const float* panel = panels + first * width + out * depth;
                           return Panel{panel, panel + depth * PANEL};
                       });
}

// The same without changes, W [num_out, num_in] as it is: each panel is laid out when its turn comes, once for all
// rows.
EXPORT void product(const float* x, int64_t rows, int64_t num_in, const float* weight, const float* bias,
                    int64_t num_out, float* y, float* scratch) {
    float* panel = scratch + tiles_size(rows, num_in);
    if (rows == 0) return;
    const Part all{0, Tiles(rows), {}};
    multiply_block(&all, 1, x, num_in, bias, num_out, y, scratch, nullptr,
                   [=](int64_t first, int64_t depth, int64_t out) {
                       const float* from = weight + out * num_in + first;
                       pack_transposed(from, num_in, least(num_out - out, PANEL), depth, panel);
                       return Panel{panel, from + PANEL * num_in};
                   });
}
