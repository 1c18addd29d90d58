// One vector of floats for every processor: as many as a register of the compiled variant holds.
//
// GCC's and Clang's vector extensions alone, so one source compiles for AVX2, AVX-512 and whatever
// else there is. VECTOR_LANES overrides the width, for tests of a width that the processor lacks.
#pragma once
#include <cstdint>
#include <cstring>

#if defined(__AVX__)
#include <immintrin.h>
#endif

#ifndef VECTOR_LANES
#if defined(__AVX512F__)
#define VECTOR_LANES 16
#elif defined(__AVX2__)
#define VECTOR_LANES 8
#else
#define VECTOR_LANES 4
#endif
#endif

#define EXPORT extern "C" __attribute__((visibility("default")))
#define INLINE inline __attribute__((always_inline))

constexpr int LANES = VECTOR_LANES;

typedef float Floats __attribute__((vector_size(LANES * 4)));
typedef int32_t Ints __attribute__((vector_size(LANES * 4)));
typedef uint16_t Shorts __attribute__((vector_size(LANES * 2)));
typedef Floats UnalignedFloats __attribute__((aligned(4), may_alias));
typedef Shorts UnalignedShorts __attribute__((aligned(2), may_alias));

// Stored as the upper half of a float32; sums are never of this type.
struct BFloat16 {
    uint16_t bits;
};

INLINE Floats same(float x) { return x - Floats{}; }
INLINE Floats size_of(Floats x) { return (Floats)((Ints)x & 0x7fffffff); }

// The smaller or larger one, and x where either is NaN. x86 has an instruction that does just this, which
// compilers do not use for it.
INLINE Floats min_keeping_nan(Floats x, Floats other) {
#if defined(__AVX512F__) && VECTOR_LANES == 16
    return _mm512_min_ps(other, x);
#elif defined(__AVX__) && VECTOR_LANES == 8
    return _mm256_min_ps(other, x);
#else
    return x > other ? other : x;
#endif
}

INLINE Floats max_keeping_nan(Floats x, Floats other) {
#if defined(__AVX512F__) && VECTOR_LANES == 16
    return _mm512_max_ps(other, x);
#elif defined(__AVX__) && VECTOR_LANES == 8
    return _mm256_max_ps(other, x);
#else
    return x < other ? other : x;
#endif
}

INLINE Floats load(const float* from) { return *reinterpret_cast<const UnalignedFloats*>(from); }
INLINE void store(float* to, Floats x) { *reinterpret_cast<UnalignedFloats*>(to) = x; }

INLINE Floats load(const BFloat16* from) {
    const Shorts bits = *reinterpret_cast<const UnalignedShorts*>(from);
    return (Floats)(__builtin_convertvector(bits, Ints) << 16);
}

INLINE void store(BFloat16* to, Floats x) {
    const Ints bits = (Ints)x;
    const Ints to_nearest_even = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    const Ints rounded = x == x ? to_nearest_even : (bits >> 16) | 0x40;  // NaN must not round to infinity
    *reinterpret_cast<UnalignedShorts*>(to) = __builtin_convertvector(rounded, Shorts);
}

// Of the last columns of a matrix, fewer than a vector.
template <typename T>
INLINE Floats load_first(const T* from, int64_t count) {
    T whole[LANES] = {};
    memcpy(whole, from, count * sizeof(T));
    return load(whole);
}

template <typename T>
INLINE void store_first(T* to, Floats x, int64_t count) {
    T whole[LANES];
    store(whole, x);
    memcpy(to, whole, count * sizeof(T));
}

INLINE Ints lane_numbers() {
    Ints lanes;
    for (int i = 0; i < LANES; i++) lanes[i] = i;
    return lanes;
}

#if defined(__clang__)
#define PICK(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define PICK(a, b, ...) __builtin_shuffle(a, b, Ints{__VA_ARGS__})
#endif

// {a0 b0 a1 b1 ...}: of the lower and of the upper halves of two vectors.
INLINE Floats zip_lower(Floats a, Floats b) {
#if VECTOR_LANES == 16
    return PICK(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
#elif VECTOR_LANES == 8
    return PICK(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
#else
    return PICK(a, b, 0, 4, 1, 5);
#endif
}

INLINE Floats zip_upper(Floats a, Floats b) {
#if VECTOR_LANES == 16
    return PICK(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
#elif VECTOR_LANES == 8
    return PICK(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
#else
    return PICK(a, b, 2, 6, 3, 7);
#endif
}

// Of a square of LANES rows, in place.
INLINE void transpose(Floats (&rows)[LANES]) {
#pragma GCC unroll 4
    for (int stage = 1; stage < LANES; stage *= 2) {
        Floats zipped[LANES];
#pragma GCC unroll 8
        for (int i = 0; i < LANES / 2; i++) {
            zipped[2 * i] = zip_lower(rows[i], rows[i + LANES / 2]);
            zipped[2 * i + 1] = zip_upper(rows[i], rows[i + LANES / 2]);
        }
#pragma GCC unroll 16
        for (int i = 0; i < LANES; i++) rows[i] = zipped[i];
    }
}

// The lanes of the upper half, quarter and so on in place of the lower ones.
template <int HALF>
INLINE Floats upper_lanes(Floats x) {
#if VECTOR_LANES == 16
    if constexpr (HALF == 8) return PICK(x, x, 8, 9, 10, 11, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15);
    if constexpr (HALF == 4) return PICK(x, x, 4, 5, 6, 7, 4, 5, 6, 7, 4, 5, 6, 7, 4, 5, 6, 7);
    if constexpr (HALF == 2) return PICK(x, x, 2, 3, 2, 3, 2, 3, 2, 3, 2, 3, 2, 3, 2, 3, 2, 3);
    return PICK(x, x, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1);
#elif VECTOR_LANES == 8
    if constexpr (HALF == 4) return PICK(x, x, 4, 5, 6, 7, 4, 5, 6, 7);
    if constexpr (HALF == 2) return PICK(x, x, 2, 3, 2, 3, 2, 3, 2, 3);
    return PICK(x, x, 1, 1, 1, 1, 1, 1, 1, 1);
#else
    if constexpr (HALF == 2) return PICK(x, x, 2, 3, 2, 3);
    return PICK(x, x, 1, 1, 1, 1);
#endif
}

template <int HALF = LANES / 2>
INLINE float sum_of(Floats x) {
    x += upper_lanes<HALF>(x);
    if constexpr (HALF > 1) return sum_of<HALF / 2>(x);
    return x[0];
}

template <int HALF = LANES / 2>
INLINE float max_of(Floats x) {
    x = max_keeping_nan(x, upper_lanes<HALF>(x));
    if constexpr (HALF > 1) return max_of<HALF / 2>(x);
    return x[0];
}

// 2^x, relative error 1e-7; 0 from -127 to -126.5, NaN for NaN. x must be -127 to 127.
INLINE Floats exp2_within(Floats x) {
    const Floats shifted = x + 12582912.0f;  // 1.5 * 2^23: the whole number is in the lowest bits
    const Floats rest = x - (shifted - 12582912.0f);
    Floats power = 1.534581185e-4f * rest + 1.339993122e-3f;  // minimax over [-0.5, 0.5]
    power = power * rest + 9.618488958e-3f;
    power = power * rest + 5.550328777e-2f;
    power = power * rest + 2.402264689e-1f;
    power = power * rest + 6.931472057e-1f;
    power = power * rest + 1.0f;
    return power * (Floats)(((Ints)shifted << 23) + 0x3f800000);
}

// The same for any x up to 127: 0 below -126.5.
INLINE Floats exp2_of(Floats x) { return exp2_within(max_keeping_nan(x, same(-127.0f))); }
