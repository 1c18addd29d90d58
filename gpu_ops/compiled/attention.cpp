// Self-attention over packed rows, one row and head after the other, all in float32.
//
// Keys and values of a row's head are laid out in panels that stay in the first or second cache;
// scores of a few queries at a time never leave the first. The softmax is taken over whole rows.
#include "panels.h"

namespace {

constexpr int QUERIES = TILE_ROWS;
constexpr float LOG2_E = 1.44269504f;

// Queries, keys or values of one row: `count` tokens, each `stride` elements behind the one before.
template <typename T>
struct States {
    const T* first;
    int64_t count, stride;
};

// Keys as columns, from column `column` on. Each head has panels of [width, PANEL], `head_size` behind those of
// the head before.
template <typename T>
void pack_keys(const States<T>& keys, int64_t num_heads, int64_t width, int64_t column, float* panels,
               int64_t head_size) {
    for (int64_t token = 0; token < keys.count;) {
        const int64_t at = column + token, in_vector = at % LANES;
        const int64_t room = LANES - in_vector, left = keys.count - token;
        const int64_t count = left < room ? left : room;
        const T* from = keys.first + token * keys.stride;
        for (int64_t head = 0; head < num_heads; head++) {
            float* panel = panels + head * head_size + at / PANEL * PANEL * width + at % PANEL - in_vector;
            for (int64_t d = 0; d < width; d += LANES, from += LANES) {
                Floats square[LANES];
                if (count == LANES) {
#pragma GCC unroll 16
                    for (int i = 0; i < LANES; i++) square[i] = load(from + i * keys.stride);
                    transpose(square);
#pragma GCC unroll 16
                    for (int i = 0; i < LANES; i++) store(panel + (d + i) * PANEL, square[i]);
                    continue;
                }
                float few[LANES * LANES];
                for (int64_t i = 0; i < count; i++) store(few + i * LANES, load(from + i * keys.stride));
                for (int64_t e = 0; e < LANES; e++)
                    for (int64_t i = 0; i < count; i++)
                        panel[(d + e) * PANEL + in_vector + i] = few[i * LANES + e];
            }
        }
        token += count;
    }
}

// Values as rows, from row `row` of `depth` on. Each head has panels of [depth, PANEL].
template <typename T>
void pack_values(const States<T>& values, int64_t num_heads, int64_t width, int64_t row, int64_t depth,
                 float* panels, int64_t head_size) {
    for (int64_t token = 0; token < values.count; token++) {
        const T* from = values.first + token * values.stride;
        for (int64_t head = 0; head < num_heads; head++)
            for (int64_t d = 0; d < width; d += LANES, from += LANES)
                store(panels + head * head_size + d / PANEL * PANEL * depth + (row + token) * PANEL + d % PANEL,
                      load(from));
    }
}

// Turns the scores of one query into weights that are still to be divided by their sum, which is
// returned. Scores past the last key become 0.
INLINE float softmax_numerators(float* scores, int64_t keys) {
    const int64_t whole = keys / LANES * LANES;
    const float lowest = -__builtin_inff();
    Floats most = same(lowest);
    if (whole < keys) {
        const Floats rest = load(scores + whole);
        most = lane_numbers() < static_cast<int32_t>(keys - whole) ? rest : most;
        store(scores + whole, most);
    }
    for (int64_t key = 0; key < whole; key += LANES) {
        most = max_keeping_nan(most, load(scores + key));
    }
    const Floats greatest = same(max_of(most));
    Floats sums = {};
    for (int64_t key = 0; key < keys; key += LANES) {
        const Floats weights = exp2_of(load(scores + key) - greatest);
        store(scores + key, weights);
        sums += weights;
    }
    return sum_of(sums);
}

// Of one row and one head.
struct Head {
    int64_t width, num_keys, own_keys;
    const float *keys, *values;  // in panels
    const float* bias;           // [own_keys or more, bias_width] or null
    int64_t bias_width;
};

// What a few queries pass through; stays in the first cache.
struct Tile {
    float *queries, *scores, *output;
};

// Lets ROWS queries, from number `first` on, attend to the packed keys and values.
template <int ROWS, typename T>
void attend(const Head& head, const Tile& tile, const States<T>& queries, int64_t first, T* out,
            int64_t out_stride) {
    const int64_t width = head.width, padded = rounded_up(head.num_keys, LANES);
    const float scale = LOG2_E / __builtin_sqrtf(static_cast<float>(width));
    for (int i = 0; i < ROWS; i++)
        for (int64_t d = 0; d < width && first + ROWS + i < queries.count; d += 64 / sizeof(T))
            __builtin_prefetch(queries.first + (first + ROWS + i) * queries.stride + d);
    for (int i = 0; i < ROWS; i++)
        for (int64_t d = 0; d < width; d += LANES)
            store(tile.queries + i * width + d, scale * load(queries.first + (first + i) * queries.stride + d));
    multiply<ROWS>(tile.queries, width, head.keys, width, tile.scores, padded, padded);
    if (head.bias != nullptr)
        for (int i = 0; i < ROWS; i++) {
            const float* bias = head.bias + (first + i) * head.bias_width;
            float* own = tile.scores + i * padded + head.num_keys - head.own_keys;
            const int64_t whole = head.own_keys / LANES * LANES, rest = head.own_keys - whole;
            for (int64_t key = 0; key < whole; key += LANES)
                store(own + key, load(own + key) + LOG2_E * load(bias + key));
            if (rest > 0)
                store_first(own + whole, load_first(own + whole, rest) + LOG2_E * load_first(bias + whole, rest), rest);
        }
    float factors[ROWS];
    for (int i = 0; i < ROWS; i++)
        factors[i] = 1.0f / softmax_numerators(tile.scores + i * padded, head.num_keys);
    multiply<ROWS>(tile.scores, padded, head.values, head.num_keys, tile.output, width, width);
    for (int i = 0; i < ROWS; i++)
        for (int64_t d = 0; d < width; d += LANES)
            store(out + (first + i) * out_stride + d, factors[i] * load(tile.output + i * width + d));
}

template <int ROWS, typename T>
void attend_rest(int64_t rows, const Head& head, const Tile& tile, const States<T>& queries, int64_t first, T* out,
                 int64_t out_stride) {
    if (rows == ROWS)
        attend<ROWS>(head, tile, queries, first, out, out_stride);
    else if constexpr (ROWS > 1)
        attend_rest<ROWS - 1>(rows, head, tile, queries, first, out, out_stride);
}

// What rows of prefix tuning see before their own tokens; null pointers for the others.
struct Prefixes {
    const float *const *keys, *const *values;  // [rows], each [lens[row], hidden]
    const int32_t* lens;                       // [rows]
};

// How the scratch of a call is divided; every part begins at a multiple of 16 floats.
struct Layout {
    int64_t heads, keys_size, values_size;

    // Heads are packed together, as many as fit the second cache: a head's part of a token lies a page behind
    // that of the token before, which processors do not foresee and pay for with waiting.
    Layout(int64_t num_heads, int64_t most_keys, int64_t width) {
        constexpr int64_t CACHED = 256 << 10;
        keys_size = rounded_up(most_keys, PANEL) * width;
        values_size = most_keys * rounded_up(width, PANEL);
        const int64_t fitting = CACHED / (4 * (keys_size + values_size));
        heads = fitting < 1 ? 1 : fitting < num_heads ? fitting : num_heads;
    }
};

template <typename T>
void attend_rows(const T* qkv, T* out, const int32_t* row_lens, int64_t num_rows, int64_t num_tokens,
                 int64_t num_heads, int64_t width, const float* bias, int64_t bias_width, const Prefixes& prefixes,
                 float* scratch, int64_t most_keys) {
    const int64_t hidden = num_heads * width;
    const Layout layout(num_heads, most_keys, width);
    float* keys = scratch;
    float* values = keys + layout.heads * layout.keys_size;
    Tile tile;
    tile.queries = values + layout.heads * layout.values_size;
    tile.output = tile.queries + QUERIES * width;
    tile.scores = tile.output + QUERIES * width;
    int64_t start = 0;
    for (int64_t row = 0; row < num_rows; row++) {
        const int64_t len = row_lens[row], num_virtual = prefixes.lens == nullptr ? 0 : prefixes.lens[row];
        const int64_t num_keys = num_virtual + len;
        for (int64_t group = 0; group < num_heads; group += layout.heads) {
            const int64_t rest = num_heads - group, heads = rest < layout.heads ? rest : layout.heads;
            const T* first = qkv + start * 3 * hidden + group * width;
            if (num_virtual > 0) {
                const States<float> virtual_keys{prefixes.keys[row] + group * width, num_virtual, hidden};
                const States<float> virtual_values{prefixes.values[row] + group * width, num_virtual, hidden};
                pack_keys(virtual_keys, heads, width, 0, keys, layout.keys_size);
                pack_values(virtual_values, heads, width, 0, num_keys, values, layout.values_size);
            }
            const States<T> own_keys{first + hidden, len, 3 * hidden};
            const States<T> own_values{first + 2 * hidden, len, 3 * hidden};
            pack_keys(own_keys, heads, width, num_virtual, keys, layout.keys_size);
            pack_values(own_values, heads, width, num_virtual, num_keys, values, layout.values_size);
            for (int64_t h = 0; h < heads; h++) {
                const Head head{width, num_keys, len, keys + h * layout.keys_size, values + h * layout.values_size,
                                bias == nullptr ? nullptr : bias + (group + h) * bias_width * bias_width,
                                bias_width};
                const States<T> queries{first + h * width, len, 3 * hidden};
                T* to = out + start * hidden + (group + h) * width;
                int64_t query = 0;
                for (; query + QUERIES <= len; query += QUERIES)
                    attend<QUERIES>(head, tile, queries, query, to, hidden);
                attend_rest<QUERIES - 1>(len - query, head, tile, queries, query, to, hidden);
            }
        }
        start += len;
    }
    memset(static_cast<void*>(out + start * hidden), 0, (num_tokens - start) * hidden * sizeof(T));
}

}  // namespace

// How many floats of scratch a call needs; `most_keys` are those of the longest row, its prefix included.
EXPORT int64_t attention_scratch(int64_t num_heads, int64_t most_keys, int64_t width) {
    const Layout layout(num_heads, most_keys, width);
    return layout.heads * (layout.keys_size + layout.values_size) + 2 * QUERIES * width +
           QUERIES * rounded_up(most_keys, LANES);
}

// qkv [num_tokens, 3, num_heads, width], out [num_tokens, num_heads * width], bias [num_heads, bias_width,
// bias_width] or null. `width` is a multiple of 16. Prefixes: all null, or one entry a row.
#define DEFINE_ATTENTION(NAME, T)                                                                              \
    EXPORT void NAME(const T* qkv, T* out, const int32_t* row_lens, int64_t num_rows, int64_t num_tokens,       \
                     int64_t num_heads, int64_t width, const float* bias, int64_t bias_width,                   \
                     const float* const* prefix_keys, const float* const* prefix_values,                        \
                     const int32_t* prefix_lens, float* scratch, int64_t most_keys) {                           \
        attend_rows(qkv, out, row_lens, num_rows, num_tokens, num_heads, width, bias, bias_width,               \
                    Prefixes{prefix_keys, prefix_values, prefix_lens}, scratch, most_keys);                     \
    }

DEFINE_ATTENTION(attention_float32, float)
DEFINE_ATTENTION(attention_bfloat16, BFloat16)
