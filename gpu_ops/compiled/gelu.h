// GELU by the error function (Hendrycks and Gimpel 2016).
#pragma once
#include "vector.h"

// x Phi(x) is max(x, 0) less |x| Phi(-|x|), a bump of at most 0.17: its error stays small beside 1 wherever x
// is, also where Phi(x) by itself would cancel. Phi(-a) exp(a^2 / 2) is smooth, a ratio of two polynomials.
INLINE Floats gelu(Floats x) {
    const Floats size = min_keeping_nan(size_of(x), same(13.0f));  // beyond, the bump is 0 in float32
    Floats above = 4.403915079e-2f * size + 2.268771014e-1f;        // minimax over [0, 6], weighted by the bump
    above = above * size + 5.000022420e-1f;
    Floats below = 1.090743018e-1f * size + 5.863944156e-1f;
    below = below * size + 1.251712574f;
    below = below * size + 1.0f;
    const Floats bump = size * (above / below) * exp2_within(size * size * -0.721347520f);
    return max_keeping_nan(x, Floats{}) - bump;
}
