/* One token of each row of logits, by inversion of the distribution function or the likeliest, and its log-probability
 * in that distribution. */
#ifndef HF_GPT_SAMPLING_H
#define HF_GPT_SAMPLING_H

#include "threads.h"
#include "truncation.h"
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
    float *model_logps; /* at temperature 1 of all tokens, or NULL */
    /* Where the distribution is truncated; `work` is NULL where it is not. */
    int64_t top_k;
    double top_p, min_p;
    float *work; /* [pieces, 2, vocabulary in whole blocks] */
    uint8_t *support; /* [rows, vocabulary in bits] the tokens that stay, or NULL */
    int64_t rows, pieces;
} SampleRequest;

static float largest_logit(const float *logits, int64_t n) {
    vec most = splat(-INFINITY), several[4] = {most, most, most, most};
    int64_t i = 0;
    /* Several maxima at once, since each waits for the one before. */
    for (; i + 4 * LANES <= n; i += 4 * LANES)
        for (int j = 0; j < 4; j++) several[j] = max_vec(load(logits + i + j * LANES), several[j]);
    for (int j = 0; j < 4; j++) most = max_vec(several[j], most);
    for (; i + LANES <= n; i += LANES) most = max_vec(load(logits + i), most);
    float found = max_lanes(most);
    for (; i < n; i++) found = logits[i] > found ? logits[i] : found;
    return found;
}

/* Masses exp((logit - largest) * factor) of the block that begins at `at`; 0 past the end. */
static void masses_of(const SampleRequest *d, const float *logits, int64_t at, float largest, float factor,
                      float *masses) {
    float some[BLOCK];
    if (at + BLOCK > d->vocab_size) {
        for (int64_t i = 0; i < BLOCK; i++) some[i] = at + i < d->vocab_size ? logits[at + i] : -INFINITY;
        logits = some - at;
    }
    for (int64_t i = 0; i < BLOCK; i += LANES)
        store(masses + i, exp_vec((load(logits + at + i) - largest) * factor));
}

static float mass_of_block(const SampleRequest *d, const float *logits, int64_t at, float largest, float factor) {
    float masses[BLOCK];
    masses_of(d, logits, at, largest, factor, masses);
    vec sum = {0};
    for (int64_t i = 0; i < BLOCK; i += LANES) sum += load(masses + i);
    return sum_lanes(sum);
}

/* The sum of all masses, and in `blocks` those of the blocks, or NULL. */
static double mass_of(const SampleRequest *d, const float *logits, float largest, float factor, float *blocks) {
    double sum = 0;
    for (int64_t at = 0; at < d->vocab_size; at += BLOCK) {
        float mass = mass_of_block(d, logits, at, largest, factor);
        if (blocks) blocks[at / BLOCK] = mass;
        sum += mass;
    }
    return sum;
}

/* A block, and the share of its mass that is searched for. */
typedef struct {
    int64_t at;
    double share;
} Position;

/* The block where the sum of masses passes `wanted`, never one without mass. */
static Position block_at(const float *blocks, int64_t vocab_size, double wanted) {
    double below = 0, height = 0;
    Position found = {0, 0};
    for (int64_t at = 0; at < vocab_size; at += BLOCK) {
        double mass = blocks[at / BLOCK];
        if (!(mass > 0)) continue;
        below = height;
        found.at = at;
        height += mass;
        if (height > wanted) break;
    }
    /* As a share, so that the order of the block's sum does not matter. */
    found.share = (wanted - below) / (height - below);
    return found;
}

/* The token at that share of a block, never one without mass. */
static int64_t token_at(const float masses[BLOCK], Position position) {
    double inside = 0, sum = 0;
    int64_t found = 0;
    for (int64_t i = 0; i < BLOCK; i++) inside += masses[i];
    for (int64_t i = 0; i < BLOCK; i++) {
        if (!(masses[i] > 0)) continue;
        found = i;
        sum += masses[i];
        if (sum > position.share * inside) break;
    }
    return position.at + found;
}

static int64_t position_of(const float *logits, int64_t n, float largest) {
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

typedef struct {
    int64_t token, runner_up;
    float gap;
} Likely;

/* The likeliest token, the one after it and the difference of their logits. */
static Likely two_likeliest(const float *logits, int64_t n) {
    float largest = largest_logit(logits, n);
    int64_t token = position_of(logits, n, largest), rest = token + 1;
    float before = largest_logit(logits, token), after = largest_logit(logits + rest, n - rest);
    int is_before = before >= after;
    int64_t runner_up =
        is_before ? position_of(logits, token, before) : rest + position_of(logits + rest, n - rest, after);
    return (Likely){token, runner_up, largest - (is_before ? before : after)};
}

static int64_t sample_truncated(const SampleRequest *d, const float *logits, float largest, float factor,
                                double uniform, float *masses, float *some, float *blocks, double *sum_of_all) {
    for (int64_t at = 0; at < d->vocab_size; at += BLOCK) masses_of(d, logits, at, largest, factor, masses + at);
    truncate_masses(masses, d->vocab_size, d->top_k, d->top_p, d->min_p, some);
    double total = 0;
    for (int64_t at = 0; at < d->vocab_size; at += BLOCK) {
        vec sum = {0};
        for (int64_t i = 0; i < BLOCK; i += LANES) sum += load(masses + at + i);
        total += blocks[at / BLOCK] = sum_lanes(sum);
    }
    *sum_of_all = total;
    Position position = block_at(blocks, d->vocab_size, uniform * total);
    return token_at(masses + position.at, position);
}

static int64_t sample_whole(const SampleRequest *d, const float *logits, float largest, float factor, double wanted,
                          const float *blocks) {
    Position position = block_at(blocks, d->vocab_size, wanted);
    float masses[BLOCK];
    masses_of(d, logits, position.at, largest, factor, masses);
    return token_at(masses, position);
}

static void write_support(const SampleRequest *d, int64_t row, const float *masses) {
    int64_t bytes = (d->vocab_size + 7) / 8;
    uint8_t *bits = d->support + row * bytes;
    memset(bits, 0, bytes);
    for (int64_t i = 0; i < d->vocab_size; i++) bits[i / 8] |= (uint8_t)((masses[i] > 0) << (i % 8));
}

static void sample_row(const SampleRequest *d, int64_t row, float *work) {
    const float *logits = d->logits + row * d->vocab_size;
    float largest = largest_logit(logits, d->vocab_size), factor = (float)(1 / d->temperature);
    int64_t num_blocks = (d->vocab_size + BLOCK - 1) / BLOCK, token;
    float blocks[num_blocks];
    double total = 0;
    if (!d->uniforms) {
        token = position_of(logits, d->vocab_size, largest);
    } else if (work) {
        double uniform = d->uniforms[row];
        float *some = work + num_blocks * BLOCK;
        token = sample_truncated(d, logits, largest, factor, uniform, work, some, blocks, &total);
        if (d->support) write_support(d, row, work);
    } else {
        total = mass_of(d, logits, largest, factor, blocks);
        token = sample_whole(d, logits, largest, factor, d->uniforms[row] * total, blocks);
    }
    d->tokens[row] = token;
    /* The likeliest token is the only one that could have been sampled. */
    if (d->logps) d->logps[row] = d->uniforms ? (logits[token] - largest) * factor - (float)log(total) : 0;
    if (d->model_logps) {
        double whole = d->uniforms && !work && factor == 1 ? total : mass_of(d, logits, largest, 1, NULL);
        d->model_logps[row] = logits[token] - largest - (float)log(whole);
    }
}

/* The rows `piece`, `piece + pieces` and so on. */
static void sample_piece(void *context, int piece) {
    const SampleRequest *d = context;
    int64_t length = (d->vocab_size + BLOCK - 1) / BLOCK * BLOCK;
    float *work = d->work ? d->work + piece * 2 * length : NULL;
    for (int64_t row = piece; row < d->rows; row += d->pieces) sample_row(d, row, work);
}

#endif
