/* SentencePiece's model file: a ModelProto. */
#include "format/protobuf.h"
#include "tokenizer/load_pieces.h"
#include <string.h>

enum { SP_MAX_PIECES = VOCAB_MAX_IDS };

typedef struct load_sp {
    const tl_allocator *alloc;
    load_pieces p;
    size_t cap;
    uint64_t model_type;
} load_sp;

static tl_status load_sp_piece(load_sp *x, protobuf_reader r, tl_error *e) {
    load_piece piece = {"", 0, 0, PIECE_NORMAL};
    protobuf_field f;
    bool more;
    for (;;) {
        TRY(protobuf_next(&r, &f, &more, e));
        if (!more) break;
        if (f.number == 1) {
            TRY(protobuf_want(&r, &f, PROTOBUF_BYTES, e));
            piece.text = (const char *)f.bytes;
            piece.n = f.size;
        } else if (f.number == 2) {
            TRY(protobuf_want(&r, &f, PROTOBUF_32, e));
            piece.score = (double)protobuf_float(&f);
            if (!(piece.score > -1e30 && piece.score < 1e30))
                return error_set(e, TL_FORMAT, "piece %zu has a score that is no number", x->p.n);
        } else if (f.number == 3) {
            TRY(protobuf_want(&r, &f, PROTOBUF_VARINT, e));
            piece.type = f.value <= PIECE_BYTE ? (int)f.value : 0;
        }
    }
    if (x->p.n >= SP_MAX_PIECES) return error_set(e, TL_LIMIT, "more than %d pieces", (int)SP_MAX_PIECES);
    if (!mem_reserve(x->alloc, &x->p.piece, &x->cap, x->p.n + 1)) return error_set(e, TL_NOMEM, "no memory for pieces");
    x->p.piece[x->p.n++] = piece;
    return TL_OK;
}

static tl_status load_sp_trainer(load_sp *x, protobuf_reader r, tl_error *e) {
    protobuf_field f;
    bool more;
    for (;;) {
        TRY(protobuf_next(&r, &f, &more, e));
        if (!more) return TL_OK;
        int64_t v = (int64_t)f.value;
        switch (f.number) {
        case 3: x->model_type = f.value; break;
        case 24:
            if (f.value) return error_set(e, TL_UNSUPPORTED, "a model with white space as suffix");
            break;
        case 35: x->p.byte_fallback = f.value != 0; break;
        case 40: x->p.unk = (int32_t)v; break;
        case 41: x->p.bos = (int32_t)v; break;
        case 42: x->p.eos = (int32_t)v; break;
        default: break;
        }
    }
}

static tl_status load_sp_normalizer(load_sp *x, protobuf_reader r, tl_error *e) {
    protobuf_field f;
    bool more;
    for (;;) {
        TRY(protobuf_next(&r, &f, &more, e));
        if (!more) return TL_OK;
        if (f.number == 2) {
            TRY(protobuf_want(&r, &f, PROTOBUF_BYTES, e));
            x->p.charsmap = f.bytes;
            x->p.charsmap_n = f.size;
        } else if (f.number == 3) {
            x->p.dummy_prefix = f.value != 0;
        } else if (f.number == 4) {
            x->p.squeeze = f.value != 0;
        } else if (f.number == 5) {
            x->p.escape = f.value != 0;
        }
    }
}

static tl_status load_sp_model(load_sp *x, protobuf_reader r, tl_error *e) {
    protobuf_field f;
    bool more;
    for (;;) {
        TRY(protobuf_next(&r, &f, &more, e));
        if (!more) return TL_OK;
        if (f.number < 1 || f.number > 3) continue;
        TRY(protobuf_want(&r, &f, PROTOBUF_BYTES, e));
        protobuf_reader in = protobuf_inside(&r, &f);
        if (f.number == 1)
            TRY(load_sp_piece(x, in, e));
        else if (f.number == 2)
            TRY(load_sp_trainer(x, in, e));
        else
            TRY(load_sp_normalizer(x, in, e));
    }
}

static tl_status load_sp_check(load_sp *x, tl_error *e) {
    int64_t *id[3] = {&x->p.unk, &x->p.bos, &x->p.eos};
    if (!x->p.n) return error_set(e, TL_FORMAT, "the model has no pieces");
    for (int i = 0; i < 3; i++)
        if (*id[i] < 0 || *id[i] >= (int64_t)x->p.n) *id[i] = -1;
    if (x->p.unk < 0) return error_set(e, TL_FORMAT, "the model has no unknown piece");
    if (x->model_type != 1 && x->model_type != 2)
        return error_set(e, TL_UNSUPPORTED, "a model of type %llu; unigram (1) and BPE (2) are known",
                         (unsigned long long)x->model_type);
    x->p.unigram = x->model_type == 1;
    x->p.add_bos = !x->p.unigram; /* as Llama and Mistral use theirs; T5 and its kin end a text */
    x->p.add_eos = x->p.unigram;
    return TL_OK;
}

bool load_is_sentencepiece(const uint8_t *data, size_t n) {
    protobuf_reader r = {data, n, 0, 0};
    protobuf_field f;
    bool more;
    if (n < 4 || data[0] != 0x0a) return false; /* field 1, bytes: the first piece */
    if (protobuf_next(&r, &f, &more, NULL) != TL_OK || !more || !f.size) return false;
    protobuf_reader in = protobuf_inside(&r, &f);
    return protobuf_next(&in, &f, &more, NULL) == TL_OK && more && f.number == 1 && f.wire == PROTOBUF_BYTES;
}

tl_status load_sentencepiece(const tl_allocator *a, const uint8_t *data, size_t n, tokenizer **out, tl_error *e) {
    tokenizer *t;
    load_sp x = {.alloc = a, .model_type = 1};
    x.p.dummy_prefix = x.p.squeeze = x.p.escape = true; /* protobuf's defaults of these fields */
    x.p.unk = 0, x.p.bos = 1, x.p.eos = 2;
    TRY(tokenizer_new(a, MODEL_BPE, &t, e));
    tl_status s = load_sp_model(&x, (protobuf_reader){data, n, 0, 0}, e);
    if (s == TL_OK) s = load_sp_check(&x, e);
    if (s == TL_OK) s = load_pieces_into(t, &x.p, e);
    mem_free(a, x.p.piece);
    if (s == TL_OK)
        *out = t;
    else
        tokenizer_close(t);
    return s;
}
