// Biases and scales: the rows of each task by a vector of its own, those of all tasks in one call.
#include "float16.h"

namespace {

// A task's vector as it is held, of float16 (2 bytes) or float32 (4), and the rows that it is for.
struct TaskVector {
    int64_t start, end;
    const void* values;
    int64_t bytes;
};

template <typename T, typename V, typename Change>
void change_rows(T* rows, int64_t num_rows, int64_t width, const V* vector, const Change& change) {
    const int64_t whole = width / LANES * LANES, rest = width - whole;
    for (int64_t row = 0; row < num_rows; row++, rows += width) {
        for (int64_t i = 0; i < whole; i += LANES) store(rows + i, change(load(rows + i), load(vector + i)));
        if (rest > 0)
            store_first(rows + whole, change(load_first(rows + whole, rest), load_first(vector + whole, rest)), rest);
    }
}

template <typename T, typename Change>
void change_all(T* x, int64_t width, int64_t num_tasks, const TaskVector* tasks, const Change& change) {
    for (const TaskVector* task = tasks; task < tasks + num_tasks; task++) {
        T* rows = x + task->start * width;
        const int64_t num_rows = task->end - task->start;
        if (task->bytes == 2)
            change_rows(rows, num_rows, width, static_cast<const Float16*>(task->values), change);
        else
            change_rows(rows, num_rows, width, static_cast<const float*>(task->values), change);
    }
}

INLINE Floats sum(Floats x, Floats bias) { return x + bias; }
INLINE Floats product(Floats x, Floats scale) { return x * scale; }

}  // namespace

// x [.., width]: rows start to end of each task are changed by its vector [width]. tasks [num_tasks, 4]: start, end,
// address of the vector, bytes of its elements.
#define DEFINE_VECTORS(NAME, T, CHANGE)                                                          \
    EXPORT void NAME(T* x, int64_t width, int64_t num_tasks, const int64_t* tasks) {              \
        change_all(x, width, num_tasks, reinterpret_cast<const TaskVector*>(tasks),               \
                   [](Floats row, Floats vector) { return CHANGE(row, vector); });                \
    }

DEFINE_VECTORS(add_biases_float32, float, sum)
DEFINE_VECTORS(add_biases_bfloat16, BFloat16, sum)
DEFINE_VECTORS(scale_by_float32, float, product)
DEFINE_VECTORS(scale_by_bfloat16, BFloat16, product)
