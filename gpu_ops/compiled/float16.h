// What tasks' weights are held in where that loses nothing; only ever read.
#pragma once
#include "vector.h"

struct Float16 {
    uint16_t bits;
};

INLINE float widened(Float16 x) {
#if defined(__F16C__)
    return _cvtsh_ss(x.bits);
#else
    const uint32_t sign = static_cast<uint32_t>(x.bits & 0x8000) << 16, rest = x.bits & 0x7fff;
    uint32_t bits = rest >= 0x7c00 ? rest << 13 | 0x7f800000 : (rest << 13) + (112u << 23);
    float wide;
    if (rest < 0x0400) {  // denormal: rest * 2^-24
        wide = static_cast<float>(rest) * 5.9604644775390625e-8f;
        memcpy(&bits, &wide, sizeof bits);
    }
    bits |= sign;
    memcpy(&wide, &bits, sizeof wide);
    return wide;
#endif
}

INLINE Floats load(const Float16* from) {
#if defined(__AVX512F__) && VECTOR_LANES == 16
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
#elif defined(__F16C__) && VECTOR_LANES == 8
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
#else
    Floats wide;
    for (int i = 0; i < LANES; i++) wide[i] = widened(from[i]);
    return wide;
#endif
}
