/* Vectors of floats as wide as the registers, in the notation of GCC and Clang, for AVX-512, AVX, SSE and NEON. Nothing
 * depends on -ffast-math: infinities and NaN keep their meaning. */
#ifndef HF_GPT_VECTORS_H
#define HF_GPT_VECTORS_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif

#define INLINE static inline __attribute__((always_inline))

typedef float vec __attribute__((vector_size(LANES * 4)));
typedef int32_t ivec __attribute__((vector_size(LANES * 4)));
typedef uint32_t uvec __attribute__((vector_size(LANES * 4)));

INLINE vec load(const float *from) {
    vec v;
    memcpy(&v, from, sizeof v);
    return v;
}

INLINE void store(float *to, vec v) { memcpy(to, &v, sizeof v); }

INLINE vec splat(float x) { return x - (vec){0}; }

INLINE vec select_vec(ivec mask, vec a, vec b) { return (vec)((mask & (ivec)a) | (~mask & (ivec)b)); }

INLINE vec max_vec(vec a, vec b) { return select_vec(a > b, a, b); }

INLINE float sum_lanes(vec v) {
    float lanes[LANES], sum = 0;
    store(lanes, v);
    for (int i = 0; i < LANES; i++) sum += lanes[i];
    return sum;
}

INLINE float max_lanes(vec v) {
    float lanes[LANES], most = -INFINITY;
    store(lanes, v);
    for (int i = 0; i < LANES; i++) most = lanes[i] > most ? lanes[i] : most;
    return most;
}

/* Whether a mask, whose lanes are 0 or -1, has any. */
INLINE int any_lane(ivec mask) {
    int32_t lanes[LANES], found = 0;
    memcpy(lanes, &mask, sizeof mask);
    for (int i = 0; i < LANES; i++) found |= lanes[i];
    return found != 0;
}

/* e^x to about 2 units in the last place; 0 below -87.3 (so for -inf too), NaN for NaN. The polynomial is that of expf
 * in Cephes (S. Moshier). */
INLINE vec exp_vec(vec x) {
    const float rounding = 12582912.0f; /* 1.5 * 2^23: adding it rounds to a whole number */
    const vec high = splat(88.0f), low = splat(-87.3f);
    ivec is_zero = x < low;
    x = select_vec(x > high, high, select_vec(is_zero, low, x));
    vec shifted = x * 1.44269504088896341f + rounding;
    vec n = shifted - rounding;
    vec r = x - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    vec y = r * 1.9875691500e-4f + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    y = y * (r * r) + r + 1.0f;
    ivec power = ((ivec)shifted - (ivec)splat(rounding) + 127) << 23;
    return (vec)(~is_zero & (ivec)(y * (vec)power));
}

INLINE vec tanh_vec(vec x) { return 1.0f - 2.0f / (exp_vec(x + x) + 1.0f); }

/* erf to 1.5e-7 (Abramowitz and Stegun, 7.1.26). */
INLINE vec erf_vec(vec x) {
    vec positive = (vec)((ivec)x & 0x7fffffff);
    vec t = 1.0f / (positive * 0.3275911f + 1.0f);
    vec y = t * 1.061405429f - 1.453152027f;
    y = y * t + 1.421413741f;
    y = y * t - 0.284496736f;
    y = y * t + 0.254829592f;
    y = 1.0f - y * t * exp_vec(-positive * positive);
    return (vec)((ivec)y | ((ivec)x & (ivec)splat(-0.0f)));
}

INLINE uint16_t to_bfloat16(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    if ((bits & 0x7fffffff) > 0x7f800000) return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* Numbers of 16 bits from one register. */
typedef uint16_t halves __attribute__((vector_size(LANES * 2)));

INLINE halves to_bfloat16_vec(vec x) {
    uvec bits = (uvec)x;
    uvec rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16, kept = bits >> 16 | 0x40u;
    return __builtin_convertvector((uvec)select_vec(x == x, (vec)rounded, (vec)kept), halves);
}

/* `n` numbers, two to a word. */
INLINE void round_to_bfloat16(const float *restrict x, int64_t n, uint32_t *words) {
    uint16_t *restrict to = (uint16_t *)words;
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        halves some = to_bfloat16_vec(load(x + i));
        memcpy(to + i, &some, sizeof some);
    }
    for (; i < n; i++) to[i] = to_bfloat16(x[i]);
    if (i % 2) to[i] = 0;
}

enum { RELU, RELU2, SILU, GELU, GELU_TANH };

INLINE vec activate(vec x, int activation) {
    const vec zero = {0};
    switch (activation) {
        case RELU: return select_vec(x < zero, zero, x);
        case RELU2: x = select_vec(x < zero, zero, x); return x * x;
        case SILU: return x / (exp_vec(-x) + 1.0f);
        case GELU: return x * 0.5f * (erf_vec(x * 0.70710678118654752f) + 1.0f);
        default: return x * 0.5f * (tanh_vec((x + x * x * x * 0.044715f) * 0.79788456080286536f) + 1.0f);
    }
}

#endif
