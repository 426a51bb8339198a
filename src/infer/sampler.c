#include "infer/sampler.h"

#include "base/rng.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

tl_status sampler_init(sampler *s, const tl_allocator *a, const sampler_options *o, int64_t vocab, tl_error *e) {
    memset(s, 0, sizeof *s);
    if (!(o->temperature >= 0) || !isfinite(o->temperature))
        return error_set(e, TL_ARG, "temperature must be finite and not negative");
    if (o->top_k < 0) return error_set(e, TL_ARG, "top-k must not be negative");
    if (!(o->top_p >= 0 && o->top_p <= 1)) return error_set(e, TL_ARG, "top-p must be between 0 and 1");
    if (!(o->min_p >= 0 && o->min_p <= 1)) return error_set(e, TL_ARG, "min-p must be between 0 and 1");
    if (!(o->repeat_penalty >= 0) || !isfinite(o->repeat_penalty))
        return error_set(e, TL_ARG, "the repetition penalty must be finite and not negative");
    s->o = *o;
    s->alloc = a;
    s->vocab = vocab;
    s->c = mem_new(a, (size_t)vocab, sizeof *s->c);
    s->seen = mem_new(a, (size_t)vocab, 1);
    if (s->c && s->seen) return TL_OK;
    sampler_fini(s);
    return error_set(e, TL_NOMEM, "no memory for a sampler over %lld tokens", (long long)vocab);
}

void sampler_fini(sampler *s) {
    if (!s->alloc) return;
    mem_free(s->alloc, s->c);
    mem_free(s->alloc, s->seen);
    memset(s, 0, sizeof *s);
}

/* Larger logits first, then lower ids: a total order, so the result is the same everywhere. */
static int by_logit(const void *a, const void *b) {
    const sampler_candidate *x = a, *y = b;
    if (x->logit != y->logit) return x->logit > y->logit ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

static void penalize(sampler *s, const int32_t *recent, size_t n) {
    float p = s->o.repeat_penalty;
    if (p == 0 || p == 1) return;
    for (size_t i = 0; i < n; i++) {
        int32_t id = recent[i];
        if (id < 0 || id >= s->vocab || s->seen[id]) continue;
        s->seen[id] = 1;
        float *l = &s->c[id].logit;
        *l = *l > 0 ? *l / p : *l * p;
    }
    for (size_t i = 0; i < n; i++)
        if (recent[i] >= 0 && recent[i] < s->vocab) s->seen[recent[i]] = 0;
}

/* Restores the heap below node j of the first k: the worst candidate on top. */
static void sift_down(sampler_candidate *c, size_t k, size_t j) {
    for (size_t w; (w = 2 * j + 1) < k; j = w) {
        if (w + 1 < k && by_logit(&c[w + 1], &c[w]) > 0) w++;
        if (by_logit(&c[w], &c[j]) <= 0) return;
        sampler_candidate t = c[j];
        c[j] = c[w];
        c[w] = t;
    }
}

/* Moves the k best of n to the front, in order. */
static void best_first(sampler_candidate *c, size_t n, size_t k) {
    for (size_t h = k / 2; h-- > 0;) sift_down(c, k, h);
    for (size_t i = k; i < n; i++) {
        if (by_logit(&c[i], &c[0]) >= 0) continue;
        sampler_candidate t = c[0];
        c[0] = c[i];
        c[i] = t;
        sift_down(c, k, 0);
    }
    qsort(c, k, sizeof *c, by_logit);
}

/* Keeps what top-k, top-p and min-p leave of n candidates with largest logit max; the kept ones come first, sorted if
 * any of the three applied. Returns their number; *total is the sum of exp(logit - max) over them. */
static size_t restrict_to(sampler *s, size_t n, float max, double *total) {
    sampler_candidate *c = s->c;
    size_t k = s->o.top_k > 0 && (size_t)s->o.top_k < n ? (size_t)s->o.top_k : n;
    bool nucleus = s->o.top_p > 0 && s->o.top_p<1, floor = s->o.min_p> 0;
    if (k < n) best_first(c, n, k);
    double sum = 0;
    for (size_t i = 0; i < k; i++) sum += exp((double)(c[i].logit - max));
    if (nucleus) {
        /* tokens below (1 - p) / k together weigh less than 1 - p, so none of them is in the nucleus */
        double least = (1 - (double)s->o.top_p) / (double)k * sum, kept = 0;
        size_t m = 0;
        for (size_t i = 0; i < k; i++)
            if (exp((double)(c[i].logit - max)) >= least) c[m++] = c[i];
        qsort(c, m, sizeof *c, by_logit);
        size_t i = 0;
        while (i < m && kept < (double)s->o.top_p * sum) kept += exp((double)(c[i++].logit - max));
        k = i;
        sum = kept;
    }
    if (floor) {
        size_t m = 0;
        sum = 0;
        for (size_t i = 0; i < k; i++) {
            double w = exp((double)(c[i].logit - max));
            if (w < (double)s->o.min_p) continue;
            sum += w;
            c[m++] = c[i];
        }
        k = m;
    }
    *total = sum;
    return k;
}

static float logprob_of(const float *logits, int64_t n, int32_t id) {
    float max = -INFINITY;
    for (int64_t i = 0; i < n; i++)
        if (logits[i] > max) max = logits[i];
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += exp((double)(logits[i] - max));
    return (float)((double)(logits[id] - max) - log(sum));
}

tl_status sampler_pick(sampler *s, const float *logits, const int32_t *recent, size_t n_recent, uint64_t position,
                       int32_t *id, float *logprob, tl_error *e) {
    for (int64_t i = 0; i < s->vocab; i++) s->c[i] = (sampler_candidate){logits[i], (int32_t)i};
    penalize(s, recent, n_recent);
    size_t n = 0, best = 0;
    for (int64_t i = 0; i < s->vocab; i++) { /* NaN and infinities are no candidates */
        if (!isfinite(s->c[i].logit)) continue;
        s->c[n] = s->c[i];
        if (s->c[n].logit > s->c[best].logit) best = n;
        n++;
    }
    if (n == 0) return error_set(e, TL_NUMERIC, "no logit of the model is finite");
    *id = s->c[best].id;
    if (s->o.temperature > 0) {
        float max = s->c[best].logit / s->o.temperature;
        for (size_t i = 0; i < n; i++) s->c[i].logit /= s->o.temperature;
        double total, at = 0;
        size_t k = restrict_to(s, n, max, &total);
        double u = (double)rng_uniform(rng_key_make(s->o.seed, s->o.sequence, 0x73616d70), position, 0) * total;
        size_t i = 0;
        for (; i + 1 < k; i++) {
            at += exp((double)(s->c[i].logit - max));
            if (at > u) break;
        }
        if (k) *id = s->c[i].id;
    }
    if (logprob) *logprob = logprob_of(logits, s->vocab, *id);
    return TL_OK;
}
