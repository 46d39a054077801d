/* One token of each row of logits by inversion of the distribution function, or the likeliest, with its
 * log-probability under the logits as they are. */
#ifndef HF_GPT_DRAWING_H
#define HF_GPT_DRAWING_H

#include "threads.h"
#include "vectors.h"

/* Masses are summed in floats inside a block and in doubles over blocks. */
#define BLOCK (8 * LANES)

typedef struct {
    const float *logits;
    int64_t vocab_size;
    const double *uniforms; /* NULL: the likeliest token */
    double temperature;
    int64_t *tokens;
    float *logps; /* or NULL */
} Drawing;

static float largest_logit(const float *logits, int64_t n) {
    vec most = splat(-INFINITY), several[4] = {most, most, most, most};
    int64_t i = 0;
    /* Several at once, since each waits for the one before it. */
    for (; i + 4 * LANES <= n; i += 4 * LANES)
        for (int j = 0; j < 4; j++) several[j] = max_vec(load(logits + i + j * LANES), several[j]);
    for (int j = 0; j < 4; j++) most = max_vec(several[j], most);
    for (; i + LANES <= n; i += LANES) most = max_vec(load(logits + i), most);
    float found = max_lanes(most);
    for (; i < n; i++) found = logits[i] > found ? logits[i] : found;
    return found;
}

/* Masses exp((logit - largest) * factor) of the block that begins at `at`; 0 past the end. */
static void masses_of(const Drawing *d, const float *logits, int64_t at, float largest, float factor, float *masses) {
    float some[BLOCK];
    if (at + BLOCK > d->vocab_size) {
        for (int64_t i = 0; i < BLOCK; i++) some[i] = at + i < d->vocab_size ? logits[at + i] : -INFINITY;
        logits = some - at;
    }
    for (int64_t i = 0; i < BLOCK; i += LANES)
        store(masses + i, exp_vec((load(logits + at + i) - largest) * factor));
}

static float mass_of_block(const Drawing *d, const float *logits, int64_t at, float largest, float factor) {
    float masses[BLOCK];
    masses_of(d, logits, at, largest, factor, masses);
    vec sum = {0};
    for (int64_t i = 0; i < BLOCK; i += LANES) sum += load(masses + i);
    return sum_lanes(sum);
}

/* The sum of all masses, and in `blocks` those of the blocks, or NULL. */
static double mass_of(const Drawing *d, const float *logits, float largest, float factor, float *blocks) {
    double sum = 0;
    for (int64_t at = 0; at < d->vocab_size; at += BLOCK) {
        float mass = mass_of_block(d, logits, at, largest, factor);
        if (blocks) blocks[at / BLOCK] = mass;
        sum += mass;
    }
    return sum;
}

/* The token at which the sum of masses passes `share` of the whole, never one without mass. */
static int64_t invert(const Drawing *d, const float *logits, float largest, float factor, const float *blocks,
                      double wanted) {
    double below = 0, height = 0;
    int64_t found = 0, last_block = 0;
    for (int64_t at = 0; at < d->vocab_size; at += BLOCK) {
        double mass = blocks[at / BLOCK];
        if (!(mass > 0)) continue;
        below = height;
        last_block = at;
        height += mass;
        if (height > wanted) break;
    }
    float masses[BLOCK];
    masses_of(d, logits, last_block, largest, factor, masses);
    double inside = 0;
    for (int64_t i = 0; i < BLOCK; i++) inside += masses[i];
    /* A share of the block, so that the order of its sum does not matter. */
    double rest = (wanted - below) / (height - below) * inside, sum = 0;
    for (int64_t i = 0; i < BLOCK; i++) {
        if (!(masses[i] > 0)) continue;
        found = last_block + i;
        sum += masses[i];
        if (sum > rest) break;
    }
    return found;
}

static int64_t place_of(const float *logits, int64_t n, float largest) {
    int64_t i = 0;
    for (; i + BLOCK <= n; i += BLOCK) {
        ivec is_found = {0};
        for (int64_t j = 0; j < BLOCK; j += LANES) is_found |= load(logits + i + j) == largest;
        if (any_lane(is_found)) break;
    }
    for (; i < n; i++)
        if (logits[i] == largest) return i;
    return 0;
}

static void draw_piece(void *context, int row) {
    const Drawing *d = context;
    const float *logits = d->logits + row * d->vocab_size;
    float largest = largest_logit(logits, d->vocab_size), factor = (float)(1 / d->temperature);
    if (!d->uniforms) {
        d->tokens[row] = place_of(logits, d->vocab_size, largest);
        if (d->logps) d->logps[row] = -(float)log(mass_of(d, logits, largest, 1, NULL));
        return;
    }
    float blocks[d->vocab_size / BLOCK + 1];
    double total = mass_of(d, logits, largest, 1, blocks), reshaped = total;
    if (factor != 1) reshaped = mass_of(d, logits, largest, factor, blocks);
    int64_t token = invert(d, logits, largest, factor, blocks, d->uniforms[row] * reshaped);
    d->tokens[row] = token;
    if (d->logps) d->logps[row] = logits[token] - largest - (float)log(total);
}

#endif
