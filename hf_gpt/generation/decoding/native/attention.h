/* Attention of single tokens to what is in the cache.
 *
 * The cache of a layer holds 4-byte words for each slot (a text) and key/value head. A word is one float, or two
 * bfloat16 with the first in the lower half.
 * Keys: blocks of LANES tokens, (blocks, words of a head, LANES), so that scores of a block come out side by side. The
 * two bfloat16 of a word are neighbours in the head.
 * Values: (tokens, padded head), or pairs of tokens, with heads padded to LANES.
 * Token t of a text stands at position t: texts are not padded. Unwritten memory may hold anything and is never used.
 */
#ifndef HF_GPT_ATTENTION_H
#define HF_GPT_ATTENTION_H

#include <stdlib.h>

#include "vectors.h"

typedef struct {
    int64_t num_queries, num_keys, head_dim, capacity; /* heads; tokens of a text at most, a multiple of LANES */
    int64_t is_bfloat16;                               /* the cache */
    float scaling, norm_eps;
    int64_t use_qk_norm;
    const float *cos, *sin; /* (positions, head_dim), or NULL */
} Heads;

typedef struct {
    const float *query_norm, *key_norm; /* (head_dim) */
    uint32_t *keys, *values;
    int64_t window; /* tokens that a token sees, including itself; 0: all */
} Cache;

INLINE int64_t padded_dim(const Heads *h) { return (h->head_dim + LANES - 1) / LANES * LANES; }

/* Start of the keys and the values of a text's head. */
INLINE uint32_t *keys_of(const Heads *h, const Cache *cache, int64_t slot, int64_t head) {
    int64_t words = h->is_bfloat16 ? (h->head_dim + 1) / 2 : h->head_dim;
    return cache->keys + (slot * h->num_keys + head) * h->capacity * words;
}

INLINE uint32_t *values_of(const Heads *h, const Cache *cache, int64_t slot, int64_t head) {
    int64_t rows = h->is_bfloat16 ? h->capacity / 2 : h->capacity;
    return cache->values + (slot * h->num_keys + head) * rows * padded_dim(h);
}

/* QK-norm and RoPE of one head, in place. */
static void prepare_head(const Heads *h, float *restrict x, const float *restrict norm, int64_t position) {
    int64_t n = h->head_dim;
    if (h->use_qk_norm) {
        vec squares = {0};
        int64_t done = 0;
        for (; done + LANES <= n; done += LANES) squares += load(x + done) * load(x + done);
        float sum = sum_lanes(squares);
        for (; done < n; done++) sum += x[done] * x[done];
        float factor = 1 / sqrtf(sum / n + h->norm_eps);
        for (int64_t i = 0; i < n; i++) x[i] *= factor * norm[i];
    }
    if (h->cos) {
        const float *restrict cos = h->cos + position * n, *restrict sin = h->sin + position * n;
        int64_t half = n / 2;
        for (int64_t i = 0; i < half; i++) {
            float a = x[i], b = x[i + half];
            x[i] = a * cos[i] - b * sin[i];
            x[i + half] = b * cos[i + half] + a * sin[i + half];
        }
    }
}

/* Prepares key head `head` of one token and its queries, and writes key and value into the cache. */
static void put_head(const Heads *h, const Cache *cache, float *qkv, int64_t head, int64_t slot, int64_t position) {
    int64_t n = h->head_dim, group = h->num_queries / h->num_keys, padded = padded_dim(h);
    for (int64_t g = 0; g < group; g++) prepare_head(h, qkv + (head * group + g) * n, cache->query_norm, position);
    float *key = qkv + (h->num_queries + head) * n, *value = key + h->num_keys * n;
    prepare_head(h, key, cache->key_norm, position);
    uint32_t *keys = keys_of(h, cache, slot, head), *values = values_of(h, cache, slot, head);
    int64_t block = position / LANES * LANES, lane = position % LANES;
    if (h->is_bfloat16) {
        int64_t words = (n + 1) / 2;
        uint32_t rounded[words];
        round_to_bfloat16(key, n, rounded);
        for (int64_t i = 0; i < words; i++) keys[block * words + i * LANES + lane] = rounded[i];
        round_to_bfloat16(value, n, rounded);
        uint16_t *to = (uint16_t *)(values + position / 2 * padded) + position % 2;
        for (int64_t i = 0; i < n; i++) to[2 * i] = ((const uint16_t *)rounded)[i];
    } else {
        float *to = (float *)keys + block * n + lane;
        for (int64_t i = 0; i < n; i++) to[i * LANES] = key[i];
        memcpy(values + position * padded, value, n * sizeof(float));
    }
}

INLINE vec lower(uvec words) { return (vec)(words << 16); }

INLINE vec upper(uvec words) { return (vec)(words & 0xffff0000u); }

INLINE uvec words_at(const uint32_t *from) { return (uvec)load((const float *)from); }

/* Prefetches the same position of the next head, `ahead` words further. */
INLINE void fetch(const uint32_t *from, int64_t ahead) { __builtin_prefetch(from + ahead); }

/* Scores of a block of LANES tokens. */
INLINE vec score_block(int is_bfloat16, const float *restrict query, const uint32_t *restrict keys, int64_t n,
                       int64_t ahead) {
    vec a = {0}, b = {0}, c = {0}, d = {0};
    int64_t i = 0, step = is_bfloat16 ? 2 : 4;
    for (; i + 4 <= n; i += 4, keys += step * LANES) {
        for (int j = 0; j < step; j++) fetch(keys + j * LANES, ahead);
        if (is_bfloat16) {
            uvec first = words_at(keys), second = words_at(keys + LANES);
            a += lower(first) * query[i];
            b += upper(first) * query[i + 1];
            c += lower(second) * query[i + 2];
            d += upper(second) * query[i + 3];
        } else {
            a += (vec)words_at(keys) * query[i];
            b += (vec)words_at(keys + LANES) * query[i + 1];
            c += (vec)words_at(keys + 2 * LANES) * query[i + 2];
            d += (vec)words_at(keys + 3 * LANES) * query[i + 3];
        }
    }
    for (; i < n; i++) {
        uvec words = words_at(keys);
        a += (is_bfloat16 ? i % 2 ? upper(words) : lower(words) : (vec)words) * query[i];
        if (!is_bfloat16 || i % 2) keys += LANES;
    }
    return (a + b) + (c + d);
}

/* Sums of `width` vectors of values, weighted by attention. */
INLINE void mix(int is_bfloat16, int width, const float *restrict shares, const uint32_t *restrict values,
                int64_t stride, int64_t begin, int64_t end, float factor, float *restrict out, int64_t left,
                int64_t ahead) {
    vec acc[4] = {{0}, {0}, {0}, {0}};
    int64_t t = begin;
    if (is_bfloat16) {
        values += begin / 2 * stride;
        if (t % 2) {
            for (int j = 0; j < width; j++) acc[j] += upper(words_at(values + j * LANES)) * shares[t];
            t++;
            values += stride;
        }
        for (; t + 1 < end; t += 2, values += stride)
            for (int j = 0; j < width; j++) {
                uvec words = words_at(values + j * LANES);
                fetch(values + j * LANES, ahead);
                acc[j] += lower(words) * shares[t];
                acc[j] += upper(words) * shares[t + 1];
            }
        if (t < end)
            for (int j = 0; j < width; j++) acc[j] += lower(words_at(values + j * LANES)) * shares[t];
    } else {
        values += begin * stride;
        for (; t < end; t++, values += stride)
            for (int j = 0; j < width; j++) {
                fetch(values + j * LANES, ahead);
                acc[j] += (vec)words_at(values + j * LANES) * shares[t];
            }
    }
    for (int j = 0; j < width; j++) {
        float some[LANES];
        store(some, acc[j] * factor);
        for (int64_t i = 0; i < LANES && j * LANES + i < left; i++) out[j * LANES + i] = some[i];
    }
}

/* Attention of the queries of key head `head`: softmax(scaling q K^T) V into `out` (num_queries, head_dim). */
INLINE void attend_by(int is_bfloat16, const Heads *h, const Cache *cache, const float *qkv, int64_t head, int64_t slot,
                      int64_t position, float *scores, float *out) {
    int64_t n = h->head_dim, group = h->num_queries / h->num_keys, padded = padded_dim(h), end = position + 1;
    int64_t begin = cache->window && end > cache->window ? end - cache->window : 0;
    int64_t first = begin / LANES * LANES, last = (end + LANES - 1) / LANES * LANES;
    int64_t words = is_bfloat16 ? (n + 1) / 2 : n;
    const uint32_t *keys = keys_of(h, cache, slot, head), *values = values_of(h, cache, slot, head);
    int64_t next_keys = keys_of(h, cache, slot, head + 1) - keys;
    int64_t next_values = values_of(h, cache, slot, head + 1) - values;
    for (int64_t g = 0; g < group; g++) {
        const float *query = qkv + (head * group + g) * n;
        for (int64_t t = first; t < last; t += LANES)
            store(scores + t, score_block(is_bfloat16, query, keys + t * words, n, next_keys) * h->scaling);
        for (int64_t t = first; t < begin; t++) scores[t] = -INFINITY;
        for (int64_t t = end; t < last; t++) scores[t] = -INFINITY;
        vec most = load(scores + first), sum = {0};
        for (int64_t t = first; t < last; t += LANES) most = max_vec(load(scores + t), most);
        const vec largest = splat(max_lanes(most));
        for (int64_t t = first; t < last; t += LANES) {
            vec share = exp_vec(load(scores + t) - largest);
            store(scores + t, share);
            sum += share;
        }
        float factor = 1 / sum_lanes(sum), *to = out + (head * group + g) * n;
        for (int64_t i = 0; i < n; i += 4 * LANES) {
            const uint32_t *from = values + i;
            int64_t left = n - i;
#define MIX(width) mix(is_bfloat16, width, scores, from, padded, begin, end, factor, to + i, left, next_values)
            if (left > 3 * LANES) MIX(4);
            else if (left > 2 * LANES) MIX(3);
            else if (left > LANES) MIX(2);
            else MIX(1);
#undef MIX
        }
    }
}

static void attend_head(const Heads *h, const Cache *cache, const float *qkv, int64_t head, int64_t slot,
                        int64_t position, float *scores, float *out) {
    if (h->is_bfloat16) attend_by(1, h, cache, qkv, head, slot, position, scores, out);
    else attend_by(0, h, cache, qkv, head, slot, position, scores, out);
}

#endif
