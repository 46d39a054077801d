/* Packs weights in the layout and type of linear.h. */
#ifndef HF_GPT_PACKING_H
#define HF_GPT_PACKING_H

#include "linear.h"
#if defined(__linux__)
#include <sys/mman.h>
#endif

/* A weight in up to three parts. Their outputs follow each other (queries, keys, values), or panels alternate (gates
 * and values of a gated MLP). `factors` (K) multiply the inputs: the scales of the norm before. */
typedef struct {
    const Linear *linear;
    const void *parts[3];
    int64_t part_rows[3];
    const float *factors;
    int64_t is_bfloat16;
} Packing;

INLINE float widen(uint16_t x) {
    uint32_t bits = (uint32_t)x << 16;
    float found;
    memcpy(&found, &bits, 4);
    return found;
}

/* Writes the weights of output `lane` of a panel, times the factors. Returns 0 past the last output, else 1. */
static int fetch_row(const Packing *job, int64_t panel, int64_t lane, float *restrict row) {
    const Linear *p = job->linear;
    int part = 0;
    int64_t output = panel * PANEL + lane;
    if (p->is_gated) {
        part = (int)(panel % 2);
        output = panel / 2 * PANEL + lane;
        if (output >= job->part_rows[part]) return 0;
    } else {
        while (part < 3 && output >= job->part_rows[part]) output -= job->part_rows[part++];
        if (part == 3) return 0;
    }
    int64_t n = p->inputs;
    if (job->is_bfloat16) {
        const uint16_t *from = (const uint16_t *)job->parts[part] + output * n;
        for (int64_t k = 0; k < n; k++) row[k] = widen(from[k]);
    } else {
        memcpy(row, (const float *)job->parts[part] + output * n, n * sizeof(float));
    }
    if (job->factors)
        for (int64_t k = 0; k < n; k++) row[k] *= job->factors[k];
    return 1;
}

INLINE uint32_t pack_group(int type, const float *row, int64_t g, float per_step, int32_t *sum) {
    uint32_t word;
    if (type == FLOAT32) {
        memcpy(&word, row + g, 4);
        return word;
    }
    if (type == BFLOAT16) return to_bfloat16(row[2 * g]) | (uint32_t)to_bfloat16(row[2 * g + 1]) << 16;
    word = 0;
    for (int i = 0; i < 4; i++) {
        int32_t step = (int32_t)rintf(row[4 * g + i] / per_step);
        *sum += step;
        word |= (uint32_t)(uint8_t)(int8_t)step << 8 * i;
    }
    return word;
}

/* 8 outputs at a time, so that writes are adjacent. */
#define TOGETHER (PANEL < 8 ? PANEL : 8)

INLINE void pack_lanes(const Packing *job, int type, float *rows, int64_t panel, int64_t lane) {
    const Linear *p = job->linear;
    int64_t groups = groups_of(p), width = (p->inputs + 3) / 4 * 4;
    uint32_t *to = (uint32_t *)p->weight + panel * groups * PANEL + lane;
    float per_step[8];
    int32_t sums[8] = {0}, is_lost[8] = {0};
    for (int i = 0; i < TOGETHER; i++) {
        float *row = rows + i * width;
        if (!fetch_row(job, panel, lane + i, row)) memset(row, 0, width * sizeof(float));
        for (int64_t k = p->inputs; k < width; k++) row[k] = 0;
        float largest = type == INT8 ? largest_of(row, p->inputs) : 1;
        if (!is_finite(largest)) {
            /* The output is NaN for any input. */
            memset(row, 0, width * sizeof(float));
            largest = 1;
            is_lost[i] = 1;
        }
        /* A step is no smaller than the smallest normal number, below which a processor may take 0. */
        per_step[i] = (largest > 1.5e-36f ? largest : 1.5e-36f) / 127;
    }
    for (int64_t g = 0; g < groups; g++)
        for (int i = 0; i < TOGETHER; i++)
            to[g * PANEL + i] = pack_group(type, rows + i * width, g, per_step[i], sums + i);
    if (type == INT8)
        for (int i = 0; i < TOGETHER; i++) {
            p->scale[panel * PANEL + lane + i] = is_lost[i] ? NAN : per_step[i];
            p->offset[panel * PANEL + lane + i] = INT8_ZERO * sums[i];
        }
}

static void pack_piece(void *context, int panel) {
    const Packing *job = context;
    int64_t width = (job->linear->inputs + 3) / 4 * 4;
    float *rows = malloc(TOGETHER * width * sizeof(float));
    if (!rows) abort();
    for (int64_t lane = 0; lane < PANEL; lane += TOGETHER) {
        if (job->linear->type == FLOAT32) pack_lanes(job, FLOAT32, rows, panel, lane);
        else if (job->linear->type == BFLOAT16) pack_lanes(job, BFLOAT16, rows, panel, lane);
        else pack_lanes(job, INT8, rows, panel, lane);
    }
    free(rows);
}

/* Large pages save address look-ups: a step reads all weights. */
static void ask_for_large_pages(void *from, int64_t bytes) {
#if defined(MADV_HUGEPAGE)
    uintptr_t page = 2u << 20, begin = ((uintptr_t)from + page - 1) / page * page;
    uintptr_t end = ((uintptr_t)from + bytes) / page * page;
    if (begin < end) madvise((void *)begin, end - begin, MADV_HUGEPAGE);
#endif
}

#endif
