// Sparse changes of the shared weight (diff pruning, or MaskBERT at few rows) for many tasks.
#include "element.cuh"
#include "tile.cuh"

constexpr int AT_ONCE = 8;     // changes of an output: most have fewer
constexpr int DELTA_ROWS = 8;  // of a tile: 16 bytes of two-byte elements, read at once

// Where a column lies in shared memory: among its eight, turned by which eight they are. So threads
// that store the same one of their eight columns do it to different banks.
__device__ inline int place_of(int column) { return column ^ (column >> 3 & 7); }

// Semantics: y[r, o] += sum over the changes (o, c, v) of slot s of v * x[r, c], s the slot of r's
// tile; where the slot's weights are dropped, v is -weight[o, c].
//
// The tile lies in shared memory column by column, so that a thread, which has one output at a
// time, reads a change once for all rows:
//
//     x_columns[c]: row 0, row 1, ... row 7     one change (c, v): sums[0..7] += v * x_columns[c]
//
// Grid: (tiles, ceil(num_out / outputs_per_block)). Dynamic shared memory: num_in * DELTA_ROWS
// elements.
template <typename T>
__global__ void sparse_delta(T* y,                           // [rows, num_out]
                             const T* x,                     // [rows, num_in]
                             const T* weight,                // [num_out, num_in]
                             const short* columns,           // one slot's changes behind another's
                             const T* values,                // likewise
                             const int* row_offsets,         // [slots, num_out + 1], within a slot
                             const long long* first_column,  // [slots]: where in `columns`
                             const long long* first_value,   // [slots]: where in `values`, -1: dropped
                             const int* tiles,               // [tiles, 3]: slot, first row, rows
                             int num_out, int num_in, int outputs_per_block) {
    extern __shared__ __align__(16) unsigned char shared_bytes[];
    T* x_columns = reinterpret_cast<T*>(shared_bytes);
    const Tile tile = read_tile(tiles, blockIdx.x);
    if (tile.slot < 0) return;
    const T* x_tile = x + static_cast<long long>(tile.first_row) * num_in;
    // A thread turns a pack of each row into columns; `place_of` keeps their stores off one bank.
    for (int i = threadIdx.x; i < num_in / Pack<T>::SIZE; i += blockDim.x) {
        const int column = i * Pack<T>::SIZE;
        Pack<T> packs[DELTA_ROWS];
#pragma unroll
        for (int row = 0; row < DELTA_ROWS; row++)
            packs[row] = row < tile.num_rows ? load_pack(x_tile + static_cast<long long>(row) * num_in + column)
                                             : zero_pack<T>();
#pragma unroll
        for (int j = 0; j < Pack<T>::SIZE; j++)
#pragma unroll
            for (int row = 0; row < DELTA_ROWS; row += Pack<T>::SIZE) {
                Pack<T> pack;
#pragma unroll
                for (int e = 0; e < Pack<T>::SIZE; e++) pack.values[e] = packs[row + e].values[j];
                store_pack(x_columns + place_of(column + j) * DELTA_ROWS + row, pack);
            }
    }
    __syncthreads();

    const int* offsets = row_offsets + static_cast<long long>(tile.slot) * (num_out + 1);
    const short* own_columns = columns + first_column[tile.slot];
    const bool is_dropped = first_value[tile.slot] < 0;
    const T* own_values = is_dropped ? nullptr : values + first_value[tile.slot];
    const int first_output = blockIdx.y * outputs_per_block, left = num_out - first_output;
    const int end_output = first_output + (left < outputs_per_block ? left : outputs_per_block);
    for (int output = first_output + threadIdx.x; output < end_output; output += blockDim.x) {
        const T* weights = weight + static_cast<long long>(output) * num_in;
        float sums[DELTA_ROWS] = {};
        const int end = offsets[output + 1];
        for (int change = offsets[output]; change < end; change += AT_ONCE) {
            // All are on their way from memory before the first is used, also the last few.
            int column[AT_ONCE];
            float value[AT_ONCE];
#pragma unroll
            for (int j = 0; j < AT_ONCE; j++) column[j] = change + j < end ? own_columns[change + j] : 0;
#pragma unroll
            for (int j = 0; j < AT_ONCE; j++) {
                value[j] = 0.0f;
                if (change + j < end)
                    value[j] = is_dropped ? -to_float(weights[column[j]]) : to_float(own_values[change + j]);
            }
#pragma unroll
            for (int j = 0; j < AT_ONCE; j++) {
                if (change + j >= end) break;  // not 0 * x, which is no number where x is none
#pragma unroll
                for (int row = 0; row < DELTA_ROWS; row += Pack<T>::SIZE) {
                    const Pack<T> pack = load_pack(x_columns + place_of(column[j]) * DELTA_ROWS + row);
#pragma unroll
                    for (int i = 0; i < Pack<T>::SIZE; i++) sums[row + i] += value[j] * to_float(pack.values[i]);
                }
            }
        }
        T* place = y + static_cast<long long>(tile.first_row) * num_out + output;
        // Unrolled, so that the sums stay in registers.
#pragma unroll
        for (int row = 0; row < DELTA_ROWS; row++)
            if (row < tile.num_rows) {
                T& target = place[static_cast<long long>(row) * num_out];
                target = from_float<T>(to_float(target) + sums[row]);
            }
    }
}
