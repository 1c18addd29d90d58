// The element types (float, __half, __nv_bfloat16): 16 bytes read or written at once, sums in fp32.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

__device__ inline float to_float(float value) { return value; }
__device__ inline float to_float(__half value) { return __half2float(value); }
__device__ inline float to_float(__nv_bfloat16 value) { return __bfloat162float(value); }

template <typename T>
__device__ T from_float(float value);
template <>
__device__ inline float from_float<float>(float value) { return value; }
template <>
__device__ inline __half from_float<__half>(float value) { return __float2half_rn(value); }
template <>
__device__ inline __nv_bfloat16 from_float<__nv_bfloat16>(float value) { return __float2bfloat16_rn(value); }

// 16 bytes: 4 floats, or 8 elements of two bytes. Its address must be a multiple of 16.
template <typename T>
struct alignas(16) Pack {
    static constexpr int SIZE = 16 / sizeof(T);
    T values[SIZE];
};

// The bytes of a pack, for those who do not look into them: taken apart they cost instructions.
template <typename T>
__device__ uint4 load_bytes(const T* place) {
    return *reinterpret_cast<const uint4*>(place);  // one load, where a struct may be split
}

template <typename T>
__device__ void store_bytes(T* place, const uint4& bytes) {
    *reinterpret_cast<uint4*>(place) = bytes;
}

constexpr uint4 ZERO_BYTES{0u, 0u, 0u, 0u};

template <typename T>
__device__ Pack<T> load_pack(const T* place) {
    const uint4 bytes = load_bytes(place);
    Pack<T> pack;
    memcpy(&pack, &bytes, sizeof(bytes));
    return pack;
}

template <typename T>
__device__ void store_pack(T* place, const Pack<T>& pack) {
    uint4 bytes;
    memcpy(&bytes, &pack, sizeof(bytes));
    store_bytes(place, bytes);
}

template <typename T>
__device__ Pack<T> zero_pack() {
    Pack<T> pack;
    for (int i = 0; i < Pack<T>::SIZE; i++) pack.values[i] = from_float<T>(0.0f);
    return pack;
}

// The sum over the 32 lanes, in each of them. All lanes must call it.
__device__ inline float warp_sum(float value) {
    for (int flip = 16; flip > 0; flip /= 2) value += __shfl_xor_sync(0xffffffffu, value, flip);
    return value;
}

// The exact one, by the error function.
__device__ inline float gelu(float x) { return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f)); }
