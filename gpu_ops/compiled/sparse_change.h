// One task's sparse change of a weight, in the form in which it is held.
#pragma once
#include "float16.h"

// The columns of row r stand from offset r to offset r + 1.
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
