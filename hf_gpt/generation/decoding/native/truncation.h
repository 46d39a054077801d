/* Which tokens of a row stay: top-k (Fan et al. 2018), top-p (Holtzman et al. 2020) and min-p (Nguyen et al. 2024).
 * Nothing is sorted: a histogram finds the bin of the last token that stays, and a selection finds it inside the bin.
 */
#ifndef HF_GPT_TRUNCATION_H
#define HF_GPT_TRUNCATION_H

#include "vectors.h"

/* Bins of a mass in [0, 1] by exponent and four bits of fraction: bits of positive floats rise with their values. */
#define BIN_SHIFT 19
#define BINS ((0x3f800000 >> BIN_SHIFT) + 1)

/* Masses above `least` stay, and the first `tied` that equal it. */
typedef struct {
    float least;
    int64_t tied;
} Cut;

static int bin_of(float mass) {
    uint32_t bits;
    memcpy(&bits, &mass, sizeof bits);
    bits >>= BIN_SHIFT;
    return bits < BINS ? (int)bits : BINS - 1;
}

/* The cut among `count` candidates: the largest stay up to the weight `limit`, with the one that crosses it. A token
 * weighs its mass, or 1 where tokens are counted. `some` is overwritten. */
static Cut cut_inside(float *some, int64_t count, double limit, int is_count) {
    while (count > 0) {
        float a = some[0], b = some[count / 2], c = some[count - 1];
        float pivot = a > b ? (b > c ? b : a > c ? c : a) : (a > c ? a : b > c ? c : b);
        double above = 0;
        int64_t higher = 0, equal = 0;
        for (int64_t i = 0; i < count; i++) {
            if (some[i] > pivot) {
                above += is_count ? 1 : some[i];
                higher++;
            }
            equal += some[i] == pivot;
        }
        if (higher && above >= limit) {
            int64_t kept = 0;
            for (int64_t i = 0; i < count; i++)
                if (some[i] > pivot) some[kept++] = some[i];
            count = kept;
            continue;
        }
        double weight = is_count ? 1 : pivot, all = above + (double)equal * weight;
        int64_t lower = 0;
        if (all < limit)
            for (int64_t i = 0; i < count; i++)
                if (some[i] < pivot) some[lower++] = some[i];
        /* Rounding may leave nothing below the pivot. */
        if (!lower) {
            double wanted = is_count || !(weight > 0) ? (double)equal : ceil((limit - above) / weight);
            return (Cut){pivot, wanted < 1 ? 1 : wanted > (double)equal ? equal : (int64_t)wanted};
        }
        limit -= all;
        count = lower;
    }
    return (Cut){0, INT64_MAX};
}

/* The cut of masses [n] at `most` tokens, or at `share` of their sum. `some` [n] is overwritten. */
static Cut cut_of(const float *masses, int64_t n, double share, int64_t most, float *some) {
    double sums[BINS] = {0};
    int32_t counts[BINS] = {0};
    for (int64_t i = 0; i < n; i++) {
        int bin = bin_of(masses[i]);
        sums[bin] += masses[i];
        counts[bin]++;
    }
    double limit = (double)most, total = 0;
    for (int bin = 0; bin < BINS; bin++) total += sums[bin];
    if (!most) limit = share * total;
    /* Logits that are not numbers are left to the sampler. */
    if (!(total > 0 && total < INFINITY)) return (Cut){0, INT64_MAX};
    int bin = BINS - 1;
    for (; bin > 0; bin--) {
        double weight = most ? counts[bin] : sums[bin];
        if (weight >= limit) break;
        limit -= weight;
    }
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++)
        if (bin_of(masses[i]) == bin) some[count++] = masses[i];
    return cut_inside(some, count, limit, most > 0);
}

static void apply_cut(float *masses, int64_t n, Cut cut) {
    for (int64_t i = 0; i < n; i++) {
        float mass = masses[i];
        if (mass < cut.least || (mass == cut.least && cut.tied-- <= 0)) masses[i] = 0;
    }
}

/* Writes 0 over masses [n], of which the largest is 1, that do not stay. */
static void truncate_masses(float *masses, int64_t n, int64_t top_k, double top_p, double min_p, float *some) {
    if (top_k > 0 && top_k < n) apply_cut(masses, n, cut_of(masses, n, 0, top_k, some));
    if (top_p < 1) apply_cut(masses, n, cut_of(masses, n, top_p, 0, some));
    if (min_p > 0) apply_cut(masses, n, (Cut){(float)min_p, INT64_MAX});
}

#endif
