/* Which operators of a block the backward pass runs again, by level (tl_recompute in tilia/graph.h). The rule reads the
 * save column of ops.def: what an operator reads and its gradient re-reads is kept anyway, so that running the operator
 * again needs no further memory. */
#include "graph/graph.h"

#include <string.h>

static const char *const names[TL_RECOMPUTE_LEVELS] = {"none", "light", "wide", "full"};

const char *tl_recompute_name(tl_recompute level) {
    return (unsigned)level < TL_RECOMPUTE_LEVELS ? names[level] : NULL;
}

tl_recompute tl_recompute_parse(const char *name) {
    tl_recompute i = TL_RECOMPUTE_NONE;
    while (i < TL_RECOMPUTE_LEVELS && (!name || strcmp(name, names[i]) != 0)) i++;
    return i;
}

typedef struct span {
    const tl_graph *g;
    size_t first, last; /* the block's nodes */
    unsigned char *run; /* (last - first + 1) chosen so far */
} span;

static bool runs(const span *s, const graph_node *n) {
    const size_t i = (size_t)n->index;
    return i >= s->first && i <= s->last && s->run[i - s->first];
}

/* Is t at hand in the backward pass, if n's gradient re-reads what its row says? A chain of views is as good as its
 * root. */
static bool at_hand(const span *s, const tl_tensor *t, bool saved) {
    if (!t || saved || !t->node || runs(s, t->node)) return true;
    return (t->node->op->flags & TL_OP_VIEW) && at_hand(s, t->node->in[0], false);
}

static bool inputs_at_hand(const span *s, const graph_node *n) {
    for (int i = 0; i < TL_OP_INS; i++)
        if (!at_hand(s, n->in[i], n->op->save & TL_SAVE_IN(i))) return false;
    for (int k = 0; k < TL_OP_OUTS; k++)
        if (!at_hand(s, n->acc[k], false)) return false;
    return true;
}

/* Does anything that is not run again read a result of n, directly or through views? */
static bool read_by_others(const span *s, const graph_node *n) {
    for (size_t i = (size_t)n->index + 1; i < s->g->n_nodes && !s->g->nodes[i]->backward; i++) {
        const graph_node *r = s->g->nodes[i];
        bool reads = false;
        for (int j = 0; j < TL_OP_INS; j++) reads |= r->in[j] && r->in[j]->node == n;
        for (int k = 0; k < TL_OP_OUTS; k++)
            if (r->acc[k] && r->acc[k]->node == n) return true;
        if (reads && ((r->op->flags & TL_OP_VIEW) ? read_by_others(s, r) : !runs(s, r))) return true;
    }
    return false;
}

static void choose_light(const span *s) {
    for (size_t i = s->first; i <= s->last; i++) {
        const graph_node *n = s->g->nodes[i];
        const uint32_t never = TL_OP_PRODUCT | TL_OP_MIXER;
        if (!(n->op->flags & never)) s->run[i - s->first] = inputs_at_hand(s, n);
    }
}

static void choose_wide(const span *s) {
    for (size_t i = s->last + 1; i-- > s->first;) {
        const graph_node *n = s->g->nodes[i];
        if (n->op->flags & TL_OP_PRODUCT) s->run[i - s->first] = inputs_at_hand(s, n) && !read_by_others(s, n);
    }
}

void recompute_choose(const tl_graph *g, size_t first, size_t last, tl_recompute level, unsigned char *run) {
    const span s = {g, first, last, run};
    memset(run, level == TL_RECOMPUTE_FULL, last - first + 1);
    if (level == TL_RECOMPUTE_LIGHT || level == TL_RECOMPUTE_WIDE) choose_light(&s);
    if (level != TL_RECOMPUTE_WIDE) return;
    choose_wide(&s);
    choose_light(&s); /* views of what is run again */
}
