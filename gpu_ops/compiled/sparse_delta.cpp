// Sparse changes of a weight, straight from their compact form: written into a copy of it, or as a product
// beside the shared one.
#include <type_traits>

#include "sparse_change.h"

namespace {

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
constexpr int MOST_ROWS = MOST_VECTORS * LANES;
constexpr int64_t BLOCK = 96 << 10;  // bytes of the weight that all tasks read before the next ones

// Rows of x as columns: [num_in, VECTORS * LANES], zero behind the last row; then a column of zeros.
template <int VECTORS, typename T>
void pack_rows(const T* x, int64_t num_rows, int64_t num_in, float* columns) {
    for (int v = 0; v < VECTORS; v++) {
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
        store(columns + num_in * VECTORS * LANES + v * LANES, Floats{});
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

// Some rows of a change in the form that the product reads.
struct Expanded {
    int32_t* columns;
    float* values;  // unused where weights are dropped

    void fill(const Change& change, int64_t from, int64_t to) {
        int64_t i = from;
        if (change.column_bytes == 2)
            for (const auto* narrow = static_cast<const uint16_t*>(change.columns); i + LANES <= to; i += LANES) {
                const Ints wide =
                    __builtin_convertvector(*reinterpret_cast<const UnalignedShorts*>(narrow + i), Ints);
                memcpy(columns + i - from, &wide, sizeof wide);
            }
        for (; i < to; i++) columns[i - from] = static_cast<int32_t>(change.column(i));
        if (change.value_bytes == 0) return;
        i = from;
        if (change.value_bytes == 2)
            for (const auto* half = static_cast<const Float16*>(change.values); i + LANES <= to; i += LANES)
                store(values + i - from, load(half + i));
        for (; i < to; i++) values[i - from] = change.added(i, 0.0f);
    }
};

// One output of all rows. `factors` has the values of its changes, or is its row of the weight if that is dropped.
template <int VECTORS, bool IS_DROPPED>
INLINE void multiply_output(Floats (&sums)[VECTORS], const int32_t* columns, const float* factors, int64_t count,
                            const float* packed, int64_t num_in) {
    constexpr int STEP = 4, CHAINS = VECTORS >= STEP ? 1 : STEP / VECTORS;  // an addition takes 4 cycles
    Floats chains[CHAINS][VECTORS] = {};
    const auto add = [&](int chain, int64_t k, int64_t column) {
        const Floats factor = same(IS_DROPPED ? factors[columns[k]] : factors[k]);
        const float* from = packed + column * VECTORS * LANES;
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; v++) chains[chain][v] += factor * load(from + v * LANES);
    };
    int64_t k = 0;
    for (; k + STEP <= count; k += STEP)
#pragma GCC unroll 4
        for (int i = 0; i < STEP; i++) add(i % CHAINS, k + i, columns[k + i]);
    // Most rows of a thin change are no longer than a step: one of zeros costs less than a branch that is
    // guessed wrong.
    if (k < count)
#pragma GCC unroll 3
        for (int i = 0; i < STEP - 1; i++) {
            const int64_t there = k + i < count ? ~0 : 0, column = columns[k + (i & there)];
            add(i % CHAINS, k + (i & there), (column & there) | (num_in & ~there));
        }
#pragma GCC unroll 8
    for (int v = 0; v < VECTORS; v++) {
        sums[v] = chains[0][v];
#pragma GCC unroll 4
        for (int c = 1; c < CHAINS; c++) sums[v] += chains[c][v];
        if (IS_DROPPED) sums[v] = -sums[v];
    }
}

// Rows of one task, packed, and how far its change was applied.
template <typename T>
struct Task {
    T* y;
    int64_t num_rows;
    const float* packed;
    Change change;
    int64_t done;
};

template <int VECTORS, bool IS_DROPPED, typename T>
void multiply_outputs(Task<T>& task, const float* weight, int64_t first, int64_t end, int64_t num_out,
                      int64_t num_in, Expanded expanded) {
    expanded.fill(task.change, task.done, task.change.offset(end));
    for (; first < end; first += LANES) {
        const int64_t width = end - first < LANES ? end - first : LANES;
        Floats sums[VECTORS][LANES] = {};
        for (int64_t i = 0; i < width; i++) {
            const int64_t count = task.change.offset(first + i + 1) - task.done;
            Floats of_output[VECTORS];
            multiply_output<VECTORS, IS_DROPPED>(of_output, expanded.columns,
                                                 IS_DROPPED ? weight + (first + i) * num_in : expanded.values,
                                                 count, task.packed, num_in);
            for (int v = 0; v < VECTORS; v++) sums[v][i] = of_output[v];
            task.done += count;
            expanded.columns += count;
            expanded.values += count;
        }
        add_sums<VECTORS>(sums, task.y + first, task.num_rows, num_out, width);
    }
}

// Calls what(vectors), a constant: the least power of two that holds the rows.
template <int VECTORS = MOST_VECTORS, typename What>
void with_vectors(int64_t num_rows, const What& what) {
    if constexpr (VECTORS > 1) {
        if (num_rows <= VECTORS / 2 * LANES) return with_vectors<VECTORS / 2>(num_rows, what);
    }
    what(std::integral_constant<int, VECTORS>{});
}

// Tasks of at most MOST_ROWS together, packed: block after block of the weight, so that it is read once.
template <typename T>
void multiply_together(Task<T>* tasks, int64_t num_tasks, const float* weight, int64_t num_out, int64_t num_in,
                       int64_t block, const Expanded& expanded) {
    for (int64_t first = 0; first < num_out; first += block) {
        const int64_t end = num_out - first < block ? num_out : first + block;
        for (Task<T>* task = tasks; task < tasks + num_tasks; task++)
            with_vectors(task->num_rows, [&](auto vectors) {
                if (task->change.value_bytes == 0)
                    multiply_outputs<vectors, true>(*task, weight, first, end, num_out, num_in, expanded);
                else
                    multiply_outputs<vectors, false>(*task, weight, first, end, num_out, num_in, expanded);
            });
    }
}

int64_t outputs_in_block(int64_t num_in) {
    const int64_t outputs = BLOCK / (num_in * static_cast<int64_t>(sizeof(float))) / LANES * LANES;
    return outputs < LANES ? LANES : outputs;
}

template <typename T>
void multiply(T* y, const T* x, const float* weight, int64_t num_out, int64_t num_in, int64_t num_tasks,
              const ChangedRows* given, float* scratch) {
    const int64_t block = outputs_in_block(num_in);
    float* const packed = scratch + 2 * block * num_in;
    const Expanded expanded{reinterpret_cast<int32_t*>(scratch), scratch + block * num_in};
    Task<T> tasks[MOST_VECTORS];
    int64_t num_together = 0, num_vectors = 0;
    const auto finish = [&] {
        multiply_together(tasks, num_together, weight, num_out, num_in, block, expanded);
        num_together = num_vectors = 0;
    };
    for (const ChangedRows* one = given; one < given + num_tasks; one++)
        for (int64_t row = one->start; row < one->end; row += MOST_ROWS) {
            const int64_t num_rows = one->end - row < MOST_ROWS ? one->end - row : MOST_ROWS;
            with_vectors(num_rows, [&](auto vectors) {
                if (num_vectors + vectors > MOST_VECTORS) finish();
                float* columns = packed + num_vectors * LANES * (num_in + 1);
                pack_rows<vectors>(x + row * num_in, num_rows, num_in, columns);
                tasks[num_together++] = Task<T>{y + row * num_out, num_rows, columns, one->change, 0};
                num_vectors += vectors;
            });
        }
    finish();
}

}  // namespace

// How many floats of scratch a product needs.
EXPORT int64_t sparse_products_scratch(int64_t num_in) {
    return 2 * outputs_in_block(num_in) * num_in + MOST_ROWS * (num_in + 1);
}

// weight, out [num_out, num_in]. Columns and offsets are int16 or int32, values float16 (2), float32 (4) or none
// (0: the weights are dropped). before_columns: null where `out` holds no other change of this weight.
EXPORT void patch_weight(const float* weight, float* out, int64_t num_out, int64_t num_in, const void* columns,
                         int64_t column_bytes, const void* offsets, int64_t offset_bytes, const void* values,
                         int64_t value_bytes, const void* before_columns, int64_t before_column_bytes,
                         const void* before_offsets, int64_t before_offset_bytes) {
    patch(weight, out, num_out, num_in, Change{columns, column_bytes, offsets, offset_bytes, values, value_bytes},
          Change{before_columns, before_column_bytes, before_offsets, before_offset_bytes, nullptr, 0});
}

// y [.., num_out] += x [.., num_in] times each task's change of weight [num_out, num_in], in its rows. tasks
// [num_tasks, 8]: start and end of the rows; address and bytes of an element of columns, offsets and values.
#define DEFINE_ADD_SPARSE_PRODUCTS(NAME, T)                                                                  \
    EXPORT void NAME(T* y, const T* x, const float* weight, int64_t num_out, int64_t num_in,                  \
                     int64_t num_tasks, const int64_t* tasks, float* scratch) {                               \
        multiply(y, x, weight, num_out, num_in, num_tasks, reinterpret_cast<const ChangedRows*>(tasks), scratch);   \
    }

DEFINE_ADD_SPARSE_PRODUCTS(add_sparse_products_float32, float)
DEFINE_ADD_SPARSE_PRODUCTS(add_sparse_products_bfloat16, BFloat16)
