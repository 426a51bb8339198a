#include "graph/eval_copies.h"

#include "graph/view.h"

enum { ALIGN = 64 };

/* Adds an argument's bytes; stretches that it touches become one with it. */
static void copies_add(eval_copies *x, const tl_arg *a, bool send, bool fetch) {
    eval_stretch s = {.host = a->data, .bytes = view_extent(&a->d), .send = send, .fetch = fetch};
    for (int i = 0; i < x->n;) {
        const eval_stretch *t = &x->s[i];
        if (t->host >= s.host + s.bytes || s.host >= t->host + t->bytes) {
            i++;
            continue;
        }
        unsigned char *end = s.host + s.bytes > t->host + t->bytes ? s.host + s.bytes : t->host + t->bytes;
        if (t->host < s.host) s.host = t->host;
        s.bytes = (size_t)(end - s.host);
        s.send = true; /* one argument's bytes may be between the other's */
        s.fetch |= t->fetch;
        x->s[i] = x->s[--x->n];
        i = 0; /* the larger one may touch more */
    }
    x->s[x->n++] = s;
}

static bool copies_moved(const tl_arg *a) {
    return a->d.dtype != TL_NONE && a->data && tl_desc_count(&a->d) > 0;
}

/* Keeps the distance from a 64-byte border, for kernels care about alignment. */
static size_t copies_skew(const eval_stretch *s) {
    return (uintptr_t)s->host % ALIGN;
}

static void copies_point(const eval_copies *x, tl_arg *a) {
    if (!copies_moved(a)) return;
    const unsigned char *host = a->data;
    for (int i = 0; i < x->n; i++)
        if (host >= x->s[i].host && host < x->s[i].host + x->s[i].bytes) {
            a->data = x->s[i].at + (host - x->s[i].host);
            return;
        }
}

tl_status eval_copies_send(device *d, tl_op_call *c, eval_copies *x, tl_error *err) {
    *x = (eval_copies){.n = 0};
    for (int i = 0; i < TL_OP_INS; i++)
        if (copies_moved(&c->in[i])) copies_add(x, &c->in[i], true, false);
    for (int k = 0; k < TL_OP_OUTS; k++)
        if (copies_moved(&c->out[k]))
            copies_add(x, &c->out[k], (c->acc >> k & 1u) || !tl_desc_contiguous(&c->out[k].d), true);
    for (int i = 0; i < x->n; i++) x->bytes += (copies_skew(&x->s[i]) + x->s[i].bytes + ALIGN - 1) / ALIGN * ALIGN;
    if (!x->bytes) return TL_OK;
    unsigned char *at = x->block = d->alloc_bytes(d, x->bytes);
    if (!at) return error_set(err, TL_NOMEM, "no memory of %s for %zu bytes of arguments", d->name, x->bytes);
    for (int i = 0; i < x->n; i++) {
        eval_stretch *s = &x->s[i];
        s->at = at + copies_skew(s);
        at += (copies_skew(s) + s->bytes + ALIGN - 1) / ALIGN * ALIGN;
        if (s->send) device_upload(d, s->at, s->host, s->bytes);
    }
    for (int i = 0; i < TL_OP_INS; i++) copies_point(x, &c->in[i]);
    for (int k = 0; k < TL_OP_OUTS; k++) copies_point(x, &c->out[k]);
    return TL_OK;
}

tl_status eval_copies_fetch(device *d, eval_copies *x, tl_error *err) {
    for (int i = 0; i < x->n; i++)
        if (x->s[i].fetch) device_download(d, x->s[i].host, x->s[i].at, x->s[i].bytes);
    tl_status s = device_wait(d, 0, err);
    if (x->block) d->free_bytes(d, x->block, x->bytes);
    return s;
}
