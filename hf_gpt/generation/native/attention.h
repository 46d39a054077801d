/* Attention of single tokens to what is in the cache.
 *
 * The cache of a layer has a place for each slot (a text) and key/value head. Keys lie in blocks of LANES tokens,
 * (blocks, head_dim, LANES), so that the scores of a block come out side by side. Values lie token by token,
 * (tokens, head_dim rounded up to LANES). Token t of a text stands at place t: texts are not padded. */
#ifndef HF_GPT_ATTENTION_H
#define HF_GPT_ATTENTION_H

#include <stdlib.h>

#include "vectors.h"

typedef struct {
    int64_t num_queries, num_keys, head_dim, capacity; /* heads; tokens of a text at most, a multiple of LANES */
    float scaling, norm_eps;
    int64_t use_qk_norm;
    const float *cos, *sin; /* (positions, head_dim), or NULL */
} Heads;

typedef struct {
    const float *query_norm, *key_norm; /* (head_dim) */
    float *keys, *values;
    int64_t window; /* tokens that a token sees, itself included; 0: all */
} Cache;

INLINE int64_t padded_dim(const Heads *h) { return (h->head_dim + LANES - 1) / LANES * LANES; }

/* Norm and turn of one head, in place. */
static void prepare_head(const Heads *h, float *restrict x, const float *restrict norm, int64_t position) {
    int64_t n = h->head_dim;
    if (h->use_qk_norm) {
        float sum = 0;
        for (int64_t i = 0; i < n; i++) sum += x[i] * x[i];
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

/* Prepares key head `head` of one token and the queries that read it, and puts key and value into the cache. */
static void put_head(const Heads *h, const Cache *cache, float *qkv, int64_t head, int64_t slot, int64_t position) {
    int64_t n = h->head_dim, group = h->num_queries / h->num_keys, padded = padded_dim(h);
    int64_t place = (slot * h->num_keys + head) * h->capacity;
    for (int64_t g = 0; g < group; g++) prepare_head(h, qkv + (head * group + g) * n, cache->query_norm, position);
    float *key = qkv + (h->num_queries + head) * n, *value = key + h->num_keys * n;
    prepare_head(h, key, cache->key_norm, position);
    float *restrict to = cache->keys + place * n + position / LANES * LANES * n + position % LANES;
    for (int64_t i = 0; i < n; i++) to[i * LANES] = key[i];
    memcpy(cache->values + (place + position) * padded, value, n * sizeof(float));
}

INLINE vec score_block(const float *restrict query, const float *restrict keys, int64_t n) {
    vec a = {0}, b = {0}, c = {0}, d = {0};
    int64_t i = 0;
    for (; i + 4 <= n; i += 4, keys += 4 * LANES) {
        a += load(keys) * query[i];
        b += load(keys + LANES) * query[i + 1];
        c += load(keys + 2 * LANES) * query[i + 2];
        d += load(keys + 3 * LANES) * query[i + 3];
    }
    for (; i < n; i++, keys += LANES) a += load(keys) * query[i];
    return (a + b) + (c + d);
}

/* Sums of `width` vectors of values, weighted. */
INLINE void mix(int width, const float *restrict shares, const float *restrict values, int64_t stride, int64_t begin,
                int64_t end, float factor, float *restrict out, int64_t left) {
    vec acc[4];
    for (int j = 0; j < width; j++) acc[j] = (vec){0};
    for (int64_t t = begin; t < end; t++)
        for (int j = 0; j < width; j++) acc[j] += load(values + t * stride + j * LANES) * shares[t];
    for (int j = 0; j < width; j++) {
        float some[LANES];
        store(some, acc[j] * factor);
        for (int64_t i = 0; i < LANES && j * LANES + i < left; i++) out[j * LANES + i] = some[i];
    }
}

/* What the queries of key head `head` find: softmax(scaling q K^T) V into `out` (num_queries, head_dim). */
static void attend_head(const Heads *h, const Cache *cache, const float *qkv, int64_t head, int64_t slot,
                        int64_t position, float *scores, float *out) {
    int64_t n = h->head_dim, group = h->num_queries / h->num_keys, padded = padded_dim(h);
    int64_t place = (slot * h->num_keys + head) * h->capacity, end = position + 1;
    int64_t begin = cache->window && end > cache->window ? end - cache->window : 0;
    int64_t first = begin / LANES * LANES, last = (end + LANES - 1) / LANES * LANES;
    const float *keys = cache->keys + place * n, *values = cache->values + place * padded;
    for (int64_t g = 0; g < group; g++) {
        const float *query = qkv + (head * group + g) * n;
        for (int64_t t = first; t < last; t += LANES)
            store(scores + t, score_block(query, keys + t * n, n) * h->scaling);
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
            const float *from = values + i;
            if (n - i > 3 * LANES) mix(4, scores, from, padded, begin, end, factor, to + i, n - i);
            else if (n - i > 2 * LANES) mix(3, scores, from, padded, begin, end, factor, to + i, n - i);
            else if (n - i > LANES) mix(2, scores, from, padded, begin, end, factor, to + i, n - i);
            else mix(1, scores, from, padded, begin, end, factor, to + i, n - i);
        }
    }
}

#endif
