// Sparse changes of the shared weight (diff pruning, or MaskBERT at few rows) for many tasks.
#include "element.cuh"
#include "tile.cuh"

constexpr int AT_ONCE = 4;          // changes of an output: many have no more
constexpr int DELTA_ROWS = 8;       // of a tile: 16 bytes of two-byte elements, read at once
constexpr int DELTA_THREADS = 512;  // each with an output: enough that reading the tile is little beside it

// Some rows of one column of a tile: what a thread turns at once.
constexpr int TURN_ROWS = 4;
template <typename T>
struct alignas(TURN_ROWS * sizeof(T)) RowsOfColumn {
    T values[TURN_ROWS];
};

// Where a column lies in shared memory: among its eight, turned by which eight they are. So threads
// that store the same one of their eight columns do it to different banks.
__device__ inline int place_of(int column) { return column ^ (column >> 3 & 7); }

// Some changes of an output, on their way from memory: all are asked for before the first is used.
template <typename T>
struct Changes {
    int columns[AT_ONCE];
    T values[AT_ONCE];
};

// Where a slot's changes lie.
template <typename T>
struct OwnChanges {
    const short* columns;
    const T* values;   // null: dropped weights
    const T* weights;  // of the output

    __device__ Changes<T> fetch(int change, int end) const {
        Changes<T> found;
#pragma unroll
        for (int j = 0; j < AT_ONCE; j++) found.columns[j] = change + j < end ? columns[change + j] : 0;
#pragma unroll
        for (int j = 0; j < AT_ONCE; j++) {
            const T* place = values == nullptr ? weights + found.columns[j] : values + change + j;
            found.values[j] = change + j < end ? *place : from_float<T>(0.0f);
        }
        return found;
    }
};

// Semantics: y[r, o] += sum over the changes (o, c, v) of slot s of v * x[r, c], s the slot of r's
// tile; where the slot's weights are dropped, v is -weight[o, c].
//
// The tile lies in shared memory column by column, so that a thread, which has one output at a
// time, reads a change once for all rows:
//
//     x_columns[c]: row 0, row 1, ... row 7     one change (c, v): sums[0..7] += v * x_columns[c]
//
// A block waits for memory more than for anything else, so the first changes are on their way
// while the tile is turned, and the next ones while some are added.
//
// Grid: (tiles, ceil(num_out / threads)). Dynamic shared memory: num_in * DELTA_ROWS elements.
template <typename T>
__global__ void __launch_bounds__(DELTA_THREADS, sizeof(T) == 2 ? 2 : 1)
    sparse_delta(T* y,                           // [rows, num_out]
                 const T* x,                     // [rows, num_in]
                 const T* weight,                // [num_out, num_in]
                 const short* columns,           // one slot's changes behind another's
                 const T* values,                // likewise
                 const int* row_offsets,         // [slots, num_out + 1], within a slot
                 const long long* first_column,  // [slots]: where in `columns`
                 const long long* first_value,   // [slots]: where in `values`, -1: dropped
                 const int* tiles,               // [tiles, 3]: slot, first row, rows
                 int num_out, int num_in) {
    extern __shared__ __align__(16) unsigned char shared_bytes[];
    T* x_columns = reinterpret_cast<T*>(shared_bytes);
    const Tile tile = read_tile(tiles, blockIdx.x);
    if (tile.slot < 0) return;
    const int output = blockIdx.y * blockDim.x + threadIdx.x;
    const bool is_dropped = first_value[tile.slot] < 0;
    const OwnChanges<T> own{columns + first_column[tile.slot],
                            is_dropped ? nullptr : values + first_value[tile.slot],
                            weight + static_cast<long long>(output) * num_in};
    int change = 0, end = 0;
    if (output < num_out) {
        const int* offsets = row_offsets + static_cast<long long>(tile.slot) * (num_out + 1) + output;
        change = offsets[0];
        end = offsets[1];
    }
    Changes<T> next = own.fetch(change, end);

    const T* x_tile = x + static_cast<long long>(tile.first_row) * num_in;
    // A thread turns a pack of some rows into columns; `place_of` keeps their stores off one bank.
    for (int i = threadIdx.x; i < num_in / Pack<T>::SIZE * (DELTA_ROWS / TURN_ROWS); i += blockDim.x) {
        const int column = i / (DELTA_ROWS / TURN_ROWS) * Pack<T>::SIZE;
        const int first_row = i % (DELTA_ROWS / TURN_ROWS) * TURN_ROWS;
        Pack<T> packs[TURN_ROWS];
#pragma unroll
        for (int row = 0; row < TURN_ROWS; row++)
            packs[row] = first_row + row < tile.num_rows
                             ? load_pack(x_tile + static_cast<long long>(first_row + row) * num_in + column)
                             : zero_pack<T>();
#pragma unroll
        for (int j = 0; j < Pack<T>::SIZE; j++) {
            RowsOfColumn<T> rows;
#pragma unroll
            for (int row = 0; row < TURN_ROWS; row++) rows.values[row] = packs[row].values[j];
            *reinterpret_cast<RowsOfColumn<T>*>(x_columns + place_of(column + j) * DELTA_ROWS + first_row) = rows;
        }
    }
    T* place = y + static_cast<long long>(tile.first_row) * num_out + output;
    float sums[DELTA_ROWS];  // on top of what is there; unrolled, so that they stay in registers
#pragma unroll
    for (int row = 0; row < DELTA_ROWS; row++)
        sums[row] = output < num_out && row < tile.num_rows ? to_float(place[static_cast<long long>(row) * num_out]) : 0.0f;
    __syncthreads();

    if (output >= num_out) return;
    const float sign = is_dropped ? -1.0f : 1.0f;
    for (; change < end; change += AT_ONCE) {
        const Changes<T> now = next;
        if (change + AT_ONCE < end) next = own.fetch(change + AT_ONCE, end);
#pragma unroll
        for (int j = 0; j < AT_ONCE; j++) {
            if (change + j >= end) break;  // not 0 * x, which is no number where x is none
            const float value = sign * to_float(now.values[j]);
#pragma unroll
            for (int row = 0; row < DELTA_ROWS; row += Pack<T>::SIZE) {
                const Pack<T> pack = load_pack(x_columns + place_of(now.columns[j]) * DELTA_ROWS + row);
#pragma unroll
                for (int i = 0; i < Pack<T>::SIZE; i++) sums[row + i] += value * to_float(pack.values[i]);
            }
        }
    }
#pragma unroll
    for (int row = 0; row < DELTA_ROWS; row++)
        if (row < tile.num_rows)
            place[static_cast<long long>(row) * num_out] = from_float<T>(sums[row]);
}
