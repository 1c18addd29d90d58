// Some rows of one task, the unit of the operators that read a task's weight once for many rows.
#pragma once

// What the block knows of its tile. The table has a fixed capacity: unused tiles have slot -1.
struct Tile {
    int slot, first_row, num_rows;
};

__device__ inline Tile read_tile(const int* tiles, int number) {
    const int* entry = tiles + number * 3;
    return Tile{entry[0], entry[1], entry[2]};
}
