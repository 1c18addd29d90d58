// Tensor cores, by the instructions that every card since sm_80 has: PTX defines where their lanes
// have which element ("ldmatrix" and "mma.m16n8k16").
//
// Not by nvcuda::wmma, with which NVRTC 13 reads bfloat16 from shared memory a word at a time and by
// generic addresses, where one ldmatrix does it (and halves are read by ldmatrix).
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

// Semantics: reads four matrices of 8 x 8 two-byte elements from shared memory. Lane l gives the
// place of row l % 8 of matrix l / 8, at a multiple of 16 bytes; of each matrix it gets the elements
// 2 * (l % 4) and 2 * (l % 4) + 1 of row l / 4. All lanes must call it.
__device__ inline void load_matrices(unsigned (&parts)[4], const void* row) {
    const unsigned place = static_cast<unsigned>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(parts[0]), "=r"(parts[1]), "=r"(parts[2]), "=r"(parts[3])
                 : "r"(place)
                 : "memory");
}

// Semantics: sums += left @ right, 16 x 16 by 16 x 8, all lanes together.
//
//   left     of its quarters (rows 0 to 7, columns 0 to 7), (8 to 15, 0 to 7), (0 to 7, 8 to 15) and
//            (8 to 15, 8 to 15) what `load_matrices` gives of rows
//   right    of its upper and lower half what `load_matrices` gives of columns
//   sums     lane l has the columns 2 * (l % 4) and 2 * (l % 4) + 1 of row l / 4, then of row l / 4 + 8
template <typename T>
__device__ void multiply_add(float (&sums)[4], const unsigned (&left)[4], unsigned right_upper, unsigned right_lower);

template <>
__device__ inline void multiply_add<__half>(float (&sums)[4], const unsigned (&left)[4], unsigned right_upper,
                                            unsigned right_lower) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right_upper), "r"(right_lower));
}

template <>
__device__ inline void multiply_add<__nv_bfloat16>(float (&sums)[4], const unsigned (&left)[4], unsigned right_upper,
                                                   unsigned right_lower) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right_upper), "r"(right_lower));
}
