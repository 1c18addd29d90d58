// Sparse changes of the shared weight (diff pruning, or MaskBERT at few rows) for many tasks.
#include "element.cuh"
#include "tensor_core.cuh"
#include "tile.cuh"

// Rows of a tile; threads of a block, as many as it has outputs; blocks of a multiprocessor, at least.
template <typename T>
struct DeltaShape {  // of two bytes
    static constexpr int ROWS = 16, THREADS = 384, BLOCKS = 2;
};
template <>
struct DeltaShape<float> {
    static constexpr int ROWS = 8, THREADS = 512, BLOCKS = 1;
};

// A slot's changes of the weight [num_out, num_in]. Those of an output lie side by side, and the
// next output's behind them.
template <typename T>
struct OwnChanges {
    const int* offsets;    // [num_out + 1]
    const short* columns;  // of the weight
    const T* values;       // null: the shared weights are dropped
    const T* weight;
    int num_in;

    __device__ T value(int change, int output) const {
        if (values != nullptr) return values[change];
        return from_float<T>(-to_float(weight[static_cast<long long>(output) * num_in + columns[change]]));
    }
};

// Where a column of eight rows lies in shared memory: among its eight, turned by which eight they
// are. So threads that store the same one of their eight columns do it to different banks.
__device__ inline int place_of(int column) { return column ^ (column >> 3 & 7); }

// Some rows of a tile, of which a thread turns a pack of each: into four bytes of a column at a time.
constexpr int TURN_ROWS = 4;

// Brings a tile into shared memory column by column: first the rows 0 to 7 of all columns, then the
// rows 8 to 15, if there are any.
template <typename T>
__device__ void turn_tile(T* x_columns, const T* x_tile, int num_rows, int num_in) {
    constexpr int PARTS = DeltaShape<T>::ROWS / TURN_ROWS;
    for (int i = threadIdx.x; i < num_in / Pack<T>::SIZE * PARTS; i += DeltaShape<T>::THREADS) {
        const int column = i / PARTS * Pack<T>::SIZE, first_row = i % PARTS * TURN_ROWS;
        unsigned words[TURN_ROWS][4];
#pragma unroll
        for (int row = 0; row < TURN_ROWS; row++) {
            const T* place = x_tile + static_cast<long long>(first_row + row) * num_in + column;
            const uint4 bytes = first_row + row < num_rows ? load_bytes(place) : ZERO_BYTES;
            memcpy(words[row], &bytes, sizeof(bytes));
        }
        T* eight_rows = x_columns + first_row / 8 * 8 * num_in + first_row % 8;
#pragma unroll
        for (int j = 0; j < Pack<T>::SIZE; j++) {
            T* place = eight_rows + place_of(column + j) * 8;
            if constexpr (sizeof(T) == 4) {
                store_bytes(place, make_uint4(words[0][j], words[1][j], words[2][j], words[3][j]));
            } else {
                const unsigned half = j % 2 ? 0x7632 : 0x5410;  // the upper two bytes of two words, or the lower
                *reinterpret_cast<uint2*>(place) = make_uint2(__byte_perm(words[0][j / 2], words[1][j / 2], half),
                                                              __byte_perm(words[2][j / 2], words[3][j / 2], half));
            }
        }
    }
}

// By FMAs: a thread has one output, and reads each of its changes once for all rows:
//
//     x_columns[c]: row 0, row 1, ... row 7     one change (c, v): sums[0..7] += v * x_columns[c]
template <typename T>
class DeltaSums {
    static constexpr int AT_ONCE = 4;  // changes that are on their way before the first is used
    const OwnChanges<T>& own;
    const int output;

public:
    __device__ DeltaSums(const OwnChanges<T>& own_changes, int)
        : own(own_changes), output(blockIdx.y * DeltaShape<T>::THREADS + threadIdx.x) {}

    __device__ void add_to(T* y_tile, const T* x_columns, int num_rows, int num_out) {
        if (output >= num_out) return;
        float sums[8] = {};
        const int end = own.offsets[output + 1];
        for (int change = own.offsets[output]; change < end; change += AT_ONCE) {
            int columns[AT_ONCE];
            float values[AT_ONCE];
#pragma unroll
            for (int j = 0; j < AT_ONCE; j++) columns[j] = change + j < end ? own.columns[change + j] : 0;
#pragma unroll
            for (int j = 0; j < AT_ONCE; j++)
                values[j] = change + j < end ? to_float(own.value(change + j, output)) : 0.0f;
#pragma unroll
            for (int j = 0; j < AT_ONCE; j++) {
                if (change + j >= end) break;  // not 0 * x, which is no number where x is none
                const T* rows = x_columns + place_of(columns[j]) * 8;
#pragma unroll
                for (int row = 0; row < 8; row += Pack<T>::SIZE) {
                    const Pack<T> pack = load_pack(rows + row);
#pragma unroll
                    for (int i = 0; i < Pack<T>::SIZE; i++) sums[row + i] += values[j] * to_float(pack.values[i]);
                }
            }
        }
#pragma unroll  // so that the sums stay in registers
        for (int row = 0; row < 8; row++)
            if (row < num_rows) {
                T& target = y_tile[static_cast<long long>(row) * num_out + output];
                target = from_float<T>(to_float(target) + sums[row]);
            }
    }
};

// By tensor cores: a warp has four times eight outputs, whose changes lie one behind the other, and
// multiplies 16 rows with 16 of the changes of eight outputs at a time:
//
//              16 changes (c, v)                     8 outputs
//          +----------------------+           +-------------------+
//     16   | x[r, c]: ldmatrix    |       16  | v, if it is a     |
//    rows  | gathers columns of   |  changes  | change of the     |
//          | the turned tile      |           | output; else 0    |
//          +----------------------+           +-------------------+
//
// The four wait for memory at the same time: for the first changes while the tile is turned, for
// the next ones while some are multiplied. A zero may meet an x that is no number: then the shared
// product is none either, in all outputs.
template <typename T, bool DROPPED>
class DeltaMatrices {
    static constexpr int EIGHTS = 4, CHANGES = 16;
    struct alignas(2 * sizeof(T)) Pair {
        T values[2];
    };
    const OwnChanges<T>& own;
    const int lane = threadIdx.x % 32;
    const int first_output = blockIdx.y * DeltaShape<T>::THREADS + threadIdx.x / 32 * 8 * EIGHTS;
    int num_steps = 0;
    // Where the changes of each eight begin, and of all end; those of the output that the lane gives
    // values of: the first one behind the first of the eight, and their number.
    int begin[EIGHTS + 1], own_first[EIGHTS];
    unsigned own_number[EIGHTS];
    // Of one change of each eight: which the lane gives the place of the rows of, and the bits of
    // the value, which it gives to the lanes that ask.
    int columns[EIGHTS];
    unsigned values[EIGHTS];

    static __device__ unsigned bits_of(T value) {
        unsigned short bits;
        memcpy(&bits, &value, sizeof(bits));
        return bits;
    }

    __device__ void fetch(int i, int step) {
        const int change = begin[i] + CHANGES * step + lane % 8 + lane / 16 * 8;
        const bool is_inside = change < begin[i + 1];
        columns[i] = is_inside ? own.columns[change] : 0;
        if (!DROPPED) values[i] = is_inside ? bits_of(own.values[change]) : 0u;
    }

    // Returns the bits of a change's value, or 0 where it is none of the output's.
    __device__ unsigned own_value(int i, int step, int number) const {
        const int source = number + (number & 8);
        const bool is_own = static_cast<unsigned>(CHANGES * step + number - own_first[i]) < own_number[i];
        if (!DROPPED) {
            const unsigned bits = __shfl_sync(0xffffffffu, values[i], source);
            return is_own ? bits : 0u;
        }
        const int column = __shfl_sync(0xffffffffu, columns[i], source);
        const long long row = first_output + 8 * i + lane / 4;
        return is_own ? bits_of(from_float<T>(-to_float(own.weight[row * own.num_in + column]))) : 0u;
    }

public:
    __device__ DeltaMatrices(const OwnChanges<T>& own_changes, int num_out) : own(own_changes) {
#pragma unroll
        for (int i = 0; i <= EIGHTS; i++) begin[i] = own.offsets[min(first_output + 8 * i, num_out)];
#pragma unroll
        for (int i = 0; i < EIGHTS; i++) {
            const int own_output = min(first_output + 8 * i + lane / 4, num_out - 1);
            own_first[i] = own.offsets[own_output] - begin[i];
            own_number[i] = own.offsets[own_output + 1] - own.offsets[own_output];
            num_steps = max(num_steps, (begin[i + 1] - begin[i] + CHANGES - 1) / CHANGES);
            fetch(i, 0);
        }
    }

    __device__ void add_to(T* y_tile, const T* x_columns, int num_rows, int num_out) {
        const T* eight_rows = x_columns + lane / 8 % 2 * 8 * own.num_in;
        const int number = lane % 4 * 2;
        float sums[EIGHTS][4] = {};
        for (int step = 0; step < num_steps; step++)
#pragma unroll
            for (int i = 0; i < EIGHTS; i++) {
                unsigned rows[4];
                load_transposed_matrices(rows, eight_rows + place_of(columns[i]) * 8);
                const unsigned upper = own_value(i, step, number) | own_value(i, step, number + 1) << 16;
                const unsigned lower = own_value(i, step, number + 8) | own_value(i, step, number + 9) << 16;
                if (step + 1 < num_steps) fetch(i, step + 1);
                multiply_add<T>(sums[i], rows, upper, lower);
            }
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int row = lane / 4 + 8 * half;
            if (row >= num_rows) return;
            T* place = y_tile + static_cast<long long>(row) * num_out + first_output + lane % 4 * 2;
            Pair pairs[EIGHTS];
#pragma unroll
            for (int i = 0; i < EIGHTS; i++)
                if (first_output + 8 * i < num_out) pairs[i] = *reinterpret_cast<const Pair*>(place + 8 * i);
#pragma unroll
            for (int i = 0; i < EIGHTS; i++) {
                if (first_output + 8 * i >= num_out) break;
#pragma unroll
                for (int odd = 0; odd < 2; odd++)
                    pairs[i].values[odd] = from_float<T>(to_float(pairs[i].values[odd]) + sums[i][2 * half + odd]);
                *reinterpret_cast<Pair*>(place + 8 * i) = pairs[i];
            }
        }
    }
};

// Adds a tile's changes; what does not depend on x is on its way before the tile is turned.
template <typename T, typename Delta>
__device__ void add_tile(T* y_tile, const T* x_tile, T* x_columns, const OwnChanges<T>& own, int num_rows, int num_out) {
    Delta delta(own, num_out);
    turn_tile(x_columns, x_tile, num_rows, own.num_in);
    __syncthreads();
    delta.add_to(y_tile, x_columns, num_rows, num_out);
}

// Semantics: y[r, o] += sum over the changes (o, c, v) of slot s of v * x[r, c], s the slot of r's
// tile; where the slot's weights are dropped, v is -weight[o, c].
//
// Grid: (tiles, ceil(num_out / THREADS)). Dynamic shared memory: num_in * ROWS elements.
template <typename T>
__global__ void __launch_bounds__(DeltaShape<T>::THREADS, DeltaShape<T>::BLOCKS)
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
    const long long value = first_value[tile.slot];
    const OwnChanges<T> own{row_offsets + static_cast<long long>(tile.slot) * (num_out + 1),
                            columns + first_column[tile.slot], value < 0 ? nullptr : values + value, weight, num_in};
    const T* x_tile = x + static_cast<long long>(tile.first_row) * num_in;
    T* y_tile = y + static_cast<long long>(tile.first_row) * num_out;
    // Tensor cores would round the products of floats to ten bits.
    if constexpr (sizeof(T) == 4)
        add_tile<T, DeltaSums<T>>(y_tile, x_tile, x_columns, own, tile.num_rows, num_out);
    else if (value < 0)
        add_tile<T, DeltaMatrices<T, true>>(y_tile, x_tile, x_columns, own, tile.num_rows, num_out);
    else
        add_tile<T, DeltaMatrices<T, false>>(y_tile, x_tile, x_columns, own, tile.num_rows, num_out);
}
