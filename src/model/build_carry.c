/* Rows computed a segment of tokens at a time: what one segment hands to the next, and which models can do so. */
#include "base/mem.h"
#include "graph/graph.h"
#include "model/builder.h"
#include "op/op.h"

#include <stdio.h>
#include <string.h>

tl_tensor *build_carry_in(const builder *b, const tl_desc *d, const char *what, int64_t layer) {
    build_result *r = b->r;
    char name[48];
    if (!b->o->segment) return NULL;
    snprintf(name, sizeof name, "blocks.%lld.%s_before", (long long)layer, what);
    tl_tensor *in = tl_input(b->g, name, b->o->dtype == TL_F64 ? TL_F64 : d->dtype, d->ndim, d->dim);
    r->carry[r->n_carry++] = (build_carry){.in = in};
    return in;
}

void build_carry_out(const builder *b, tl_tensor *out) {
    build_result *r = b->r;
    char name[32];
    if (!b->o->segment) return;
    r->carry[r->n_carry - 1].out = out;
    snprintf(name, sizeof name, "carry.%zu", r->n_carry - 1);
    if (b->o->advance || b->o->mode == BUILD_EVAL) tl_output(b->g, out, name); /* else only its gradient is of use */
}

tl_tensor *build_carried(const builder *b, const tl_op_def *op, const void *attr, tl_tensor *const *in, int n,
                         tl_tensor *from) {
    tl_tensor *out[2] = {NULL, NULL};
    tl_tensor *y = tl_apply(b->g, op, attr, in, n, NULL, out, from ? 2 : 1);
    if (from) build_carry_out(b, out[1]);
    return y;
}

const char *build_segment_refusal(const model_config *c, int64_t segment, char *text, size_t size) {
    if (c->objective != OBJECTIVE_CAUSAL)
        return "only where a token sees nothing that follows it can a row be computed by segments";
    if (c->norm == NORM_BATCH) return "batchnorm takes its statistics from whole rows";
    for (int64_t l = 0; l < c->layers; l++) {
        const model_mixer m = config_mixer(c, l);
        const bool chunks = m == MIXER_FLASH || m == MIXER_CHUNK;
        const int64_t unit = c->chunk_outer ? c->chunk_outer : c->chunk;
        if (config_stateful(c, l)) continue;
        if (!chunks)
            snprintf(text, size, "layer %lld keeps something of every token before (%s): its rows are computed whole",
                     (long long)l, config_mixer_name(m));
        else if (c->chunk_overlap)
            return "chunks that overlap see tokens of the segment before exactly";
        else if (c->chunk_landmarks)
            return "landmarks reach tokens of the segments before exactly";
        else if (segment % unit)
            snprintf(text, size, "a segment of %lld tokens is not made of chunks of %lld", (long long)segment,
                     (long long)unit);
        else
            continue;
        return text;
    }
    return NULL;
}

tl_status build_segment_backward(tl_graph *g, const tl_allocator *a, build_result *r, tl_recompute level, tl_error *e) {
    const size_t n = r->n_carry, most = n + 2;
    tl_tensor **list = mem_new(a, 4 * most, sizeof *list);
    if (!list) return error_set(e, TL_NOMEM, "no memory for a graph");
    tl_tensor **ys = list, **dys = ys + most, **wrt = dys + most, **dwrt = wrt + most;
    char name[40];
    int count = 0;
    ys[count++] = r->loss;
    if (g->more_loss) ys[count++] = g->more_loss;
    for (size_t i = 0; i < n; i++) {
        build_carry *c = &r->carry[i];
        const tl_desc *d = tl_tensor_desc(c->in);
        snprintf(name, sizeof name, "carry.%zu.grad", i);
        wrt[i] = c->in;
        ys[count] = c->out;
        dys[count++] = c->dout = tl_input(g, name, d->dtype, d->ndim, d->dim);
    }
    autodiff_run(g, ys, dys, count, wrt, (int)n, dwrt, level);
    for (size_t i = 0; i < n; i++) {
        snprintf(name, sizeof name, "carry.%zu.before.grad", i);
        tl_output(g, r->carry[i].din = dwrt[i], name);
    }
    mem_free(a, list);
    return tl_graph_status(g, e);
}
