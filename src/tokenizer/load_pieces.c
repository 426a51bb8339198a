#include "tokenizer/load_pieces.h"
#include "tokenizer/added.h"
#include "tokenizer/models.h"
#include "tokenizer/normalize.h"
#include <stdlib.h>
#include <string.h>

static const char load_mark[] = "\xe2\x96\x81"; /* U+2581 stands for a blank */

static void load_add_base64(str *s, const uint8_t *p, size_t n) {
    static const char digit[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < n; i += 3) {
        uint32_t x = (uint32_t)p[i] << 16 | (i + 1 < n ? (uint32_t)p[i + 1] << 8 : 0) | (i + 2 < n ? p[i + 2] : 0);
        str_addc(s, digit[x >> 18]);
        str_addc(s, digit[x >> 12 & 63]);
        str_addc(s, i + 1 < n ? digit[x >> 6 & 63] : '=');
        str_addc(s, i + 2 < n ? digit[x & 63] : '=');
    }
}

void load_template_text(const tokenizer *t, int64_t bos, int64_t eos, str *s) {
    size_t bn = 0, en = 0;
    const char *b = bos >= 0 && bos < INT32_MAX ? vocab_text(&t->voc, (int32_t)bos, &bn) : NULL;
    const char *x = eos >= 0 && eos < INT32_MAX ? vocab_text(&t->voc, (int32_t)eos, &en) : NULL;
    if (!b && !x) return;
    str parts, special;
    str_init(&parts, t->alloc);
    str_init(&special, t->alloc);
    for (int i = 0; i < 2; i++) {
        const char *text = i ? x : b;
        size_t n = i ? en : bn;
        if (i) str_addf(&parts, "%s{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}", b ? "," : "");
        if (!text) continue;
        str_adds(&parts, i ? ",{\"SpecialToken\":{\"id\":" : "{\"SpecialToken\":{\"id\":");
        str_add_json(&parts, text, n);
        str_adds(&parts, ",\"type_id\":0}}");
        if (i && b && bos == eos) continue; /* one entry is enough */
        if (special.len) str_addc(&special, ',');
        str_add_json(&special, text, n);
        str_adds(&special, ":{\"id\":");
        str_add_json(&special, text, n);
        str_addf(&special, ",\"ids\":[%lld],\"tokens\":[", (long long)(i ? eos : bos));
        str_add_json(&special, text, n);
        str_adds(&special, "]}");
    }
    str_addf(
        s,
        "{\"type\":\"TemplateProcessing\",\"single\":[%s],\"pair\":[%s,{\"Sequence\":{\"id\":\"B\",\"type_id\":1}}],"
        "\"special_tokens\":{%s}}",
        parts.data ? parts.data : "", parts.data ? parts.data : "", special.data ? special.data : "");
    if (parts.failed || special.failed) s->failed = true;
    str_fini(&parts);
    str_fini(&special);
}

static tl_status load_pieces_vocab(tokenizer *t, const load_pieces *p, tl_error *e) {
    for (size_t i = 0; i < p->n; i++) {
        const load_piece *x = &p->piece[i];
        unsigned flags = 0;
        if (x->type == PIECE_BYTE) {
            if (x->n != 6 || memcmp(x->text, "<0x", 3) || x->text[5] != '>' ||
                strspn(x->text + 3, "0123456789ABCDEF") < 2)
                return error_set(e, TL_FORMAT, "piece %zu is a byte, but \"%.*s\" is no <0xNN>", i,
                                 (int)(x->n < 40 ? x->n : 40), x->text);
            flags = VOCAB_BYTE;
        } else if (x->type == PIECE_UNUSED || x->type == PIECE_CONTROL || x->type == PIECE_UNKNOWN) {
            flags = VOCAB_HIDDEN; /* text never becomes one of these */
        } else if (x->type < PIECE_NORMAL || x->type > PIECE_BYTE) {
            return error_set(e, TL_FORMAT, "piece %zu has type %d, which does not exist", i, x->type);
        }
        /* foreign files repeat pieces now and then; the first is the one to be found */
        if (!(flags & VOCAB_HIDDEN) && vocab_find(&t->voc, x->text, x->n) >= 0) flags |= VOCAB_HIDDEN;
        TRY(vocab_put(&t->voc, (int64_t)i, x->text, x->n, flags, e));
    }
    return TL_OK;
}

static int load_piece_order(const void *a, const void *b, void *user) {
    const load_pieces *p = user;
    int32_t i = *(const int32_t *)a, k = *(const int32_t *)b;
    double x = p->piece[i].score, y = p->piece[k].score;
    return x != y ? (x < y) - (x > y) : (i > k) - (i < k);
}

static tl_status load_pieces_bpe(tokenizer *t, const load_pieces *p, tl_error *e) {
    int32_t *order = mem_new(t->alloc, p->n, sizeof *order);
    bpe *b = t->bpe = bpe_new(t->alloc);
    size_t n = 0;
    if (!order || !b) {
        mem_free(t->alloc, order);
        return error_set(e, TL_NOMEM, "no memory for merges");
    }
    for (size_t i = 0; i < p->n; i++)
        if ((p->piece[i].type == PIECE_NORMAL || p->piece[i].type == PIECE_USER) &&
            !(t->voc.entry[i].flags & VOCAB_HIDDEN))
            order[n++] = (int32_t)i;
    load_pieces user = *p;
    qsort_r(order, n, sizeof *order, load_piece_order, &user);
    b->byte_fallback = p->byte_fallback;
    b->fuse_unk = true;
    b->unk = t->unk;
    tl_status s = bpe_derive(b, &t->voc, order, n, true, e);
    mem_free(t->alloc, order);
    return s == TL_OK ? bpe_ready(b, &t->voc, e) : s;
}

static tl_status load_pieces_unigram(tokenizer *t, const load_pieces *p, tl_error *e) {
    double *score = mem_new(t->alloc, p->n, sizeof *score);
    t->unigram = unigram_new(t->alloc);
    tl_status s = score && t->unigram ? TL_OK : error_set(e, TL_NOMEM, "no memory for pieces");
    double most = -1e30;
    for (size_t i = 0; i < p->n; i++)
        if (p->piece[i].type == PIECE_NORMAL && p->piece[i].score > most) most = p->piece[i].score;
    for (size_t i = 0; s == TL_OK && i < p->n; i++) {
        score[i] = p->piece[i].score;
        /* what users define must win wherever it can stand */
        if (p->piece[i].type == PIECE_USER) score[i] = (double)(float)((double)p->piece[i].n * most - 0.1);
    }
    if (s == TL_OK) unigram_narrow(t->unigram);
    if (s == TL_OK) s = unigram_ready(t->unigram, &t->voc, score, t->unk, p->byte_fallback, e);
    mem_free(t->alloc, score);
    return s;
}

/* SentencePiece's own normalization, said in the words of tokenizer.json. */
static void load_pieces_normalizer(const load_pieces *p, str *s) {
    str_adds(s, "{\"type\":\"Sequence\",\"normalizers\":[");
    size_t empty = s->len;
    if (p->charsmap_n) {
        str_adds(s, "{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"");
        load_add_base64(s, p->charsmap, p->charsmap_n);
        str_adds(s, "\"},");
    }
    if (p->squeeze) /* at the end, marks in the text go too: they cannot be told from blanks any more */
        str_addf(s,
                 "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"\\\\A +|[ %s]+\\\\z\"},\"content\":\"\"},"
                 "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\" {2,}\"},\"content\":\" \"},",
                 p->escape ? load_mark : "");
    if (p->dummy_prefix) str_addf(s, "{\"type\":\"Prepend\",\"prepend\":\"%s\"},", p->escape ? load_mark : " ");
    if (p->escape) str_addf(s, "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"%s\"},", load_mark);
    if (s->failed) return;
    if (s->len > empty) s->data[--s->len] = 0; /* the last comma */
    str_adds(s, "]}");
}

tl_status load_pieces_into(tokenizer *t, const load_pieces *p, tl_error *e) {
    TRY(load_pieces_vocab(t, p, e));
    t->model = p->unigram ? MODEL_UNIGRAM : MODEL_BPE;
    t->unk = (int32_t)p->unk;
    if (p->unigram)
        TRY(load_pieces_unigram(t, p, e));
    else
        TRY(load_pieces_bpe(t, p, e));
    str normal, decoder, post;
    str_init(&normal, t->alloc);
    str_init(&decoder, t->alloc);
    str_init(&post, t->alloc);
    load_pieces_normalizer(p, &normal);
    str_addf(&decoder,
             "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"String\":\"%s\"},"
             "\"content\":\" \"},{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"}%s]}",
             load_mark, p->dummy_prefix ? ",{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}" : "");
    load_template_text(t, p->add_bos ? p->bos : -1, p->add_eos ? p->eos : -1, &post);
    tl_status s = normal.failed || decoder.failed || post.failed
                      ? error_set(e, TL_NOMEM, "no memory for a tokenizer")
                      : load_parts_text(t, normal.data, NULL, post.data, decoder.data, e);
    for (size_t i = 0; s == TL_OK && t->normalizer && i < t->normalizer->n; i++)
        t->normalizer->step[i].longest = true; /* SentencePiece's own reading of its map */
    str_fini(&normal);
    str_fini(&decoder);
    str_fini(&post);
    for (size_t i = 0; i < p->n && s == TL_OK; i++) {
        const load_piece *x = &p->piece[i];
        if (x->type == PIECE_CONTROL || x->type == PIECE_UNKNOWN)
            s = load_added_token(t, (int64_t)i, x->text, x->n, ADDED_SPECIAL, e);
        else if (x->type == PIECE_USER && !p->unigram)
            s = load_added_token(t, (int64_t)i, x->text, x->n, 0, e);
    }
    t->role[TOKENIZER_BOS] = (int32_t)p->bos;
    t->role[TOKENIZER_EOS] = (int32_t)p->eos;
    return s;
}
