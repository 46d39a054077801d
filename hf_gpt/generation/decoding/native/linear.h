/* Linear layers x W^T with packed weights, in float32, bfloat16 or int8.
 *
 * Weights (N, K) lie in panels of PANEL outputs. A panel holds groups of inputs, with 4 bytes for each output: one
 * float, two bfloat16 or four int8. So weights are read in order, and from memory once: while the blocks of rows are
 * multiplied with a panel, the next panel is prefetched.
 * Inputs lie row by row, and ROWS rows are multiplied at a time.
 * Every output is summed over K in one fixed order, so a row does not depend on the other rows. */
#ifndef HF_GPT_LINEAR_H
#define HF_GPT_LINEAR_H

#include "threads.h"
#include "vectors.h"
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#define PANEL (2 * LANES)
#if defined(__AVX512F__) || defined(__aarch64__)
#define ROWS 8
#else
#define ROWS 6
#endif
/* Loops over the rows of a block, and over groups. Sums stay in registers only if the first is fully unrolled. */
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#define UNROLL_TWICE _Pragma("clang loop unroll_count(2)")
#else
#define UNROLL _Pragma("GCC unroll 8")
#define UNROLL_TWICE _Pragma("GCC unroll 2")
#endif
/* Bytes that a single block of rows prefetches. */
#define DISTANCE 4096

enum { FLOAT32, BFLOAT16, INT8 };

/* The int8 input that stands for 0: VNNI takes unsigned inputs, AVX2 signed ones. Both sum the same integers. */
#if defined(__AVX512VNNI__)
#define HAS_INT8 1
#define INT8_ZERO 128
#elif defined(__AVX2__) && !defined(__AVX512F__)
#define HAS_INT8 1
#define INT8_BY_AVX2
#define INT8_ZERO 0
#else
#define HAS_INT8 0
#define INT8_ZERO 0
#endif
/* A further kernel: bfloat16 weights widened to floats, times floats. */
enum { WIDENED = INT8 + 1 };

typedef struct {
    void *weight;    /* panels, see above; of a gated MLP a panel of gates before each panel of values */
    float *scale;    /* int8: of each output */
    int32_t *offset; /* int8: INT8_ZERO times the sum of an output's weights, to subtract */
    float *bias;     /* or NULL; scale, offset and bias are as long as the panels */
    int64_t outputs, inputs, type, is_gated;
} Linear;

/* Inputs for the kernels: `steps` (rows, words of a row), and for int8 a scale of each row. */
typedef struct {
    uint32_t *steps;
    float *scales;
} Inputs;

/* Inputs that share 4 bytes of a weight, and those that share 4 bytes of x. */
INLINE int64_t groups_of(const Linear *p) {
    int64_t each = p->type == FLOAT32 ? 1 : p->type == BFLOAT16 ? 2 : 4;
    return (p->inputs + each - 1) / each;
}

/* Whether an instruction multiplies bfloat16 pairs faster than floats. On Intel's cores it takes twice as long
 * (Sapphire Rapids: 86 against 177 GFLOP/s on one core). */
INLINE int multiplies_pairs(void) {
#if defined(HF_GPT_PAIRS) && defined(__AVX512BF16__)
    return HF_GPT_PAIRS;
#elif defined(__AVX512BF16__)
    return !__builtin_cpu_is("intel");
#else
    return 0;
#endif
}

INLINE int kernel_of(const Linear *p) {
    return p->type == BFLOAT16 && !multiplies_pairs() ? WIDENED : (int)p->type;
}

INLINE int64_t input_words(const Linear *p) {
    return kernel_of(p) == WIDENED ? 2 * groups_of(p) : groups_of(p);
}

/* The largest magnitude; infinity or NaN where there is one, since bits of magnitudes are in their order. */
static float largest_of(const float *x, int64_t n) {
    ivec most = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        ivec bits = (ivec)load(x + i) & 0x7fffffff, larger = bits > most;
        most = (larger & bits) | (~larger & most);
    }
    int32_t lanes[LANES + 1], largest = 0;
    memcpy(lanes, &most, sizeof most);
    for (int lane = 0; lane < LANES; lane++) largest = lanes[lane] > largest ? lanes[lane] : largest;
    for (; i < n; i++) {
        memcpy(lanes, x + i, 4);
        lanes[0] &= 0x7fffffff;
        largest = lanes[0] > largest ? lanes[0] : largest;
    }
    float found;
    memcpy(&found, &largest, 4);
    return found;
}

/* Whether it is a number; of others no step can be made. */
INLINE int is_finite(float x) { return fabsf(x) <= 3.40282347e38f; }

/* Stores LANES integers of 32 bits as 8 bits. */
INLINE void store_bytes(uint8_t *to, ivec steps) {
#if defined(INT8_BY_AVX2)
    /* Compilers do not vectorise this. */
    __m128i lower = _mm256_castsi256_si128((__m256i)steps), upper = _mm256_extracti128_si256((__m256i)steps, 1);
    __m128i shorts = _mm_packs_epi32(lower, upper);
    _mm_storel_epi64((__m128i *)to, _mm_packs_epi16(shorts, shorts));
#else
    typedef uint8_t bytes __attribute__((vector_size(LANES)));
    bytes some = __builtin_convertvector(steps, bytes);
    memcpy(to, &some, sizeof some);
#endif
}

/* Inputs in 255 steps around INT8_ZERO, four to a word. */
static void round_to_steps(const float *restrict x, int64_t n, float factor, uint32_t *words) {
    uint8_t *restrict steps = (uint8_t *)words;
    int64_t i = 0;
    /* Half a step more, since the conversion truncates. */
    for (; i + LANES <= n; i += LANES) {
        ivec from_128 = __builtin_convertvector(load(x + i) * factor + 128.5f, ivec);
        store_bytes(steps + i, from_128 + (INT8_ZERO - 128));
    }
    for (; i < n; i++) steps[i] = (uint8_t)((int32_t)(x[i] * factor + 128.5f) + (INT8_ZERO - 128));
    for (; i % 4; i++) steps[i] = 0;
}

/* Whether the kernel reads rows of floats as they are. */
INLINE int takes_floats(const Linear *p) {
    int kernel = kernel_of(p);
    return kernel == FLOAT32 || (kernel == WIDENED && p->inputs % 2 == 0);
}

/* Writes one row of floats as inputs of a linear layer. */
static void put_row(const Linear *p, const float *restrict x, Inputs to, int64_t row) {
    int64_t words = input_words(p), n = p->inputs;
    int kernel = kernel_of(p);
    uint32_t *restrict to_row = to.steps + row * words;
    if (kernel == INT8) {
        float largest = largest_of(x, n);
        if (!is_finite(largest)) {
            /* All outputs of the row are NaN. */
            memset(to_row, INT8_ZERO, words * 4);
            to.scales[row] = NAN;
            return;
        }
        largest = largest > 1e-20f ? largest : 1e-20f;
        to.scales[row] = largest / 127;
        round_to_steps(x, n, 127 / largest, to_row);
    } else if (kernel == BFLOAT16) {
        round_to_bfloat16(x, n, to_row);
    } else {
        memcpy(to_row, x, n * sizeof(float));
        if (words > n) to_row[n] = 0;
    }
}

#if defined(INT8_BY_AVX2)
/* Adds dot products of four bytes to sums of 32 bits; `sizes` are unsigned. */
INLINE vec add_four(vec sums, __m256i sizes, __m256i others) {
    __m256i fours = _mm256_madd_epi16(_mm256_maddubs_epi16(sizes, others), _mm256_set1_epi16(1));
    return (vec)_mm256_add_epi32((__m256i)sums, fours);
}
#endif

/* One panel times a block of `m` rows: sums of floats, or for int8 of integers. `m` is a constant once inlined, so the
 * sums stay in registers. Memory from `ahead` on is prefetched, `pace` bytes for each group. */
INLINE void multiply(int m, int kernel, const uint32_t *restrict x, int64_t words, const uint32_t *restrict w,
                     int64_t groups, const char *ahead, int64_t pace, uvec sums[ROWS][2]) {
    const uint32_t *rows[ROWS];
    UNROLL
    for (int i = 0; i < m; i++) rows[i] = x + i * words;
    vec acc[ROWS][2];
    UNROLL
    for (int i = 0; i < m; i++) acc[i][0] = acc[i][1] = (vec){0};
    UNROLL_TWICE
    for (int64_t g = 0; g < groups; g++, w += PANEL, ahead += pace) {
        __builtin_prefetch(ahead);
        vec w0 = load((const float *)w), w1 = load((const float *)w + LANES);
        if (kernel == FLOAT32) {
            UNROLL
            for (int i = 0; i < m; i++) {
                float input = ((const float *)rows[i])[g];
                acc[i][0] += w0 * input;
                acc[i][1] += w1 * input;
            }
        } else if (kernel == WIDENED) {
            vec even0 = (vec)((uvec)w0 << 16), odd0 = (vec)((uvec)w0 & 0xffff0000u);
            vec even1 = (vec)((uvec)w1 << 16), odd1 = (vec)((uvec)w1 & 0xffff0000u);
            UNROLL
            for (int i = 0; i < m; i++) {
                float input = ((const float *)rows[i])[2 * g];
                acc[i][0] += even0 * input;
                acc[i][1] += even1 * input;
            }
            UNROLL
            for (int i = 0; i < m; i++) {
                float input = ((const float *)rows[i])[2 * g + 1];
                acc[i][0] += odd0 * input;
                acc[i][1] += odd1 * input;
            }
        } else if (kernel == BFLOAT16) {
#if defined(__AVX512BF16__)
            UNROLL
            for (int i = 0; i < m; i++) {
                __m512bh both = (__m512bh)_mm512_set1_epi32((int)rows[i][g]);
                acc[i][0] = (vec)_mm512_dpbf16_ps((__m512)acc[i][0], (__m512bh)w0, both);
                acc[i][1] = (vec)_mm512_dpbf16_ps((__m512)acc[i][1], (__m512bh)w1, both);
            }
#endif
        } else {
#if defined(__AVX512VNNI__)
            UNROLL
            for (int i = 0; i < m; i++) {
                __m512i four = _mm512_set1_epi32((int)rows[i][g]);
                acc[i][0] = (vec)_mm512_dpbusd_epi32((__m512i)acc[i][0], four, (__m512i)w0);
                acc[i][1] = (vec)_mm512_dpbusd_epi32((__m512i)acc[i][1], four, (__m512i)w1);
            }
#elif defined(INT8_BY_AVX2)
            /* One factor must be unsigned, so the weight's sign moves to the input. 127 x 127 x 2 fits in 16 bits, so
             * nothing saturates. */
            __m256i size0 = _mm256_abs_epi8((__m256i)w0), size1 = _mm256_abs_epi8((__m256i)w1);
            UNROLL
            for (int i = 0; i < m; i++) {
                __m256i four = _mm256_set1_epi32((int)rows[i][g]);
                acc[i][0] = add_four(acc[i][0], size0, _mm256_sign_epi8(four, (__m256i)w0));
                acc[i][1] = add_four(acc[i][1], size1, _mm256_sign_epi8(four, (__m256i)w1));
            }
#endif
        }
    }
    UNROLL
    for (int i = 0; i < m; i++) sums[i][0] = (uvec)acc[i][0], sums[i][1] = (uvec)acc[i][1];
}

#define FOR_ROWS(m, kernel) \
    case m: multiply(m, kernel, x, words, w, groups, ahead, pace, sums); break;
#define FOR_KERNEL(kernel) \
    switch (m) { \
        FOR_ROWS(1, kernel) FOR_ROWS(2, kernel) FOR_ROWS(3, kernel) FOR_ROWS(4, kernel) FOR_ROWS(5, kernel) \
        FOR_ROWS(6, kernel) FOR_MORE(kernel) \
    }
#if ROWS == 8
#define FOR_MORE(kernel) FOR_ROWS(7, kernel) FOR_ROWS(8, kernel)
#else
#define FOR_MORE(kernel)
#endif

/* Block `block` of `blocks` that a thread multiplies a panel with. */
typedef struct {
    int64_t first; /* row */
    int m;         /* rows */
    int64_t block, blocks;
} RowBlock;

/* One panel times a block of rows, with scales and biases, as floats. */
static void multiply_panel(const Linear *p, int64_t panel, Inputs inputs, RowBlock rows, vec tile[ROWS][2]) {
    int64_t groups = groups_of(p), words = input_words(p), first = rows.first;
    int m = rows.m, kernel = kernel_of(p);
    const uint32_t *x = inputs.steps + first * words;
    const uint32_t *w = (const uint32_t *)p->weight + panel * groups * PANEL;
    /* Each block prefetches its part of the next panel. A single block prefetches what it reads next. */
    int64_t pace = PANEL * 4 / rows.blocks;
    int64_t next = PANEL * 4 * (1 + p->is_gated) + rows.block * pace;
    const char *ahead = (const char *)w + (rows.blocks == 1 ? DISTANCE : next * groups);
    uvec sums[ROWS][2];
    if (kernel == FLOAT32) FOR_KERNEL(FLOAT32)
    else if (kernel == WIDENED) FOR_KERNEL(WIDENED)
    else if (kernel == BFLOAT16) FOR_KERNEL(BFLOAT16)
    else FOR_KERNEL(INT8)
    for (int half = 0; half < 2; half++) {
        int64_t at = panel * PANEL + half * LANES;
        vec bias = p->bias ? load(p->bias + at) : (vec){0};
        for (int i = 0; i < m; i++) {
            vec found = (vec)sums[i][half];
            if (p->type == INT8) {
                ivec offset;
                memcpy(&offset, p->offset + at, sizeof offset);
                found = __builtin_convertvector((ivec)sums[i][half] - offset, vec);
                found *= load(p->scale + at) * inputs.scales[first + i];
            }
            tile[i][half] = p->bias ? found + bias : found;
        }
    }
}

/* What `out` (rows, outputs) gets: the results; itself plus the results; their activation (of a gated MLP times the
 * values); or logits with scale and cap. */
enum { PUT, ADD, ACTIVATE, LOGITS };

typedef struct {
    const Linear *linear;
    Inputs inputs;
    int64_t rows, size, row_size, row_pieces;
    float *out;
    float *kept;           /* or NULL: the results before `finish`, gates before values, row r at `targets[r]` */
    const int64_t *targets;
    int finish, activation;
    float logit_scale, softcap;
} Multiplication;

static void store_lanes(float *to, vec v, int64_t left) {
    if (left >= LANES) {
        store(to, v);
        return;
    }
    float some[LANES];
    store(some, v);
    for (int64_t j = 0; j < left; j++) to[j] = some[j];
}

/* Keeps the results of a panel, `count` outputs of row `row`. */
static void keep(const Multiplication *job, int64_t row, int64_t panel, int64_t count, const vec found[2], int part) {
    const Linear *p = job->linear;
    float *to = job->kept + (job->targets[row] * (1 + p->is_gated) + part) * p->outputs + panel * PANEL;
    for (int half = 0; half < 2; half++) store_lanes(to + half * LANES, found[half], count - half * LANES);
}

INLINE vec finish_vec(const Multiplication *job, vec v, vec value) {
    if (job->finish == ACTIVATE) {
        v = activate(v, job->activation);
        return job->linear->is_gated ? v * value : v;
    }
    if (job->finish == LOGITS) {
        if (job->logit_scale != 1) v *= job->logit_scale;
        if (job->softcap > 0) v = tanh_vec(v / job->softcap) * job->softcap;
    }
    return v;
}

static void multiply_piece(void *context, int piece) {
    const Multiplication *job = context;
    const Linear *p = job->linear;
    int64_t panels = (p->outputs + PANEL - 1) / PANEL;
    int64_t begin = piece / job->row_pieces * job->size, end = begin + job->size;
    int64_t first_row = piece % job->row_pieces * job->row_size, last_row = first_row + job->row_size;
    if (end > panels) end = panels;
    if (last_row > job->rows) last_row = job->rows;
    int64_t blocks = (last_row - first_row + ROWS - 1) / ROWS;
    vec tile[ROWS][2], values[ROWS][2];
    for (int64_t panel = begin; panel < end; panel++) {
        int64_t count = p->outputs - panel * PANEL < PANEL ? p->outputs - panel * PANEL : PANEL;
        for (int64_t block = 0; block < blocks; block++) {
            int64_t first = first_row + block * ROWS;
            int m = (int)(last_row - first < ROWS ? last_row - first : ROWS);
            RowBlock rows = {first, m, block, blocks};
            multiply_panel(p, p->is_gated ? 2 * panel : panel, job->inputs, rows, tile);
            if (p->is_gated) multiply_panel(p, 2 * panel + 1, job->inputs, rows, values);
            for (int i = 0; i < m && job->kept; i++) {
                keep(job, first + i, panel, count, tile[i], 0);
                if (p->is_gated) keep(job, first + i, panel, count, values[i], 1);
            }
            for (int i = 0; i < m; i++) {
                float *out = job->out + (first + i) * p->outputs + panel * PANEL;
                for (int half = 0; half < 2; half++) {
                    vec value = p->is_gated ? values[i][half] : (vec){0};
                    vec v = finish_vec(job, tile[i][half], value);
                    int64_t left = count - half * LANES;
                    if (left >= LANES) {
                        store(out + half * LANES, job->finish == ADD ? load(out + half * LANES) + v : v);
                        continue;
                    }
                    float some[LANES];
                    store(some, v);
                    for (int64_t j = 0; j < left; j++)
                        out[half * LANES + j] = job->finish == ADD ? out[half * LANES + j] + some[j] : some[j];
                }
            }
        }
    }
}

static void run_linear(int threads, Multiplication job) {
    int64_t panels = (job.linear->outputs + PANEL - 1) / PANEL;
    int pieces = pieces_of(panels, threads, 1, &job.size);
    job.row_size = job.rows;
    job.row_pieces = 1;
    /* Few outputs for many threads: rows are shared too. */
    if (threads > 1 && panels < 4 * threads && job.rows >= 4 * ROWS) {
        job.row_size = 2 * ROWS;
        job.row_pieces = (job.rows + job.row_size - 1) / job.row_size;
    }
    run_job(threads, multiply_piece, &job, (int)(pieces * job.row_pieces));
}

#endif
