/* A decoder's step in one call: tokens in, logits out. decoder.py calls it by ctypes; structures.py mirrors the
 * structures.
 *
 *   vectors.h    floats as wide as the registers, exp, activations
 *   threads.h    a pool of threads
 *   linear.h     linear layers in float32, bfloat16 or int8: layout, kernels, activations
 *   packing.h    weights into that layout
 *   attention.h  the cache, QK-norm, RoPE, attention
 *   sampling.h   tokens from logits
 *   truncation.h top-k, top-p and min-p
 *
 * A row is one token of one text: its id, its text's slot in the cache and its position. A decoding step has one row
 * for each text. Reading prompts has one row for each token, in any number; a text's tokens come in order.
 * Everything between linear layers is in float32. Keys and values are in bfloat16 unless the linear layers are float32.
 */
#include <stdlib.h>

#include "attention.h"
#include "sampling.h"
#include "packing.h"
#include "linear.h"
#include "threads.h"

#define EXPORT __attribute__((visibility("default")))

typedef struct {
    const float *scale, *shift; /* (hidden_size) of a layer norm, or NULL */
} Norm;

typedef struct {
    Norm attention_norm, mlp_norm;
    Linear qkv, output, up, down;
    Cache cache;
} Layer;

typedef struct {
    int64_t hidden_size, vocab_size, num_positions, num_layers, activation, is_layernorm, is_bfloat16;
    float norm_eps, logit_scale, softcap; /* softcap 0: none */
    const void *embeddings, *positions;   /* (tokens, hidden_size), in bfloat16 or float32; positions or NULL */
    Norm norm;
    Linear head;
    Heads heads;
    Layer *layers;
} Decoder;

/* Rows of one call, and memory for their results. Logits (num_wanted, vocab_size) are those of the rows `wanted`. */
typedef struct {
    int64_t rows, num_wanted, is_prompt, threads;
    const int64_t *tokens, *slots, *positions, *wanted;
    float *hidden, *wide, *found; /* (rows, hidden_size), (rows, widest output), (rows, widest input) */
    Inputs inputs;
    float *logits;
    /* Outputs of each layer's linear layers, (layers, kept_rows, outputs) each: row r at `targets[r]`. NULL: not kept.
     * */
    const int64_t *targets;
    int64_t kept_rows;
    float *kept[4];
} Step;

enum { QKV, OUTPUT, UP, DOWN, NOT_KEPT };

typedef struct {
    const Decoder *decoder;
    const Step *step;
    const Layer *layer;
    const Norm *norm;
    const Linear *linear;
    const float *from;
    const int64_t *chosen; /* rows of `from`, or NULL: all */
    int64_t rows, size;
    int must_put, must_attend;
} Work;

static void end_of(const Work *work, int piece, int64_t *begin, int64_t *end) {
    *begin = piece * work->size;
    *end = *begin + work->size < work->rows ? *begin + work->size : work->rows;
}

INLINE float element(const void *table, int64_t at, int64_t is_bfloat16) {
    return is_bfloat16 ? widen(((const uint16_t *)table)[at]) : ((const float *)table)[at];
}

static void embed_piece(void *context, int piece) {
    const Work *work = context;
    const Decoder *d = work->decoder;
    const Step *step = work->step;
    int64_t begin, end, n = d->hidden_size;
    end_of(work, piece, &begin, &end);
    for (int64_t row = begin; row < end; row++) {
        float *restrict to = step->hidden + row * n;
        int64_t token = step->tokens[row] * n, position = step->positions[row] * n;
        for (int64_t i = 0; i < n; i++) to[i] = element(d->embeddings, token + i, d->is_bfloat16);
        if (d->positions)
            for (int64_t i = 0; i < n; i++) to[i] += element(d->positions, position + i, d->is_bfloat16);
    }
}

static void normalise(const Decoder *d, const Norm *norm, const float *restrict x, float *restrict to) {
    int64_t n = d->hidden_size, i = 0;
    vec sums = {0};
    float mean = 0, sum;
    if (d->is_layernorm) {
        for (; i + LANES <= n; i += LANES) sums += load(x + i);
        sum = sum_lanes(sums);
        for (; i < n; i++) sum += x[i];
        mean = sum / n;
    }
    sums = (vec){0};
    for (i = 0; i + LANES <= n; i += LANES) {
        vec v = load(x + i) - mean;
        sums += v * v;
    }
    sum = sum_lanes(sums);
    for (; i < n; i++) sum += (x[i] - mean) * (x[i] - mean);
    float factor = 1 / sqrtf(sum / n + d->norm_eps);
    for (i = 0; i < n; i++) to[i] = (x[i] - mean) * factor;
    if (norm->scale)
        for (i = 0; i < n; i++) to[i] *= norm->scale[i];
    if (norm->shift)
        for (i = 0; i < n; i++) to[i] += norm->shift[i];
}

/* Rows as inputs of the next linear layer, after a norm if there is one. */
static void prepare_piece(void *context, int piece) {
    const Work *work = context;
    int64_t begin, end, n = work->linear->inputs;
    end_of(work, piece, &begin, &end);
    int in_place = takes_floats(work->linear);
    float room[work->norm && !in_place ? n : 1];
    for (int64_t row = begin; row < end; row++) {
        const float *x = work->from + (work->chosen ? work->chosen[row] : row) * n;
        if (work->norm) {
            float *normed = in_place ? (float *)work->step->inputs.steps + row * n : room;
            normalise(work->decoder, work->norm, x, normed);
            x = normed;
        }
        if (!work->norm || !in_place) put_row(work->linear, x, work->step->inputs, row);
    }
}

/* Memory for the scores of one text's keys, one for each thread. */
static float *room_for_scores(int64_t count) {
    static _Thread_local float *room;
    static _Thread_local int64_t size;
    if (count > size) {
        free(room);
        room = malloc(count * sizeof(float));
        if (!room) abort();
        size = count;
    }
    return room;
}

static void attend_piece(void *context, int piece) {
    const Work *work = context;
    const Heads *heads = &work->decoder->heads;
    const Cache *cache = &work->layer->cache;
    const Step *step = work->step;
    int64_t begin, end, queries = heads->num_queries * heads->head_dim;
    end_of(work, piece, &begin, &end);
    for (int64_t item = begin; item < end; item++) {
        int64_t row = item / heads->num_keys, head = item % heads->num_keys;
        int64_t slot = step->slots[row], position = step->positions[row];
        float *qkv = step->wide + row * work->layer->qkv.outputs;
        if (work->must_put) put_head(heads, cache, qkv, head, slot, position);
        if (work->must_attend)
            attend_head(heads, cache, qkv, head, slot, position, room_for_scores(heads->capacity),
                        step->found + row * queries);
    }
}

/* The inputs of a linear layer, which may be `from` itself. */
static Inputs prepare(int threads, Work work, const Norm *norm, const Linear *linear, float *from) {
    if (!norm && !work.chosen && takes_floats(linear)) return (Inputs){.steps = (uint32_t *)from};
    work.norm = norm;
    work.linear = linear;
    work.from = from;
    run_job(threads, prepare_piece, &work, pieces_of(work.rows, threads, 1, &work.size));
    return work.step->inputs;
}

static void attend(int threads, Work work, const Layer *layer, int must_put, int must_attend) {
    const Heads *heads = &work.decoder->heads;
    work.layer = layer;
    work.must_put = must_put;
    work.must_attend = must_attend;
    work.rows *= heads->num_keys;
    /* Short texts of few rows are done before another thread starts. */
    int64_t reads = work.step->positions[0] * heads->head_dim;
    int64_t least = reads < 4096 ? 4096 / (reads + 1) : 1;
    run_job(threads, attend_piece, &work, pieces_of(work.rows, threads, least > 8 ? 8 : least, &work.size));
}

/* Applies a linear layer to `from`, after a norm if there is one, into `out`. */
static void multiply_rows(int threads, const Work *work, const Norm *norm, const Linear *linear, float *from,
                          float *out, int finish, int kind) {
    const Decoder *d = work->decoder;
    const Step *step = work->step;
    float *kept = NULL;
    if (step->targets && kind != NOT_KEPT) {
        int64_t width = linear->outputs * (1 + linear->is_gated);
        kept = step->kept[kind] + (work->layer - d->layers) * step->kept_rows * width;
    }
    Multiplication job = {
        .linear = linear, .inputs = prepare(threads, *work, norm, linear, from), .rows = work->rows, .out = out,
        .kept = kept, .targets = step->targets, .finish = finish, .activation = (int)d->activation,
        .logit_scale = d->logit_scale, .softcap = d->softcap,
    };
    run_linear(threads, job);
}

/* 0, or an error: 1 for a token without embedding, 2 for a position beyond the cache or the learned ones. */
EXPORT int64_t hf_gpt_step(const Decoder *d, const Step *step) {
    for (int64_t row = 0; row < step->rows; row++) {
        if (step->tokens[row] < 0 || step->tokens[row] >= d->vocab_size) return 1;
        if (step->positions[row] < 0 || step->positions[row] >= d->num_positions) return 2;
    }
    int threads = enter_pool((int)step->threads);
    Work work = {.decoder = d, .step = step, .rows = step->rows};
    Work embedding = work;
    run_job(threads, embed_piece, &embedding, pieces_of(step->rows, threads, 8, &embedding.size));
    for (const Layer *layer = d->layers; layer < d->layers + d->num_layers; layer++) {
        work.layer = layer;
        multiply_rows(threads, &work, &layer->attention_norm, &layer->qkv, step->hidden, step->wide, PUT, QKV);
        /* Tokens of a prompt see those before them in the same call. */
        if (step->is_prompt) attend(threads, work, layer, 1, 0);
        attend(threads, work, layer, !step->is_prompt, 1);
        multiply_rows(threads, &work, NULL, &layer->output, step->found, step->hidden, ADD, OUTPUT);
        multiply_rows(threads, &work, &layer->mlp_norm, &layer->up, step->hidden, step->wide, ACTIVATE, UP);
        multiply_rows(threads, &work, NULL, &layer->down, step->wide, step->hidden, ADD, DOWN);
    }
    if (step->num_wanted) {
        work.rows = step->num_wanted;
        work.chosen = step->wanted;
        multiply_rows(threads, &work, &d->norm, &d->head, step->hidden, step->logits, LOGITS, NOT_KEPT);
    }
    leave_pool(threads);
    return 0;
}

/* Draft tokens after a text: the likeliest ones, until the estimated probability that all are accepted falls to
 * `least`. */
typedef struct {
    int64_t *tokens;  /* (most + 1): the text's last token, not in the cache yet, then the draft tokens */
    int64_t *runners_up; /* (most): the second likeliest tokens */
    float *gaps;      /* (most): logits between the two */
    int64_t position, most;
    float error; /* standard deviation of the gaps from exact ones */
    float trust; /* acceptance probability of a draft token with an infinite gap */
    float least;
} Draft;

/* The number of draft tokens, or the negative status of a step; row, memory and logits (vocab_size) are `step`'s. */
EXPORT int64_t hf_gpt_draft(const Decoder *d, const Step *step, const Draft *draft) {
    Step one = *step;
    int64_t first = 0, position = draft->position, count = 0;
    one.rows = one.num_wanted = 1;
    one.wanted = &first;
    one.positions = &position;
    float chance = 1;
    while (count < draft->most && chance > draft->least) {
        one.tokens = draft->tokens + count;
        int64_t status = hf_gpt_step(d, &one);
        if (status) return -status;
        Likely found = two_likeliest(one.logits, d->vocab_size);
        draft->tokens[count + 1] = found.token;
        draft->runners_up[count] = found.runner_up;
        draft->gaps[count] = found.gap;
        /* Errors are about normal. */
        chance *= draft->trust * 0.5f * erfcf(-found.gap / draft->error * 0.70710678f);
        count++;
        position++;
    }
    return count;
}

EXPORT void hf_gpt_pack(const Packing *packing, int64_t threads) {
    const Linear *p = packing->linear;
    int64_t panels = (p->outputs + PANEL - 1) / PANEL * (p->is_gated ? 2 : 1);
    int entered = enter_pool((int)threads);
    run_job(entered, pack_piece, (void *)packing, (int)panels);
    leave_pool(entered);
}

EXPORT void hf_gpt_sample(const SampleRequest *request, int64_t threads) {
    int entered = enter_pool((int)threads);
    run_job(entered, sample_piece, (void *)request, (int)request->pieces);
    leave_pool(entered);
}

EXPORT void hf_gpt_large_pages(void *from, int64_t bytes) { ask_for_large_pages(from, bytes); }

/* LANES, PANEL, whether int8 is supported, and the sizes of the structures, which structures.py compares. */
EXPORT void hf_gpt_describe(int64_t out[9]) {
    int64_t found[9] = {LANES,           PANEL,        HAS_INT8,        sizeof(Decoder),
                        sizeof(Layer), sizeof(Step), sizeof(Packing), sizeof(SampleRequest), sizeof(Draft)};
    memcpy(out, found, sizeof found);
}
