// One task's sparse change of a weight, in the form in which it is held.
#pragma once
#include "float16.h"

// What a weight becomes by the i-th change: dropped, or added to.
INLINE float changed(float, const void*, int64_t) { return 0.0f; }
INLINE float changed(float weight, const float* values, int64_t i) { return weight + values[i]; }
INLINE float changed(float weight, const Float16* values, int64_t i) { return weight + widened(values[i]); }

// The columns of row r stand from offset r to offset r + 1.
struct Change {
    const void* columns;
    int64_t column_bytes;
    const void* offsets;
    int64_t offset_bytes;
    const void* values;
    int64_t value_bytes;

    int64_t offset(int64_t row) const { return integer(offsets, offset_bytes, row); }
    int64_t column(int64_t change) const { return integer(columns, column_bytes, change); }

    // What is added there: a stored value, or the weight itself with the sign changed.
    INLINE float added(int64_t change, float weight) const {
        if (value_bytes == 0) return -weight;
        if (value_bytes == 2) return widened(static_cast<const Float16*>(values)[change]);
        return static_cast<const float*>(values)[change];
    }

    // Calls what(columns, values) with pointers of their types; those of dropped weights are void.
    template <typename What>
    void visit(const What& what) const {
        const auto with_values = [&](const auto* narrow_or_wide) {
            if (value_bytes == 0)
                what(narrow_or_wide, values);
            else if (value_bytes == 2)
                what(narrow_or_wide, static_cast<const Float16*>(values));
            else
                what(narrow_or_wide, static_cast<const float*>(values));
        };
        if (column_bytes == 2)
            with_values(static_cast<const int16_t*>(columns));
        else
            with_values(static_cast<const int32_t*>(columns));
    }

  private:
    INLINE static int64_t integer(const void* from, int64_t bytes, int64_t i) {
        return bytes == 2 ? static_cast<const int16_t*>(from)[i] : static_cast<const int32_t*>(from)[i];
    }
};

// Rows of one task and its change, as eight integers.
struct ChangedRows {
    int64_t start, end;
    Change change;
};
