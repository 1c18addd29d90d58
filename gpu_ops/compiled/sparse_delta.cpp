// Sparse changes of a weight, straight from their compact form: written into a copy of it, or as a product
// beside the shared one.
#include "float16.h"

namespace {

// A change as it is held: the columns of row r stand from offset r to offset r + 1.
struct Change {
    const void *columns, *offsets, *values;
    int64_t column_bytes, offset_bytes, value_bytes;

    int64_t offset(int64_t row) const { return integer(offsets, offset_bytes, row); }
    int64_t column(int64_t change) const { return integer(columns, column_bytes, change); }

    // What is added there: a stored value, or the weight itself with the sign changed.
    INLINE float added(int64_t change, float weight) const {
        if (value_bytes == 0) return -weight;
        if (value_bytes == 2) return widened(static_cast<const Float16*>(values)[change]);
        return static_cast<const float*>(values)[change];
    }

  private:
    INLINE static int64_t integer(const void* from, int64_t bytes, int64_t i) {
        return bytes == 2 ? static_cast<const int16_t*>(from)[i] : static_cast<const int32_t*>(from)[i];
    }
};

// `out` has the weight with the changes `before`, whose columns are null where it has anything else.
void patch(const float* weight, float* out, int64_t num_out, int64_t num_in, const Change& change,
           const Change& before) {
    int64_t next = 0, restored = 0;
    for (int64_t row = 0; row < num_out; row++, weight += num_in, out += num_in) {
        if (before.columns == nullptr)
            memcpy(out, weight, num_in * sizeof(float));
        else
            for (const int64_t end = before.offset(row + 1); restored < end; restored++) {
                const int64_t column = before.column(restored);
                out[column] = weight[column];
            }
        for (const int64_t end = change.offset(row + 1); next < end; next++) {
            const int64_t column = change.column(next);
            out[column] = weight[column] + change.added(next, weight[column]);
        }
    }
}

constexpr int MOST_VECTORS = 8;  // of rows side by side: their sums are registers

// Rows of x as columns: [num_in, VECTORS * LANES], zero behind the last row.
template <int VECTORS, typename T>
void pack_rows(const T* x, int64_t num_rows, int64_t num_in, float* columns) {
    for (int v = 0; v < VECTORS; v++)
        for (int64_t k = 0; k < num_in; k += LANES) {
            const int64_t width = num_in - k < LANES ? num_in - k : LANES;
            Floats square[LANES];
            for (int i = 0; i < LANES; i++) {
                const int64_t row = v * LANES + i;
                const T* from = x + row * num_in + k;
                square[i] = row >= num_rows ? Floats{} : width == LANES ? load(from) : load_first(from, width);
            }
            transpose(square);
            for (int64_t i = 0; i < width; i++) store(columns + (k + i) * VECTORS * LANES + v * LANES, square[i]);
        }
}

// Adds sums [VECTORS * LANES rows, LANES outputs], of which there are `width`, to y.
template <int VECTORS, typename T>
void add_sums(Floats (&sums)[VECTORS][LANES], T* y, int64_t num_rows, int64_t num_out, int64_t width) {
    for (int v = 0; v < VECTORS; v++) {
        transpose(sums[v]);
        for (int i = 0; i < LANES && v * LANES + i < num_rows; i++) {
            T* to = y + (v * LANES + i) * num_out;
            if (width == LANES)
                store(to, load(to) + sums[v][i]);
            else
                store_first(to, load_first(to, width) + sums[v][i], width);
        }
    }
}

// One row's changes in the form that the product reads.
struct Factor {
    float value;
    int32_t column;
};

template <int VECTORS, typename T>
void multiply_rows(T* y, const T* x, int64_t num_rows, const float* weight, int64_t num_out, int64_t num_in,
                   const Change& change, float* packed, Factor* factors) {
    pack_rows<VECTORS>(x, num_rows, num_in, packed);
    int64_t next = 0;
    for (int64_t first = 0; first < num_out; first += LANES) {
        const int64_t width = num_out - first < LANES ? num_out - first : LANES;
        Floats sums[VECTORS][LANES] = {};
        for (int64_t i = 0; i < width; i++, weight += num_in) {
            const int64_t end = change.offset(first + i + 1), count = end - next;
            for (int64_t k = 0; k < count; k++, next++) {
                const int64_t column = change.column(next);
                factors[k] = {change.added(next, weight[column]), static_cast<int32_t>(column)};
            }
            Floats of_output[VECTORS] = {};
            for (int64_t k = 0; k < count; k++) {
                const float* columns = packed + static_cast<int64_t>(factors[k].column) * VECTORS * LANES;
                const Floats factor = same(factors[k].value);
#pragma GCC unroll 8
                for (int v = 0; v < VECTORS; v++) of_output[v] += factor * load(columns + v * LANES);
            }
            for (int v = 0; v < VECTORS; v++) sums[v][i] = of_output[v];
        }
        add_sums<VECTORS>(sums, y + first, num_rows, num_out, width);
    }
}

template <int VECTORS, typename T>
void multiply_few(T* y, const T* x, int64_t num_rows, const float* weight, int64_t num_out, int64_t num_in,
                  const Change& change, float* packed, Factor* factors) {
    if (num_rows > VECTORS / 2 * LANES)
        multiply_rows<VECTORS>(y, x, num_rows, weight, num_out, num_in, change, packed, factors);
    else if constexpr (VECTORS > 1)
        multiply_few<VECTORS / 2>(y, x, num_rows, weight, num_out, num_in, change, packed, factors);
}

template <typename T>
void multiply(T* y, const T* x, int64_t num_rows, const float* weight, int64_t num_out, int64_t num_in,
              const Change& change, float* scratch) {
    constexpr int64_t AT_ONCE = MOST_VECTORS * LANES;
    Factor* factors = reinterpret_cast<Factor*>(scratch + num_in * AT_ONCE);
    for (int64_t row = 0; row < num_rows; row += AT_ONCE) {
        const int64_t left = num_rows - row;
        multiply_few<MOST_VECTORS>(y + row * num_out, x + row * num_in, left < AT_ONCE ? left : AT_ONCE, weight,
                                   num_out, num_in, change, scratch, factors);
    }
}

}  // namespace

// How many floats of scratch a product needs.
EXPORT int64_t sparse_product_scratch(int64_t num_in) { return num_in * (MOST_VECTORS * LANES + 2); }

// weight, out [num_out, num_in]. Columns and offsets are int16 or int32, values float16 (2), float32 (4) or none
// (0: the weights are dropped). before_columns: null where `out` holds no other change of this weight.
EXPORT void patch_weight(const float* weight, float* out, int64_t num_out, int64_t num_in, const void* columns,
                         int64_t column_bytes, const void* offsets, int64_t offset_bytes, const void* values,
                         int64_t value_bytes, const void* before_columns, int64_t before_column_bytes,
                         const void* before_offsets, int64_t before_offset_bytes) {
    patch(weight, out, num_out, num_in, Change{columns, offsets, values, column_bytes, offset_bytes, value_bytes},
          Change{before_columns, before_offsets, nullptr, before_column_bytes, before_offset_bytes, 0});
}

// y [num_rows, num_out] += x [num_rows, num_in] times the change of weight [num_out, num_in].
#define DEFINE_ADD_SPARSE_PRODUCT(NAME, T)                                                                   \
    EXPORT void NAME(T* y, const T* x, int64_t num_rows, const float* weight, int64_t num_out,                \
                     int64_t num_in, const void* columns, int64_t column_bytes, const void* offsets,          \
                     int64_t offset_bytes, const void* values, int64_t value_bytes, float* scratch) {         \
        multiply(y, x, num_rows, weight, num_out, num_in,                                                     \
                 Change{columns, offsets, values, column_bytes, offset_bytes, value_bytes}, scratch);         \
    }

DEFINE_ADD_SPARSE_PRODUCT(add_sparse_product_float32, float)
DEFINE_ADD_SPARSE_PRODUCT(add_sparse_product_bfloat16, BFloat16)
