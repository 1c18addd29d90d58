// Products with a right-hand side that is laid out in panels: a few columns of it side by side, row after row.
#pragma once
#include "vector.h"

constexpr int TILE_ROWS = LANES == 16 ? 12 : 6;  // of the left-hand side: as many as registers hold
constexpr int PANEL_VECTORS = LANES == 4 ? 4 : 2;
constexpr int PANEL = PANEL_VECTORS * LANES;  // columns

inline int64_t rounded_up(int64_t count, int64_t to) { return (count + to - 1) / to * to; }

// Tiles of at most TILE_ROWS that share rows evenly: one of few rows takes as long as one of more.
class Tiles {
  public:
    Tiles() = default;
    explicit Tiles(int64_t rows)
        : count_((rows + TILE_ROWS - 1) / TILE_ROWS),
          least_(count_ > 0 ? rows / count_ : 0),
          larger_(rows - least_ * count_) {}

    int64_t count() const { return count_; }
    int64_t rows_of(int64_t tile) const { return least_ + (tile < larger_); }

  private:
    int64_t count_, least_, larger_;
};

// sums[ROWS, VECTORS * LANES] += a b[depth, PANEL], of b the first VECTORS. a(k, i): row i at depth k.
template <int ROWS, int VECTORS, typename A>
INLINE void add_panel(const A& a, const float* b, int64_t depth, Floats (&sums)[ROWS][VECTORS]) {
#pragma GCC unroll 4
    for (int64_t k = 0; k < depth; k++) {
        Floats columns[VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++) columns[v] = load(b + k * PANEL + v * LANES);
#pragma GCC unroll 12
        for (int i = 0; i < ROWS; i++) {
            const Floats factor = same(a(k, i));
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; v++) sums[i][v] += factor * columns[v];
        }
    }
}

template <int ROWS, int VECTORS>
INLINE void store_panel(const Floats (&sums)[ROWS][VECTORS], float* c, int64_t c_width) {
#pragma GCC unroll 12
    for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++) store(c + i * c_width + v * LANES, sums[i][v]);
}

// c[ROWS, VECTORS * LANES] = a[ROWS, depth] b[depth, PANEL], of b the first VECTORS.
template <int ROWS, int VECTORS>
INLINE void multiply_panel(const float* a, int64_t a_width, const float* b, int64_t depth, float* c,
                           int64_t c_width) {
    Floats sums[ROWS][VECTORS] = {};
    add_panel([=](int64_t k, int64_t i) { return a[i * a_width + k]; }, b, depth, sums);
    store_panel(sums, c, c_width);
}

template <int ROWS, int VECTORS>
INLINE void multiply_rest(int vectors, const float* a, int64_t a_width, const float* b, int64_t depth, float* c,
                          int64_t c_width) {
    if (vectors == VECTORS)
        multiply_panel<ROWS, VECTORS>(a, a_width, b, depth, c, c_width);
    else if constexpr (VECTORS > 1)
        multiply_rest<ROWS, VECTORS - 1>(vectors, a, a_width, b, depth, c, c_width);
}

// c[ROWS, columns] = a[ROWS, depth] b, where b is [depth, columns] in panels; columns in whole vectors.
template <int ROWS>
void multiply(const float* a, int64_t a_width, const float* panels, int64_t depth, float* c, int64_t c_width,
              int64_t columns) {
    int64_t column = 0;
    for (; column + PANEL <= columns; column += PANEL)
        multiply_panel<ROWS, PANEL_VECTORS>(a, a_width, panels + column * depth, depth, c + column, c_width);
    if (column < columns)
        multiply_rest<ROWS, PANEL_VECTORS - 1>((columns - column) / LANES, a, a_width, panels + column * depth,
                                               depth, c + column, c_width);
}

// Lays [columns, depth] out as [depth, columns] in panels; columns up to the next whole panel become 0. `width`:
// from one column to the next.
template <typename T>
void pack_transposed(const T* from, int64_t width, int64_t columns, int64_t depth, float* panels) {
    for (int64_t first = 0; first < columns; first += PANEL, panels += PANEL * depth)
        for (int64_t vector = 0; vector < PANEL; vector += LANES)
            for (int64_t d = 0; d < depth; d += LANES) {
                const int64_t left = columns - first - vector, deep = depth - d < LANES ? depth - d : LANES;
                Floats square[LANES];
                for (int i = 0; i < LANES; i++) {
                    const T* at = from + (first + vector + i) * width + d;
                    square[i] = i >= left ? Floats{} : deep == LANES ? load(at) : load_first(at, deep);
                }
                transpose(square);
                for (int64_t i = 0; i < deep; i++) store(panels + (d + i) * PANEL + vector, square[i]);
            }
}
