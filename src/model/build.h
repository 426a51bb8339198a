/* The one builder: training, evaluation, prefill and decode graphs of every architecture. */
#ifndef MODEL_BUILD_H
#define MODEL_BUILD_H

#include "model/lora.h"
#include "tilia/graph.h"

typedef enum build_mode {
    BUILD_TRAIN,  /* loss over (rows, context), dropout on; the caller adds the backward pass */
    BUILD_EVAL,   /* loss and losses per token */
    BUILD_DECODE, /* rows tokens of any sequences over a cache; logits of chosen rows */
    BUILD_LOGITS, /* (rows, context) ids to the logits of every position, without a cache */
    BUILD_ENCODE, /* up to `rows` tokens of one source through the encoder, and what the decoder's layers make of them
                     into the cache */
    BUILD_BLOCKS  /* blocks first .. first + blocks alone: x (rows, context, D) to x */
} build_mode;

/* Matrices in the pieces in which a file has them. */
typedef struct build_matrix {
    tl_dtype dtype;
    int64_t rows, cols;
    const void *data;
} build_matrix;
typedef struct build_matrices {
    build_matrix *piece; /* (params.n * PARAM_PIECES); unused ones have dtype TL_NONE */
    size_t n;
} build_matrices;

size_t build_mapped_bytes(const build_matrices *m); /* NULL: 0 */

typedef struct build_options {
    build_mode mode;
    int64_t rows;    /* TRAIN, EVAL: sequences; DECODE: tokens at a time */
    int64_t context; /* TRAIN, EVAL: tokens a sequence; DECODE: cache capacity */
    int64_t slots;   /* DECODE: sequences in the cache */
    int64_t outputs; /* DECODE: rows whose logits are wanted */
    tl_dtype dtype;  /* of activations and of the matrices bound: F32, BF16 (F64 in tests) */
    tl_dtype cache;  /* DECODE: dtype of the cache */
    bool packed;     /* TRAIN, EVAL: doc and pos are inputs; else positions are 0..context-1 and documents are not told
                        apart */
    bool trainable;  /* parameters get gradients */
    int64_t first, blocks; /* BLOCKS */
    int64_t segment; /* TRAIN, EVAL: tokens of a row in the graph, a piece of a context; what the mixers know of the
                        tokens before comes in and goes out as carry. 0: whole rows */
    bool advance;    /* with segment: no loss, only what goes out */
    const build_matrices *mapped; /* matrices as these pieces; NULL: as parameters */
    const model_lora *lora;       /* adapters: they alone are trainable then */
} build_options;

/* A sum or a token that one segment of a row hands to the next: what came in, what goes out, of one shape; and with
 * build_segment_backward the gradients of them: dout is bound by the caller, din a result. */
typedef struct build_carry {
    tl_tensor *in, *out, *din, *dout;
} build_carry;
enum { BUILD_CARRIES = 2 }; /* at most, of one layer */
/* Why the rows of this model cannot be computed by segments of so many tokens; NULL: they can. */
const char *build_segment_refusal(const model_config *c, int64_t segment, char *text, size_t size);

/* Handles of what the caller binds. Unused ones are NULL. Layouts: ids, targets, pos, doc (rows, context) i32. */
typedef struct build_result {
    tl_tensor **params; /* one for each model_params entry (arena of the graph); NULL where there are pieces */
    tl_tensor **pieces; /* one for each of options.mapped, NULL without */
    tl_tensor **lora;   /* one for each of options.lora's params, NULL without */
    tl_tensor *ids, *targets, *pos, *doc;
    tl_tensor *source, *source_pos, *source_doc; /* seq2seq: (rows, source) i32; ENCODE: (1, rows); doc -1: padding */
    tl_tensor *cross;         /* (rows, context, 2) i32: the places of the source that belong to each of the target;
                                 DECODE: (rows), its length */
    tl_tensor *span;          /* prefix: (rows, context, 2) i32, what a place sees; DECODE: (rows), its end */
    tl_tensor *denom;         /* (1): labels of the whole step */
    tl_tensor *freq;          /* (R/2) f64: RoPE frequencies, of every part one after the other */
    tl_tensor *slopes;        /* (H) ALiBi, or log decays */
    tl_tensor *sinusoid;      /* (context, D) fixed position table */
    tl_tensor *slot, *select; /* DECODE: (rows), (outputs): row indices whose logits are wanted */
    tl_tensor **state;        /* DECODE: BUILD_STATES a layer, NULL where build_state gives none */
    tl_tensor *loss, *losses; /* (1); (rows*context) */
    tl_tensor *balance;       /* TRAIN, with experts: (1), the load-balancing loss, beside loss; NULL otherwise */
    tl_tensor *mass, *load;   /* its sums, (E) */
    tl_tensor *hidden;        /* last hidden state, after the final norm */
    tl_tensor *logits;        /* DECODE: (outputs, V) f32; LOGITS: (rows, context, V) */
    tl_tensor *x, *y;         /* BLOCKS: what goes in and what comes out, (rows, context, D) */
    tl_tensor *seen;          /* segment: (rows) i32, tokens before it */
    build_carry *carry;       /* segment: what the segments of a row hand on, (n_carry) */
    size_t n_carry;
} build_result;

/* What a layer keeps between tokens while decoding. k 0, 1: keys and values (slots, context, Hk, Dh), or those of a
 * gated unit, one head; flash instead has 0..3: M (slots, s, e) f32, kq and kl (slots, chunk, s), v (slots, chunk, e)
 * of the chunk at hand; 4: the channels of the last two tokens for the token shift; 5, 6: keys and values of the
 * source, (slots, source, Hk, Dh) or of a unit's one head. Its name and shape; NULL: there is none. */
/* 7..10: of a level of chunks above, as 0..3 with its own chunk; 11, 12: keys and values of all tokens, (slots,
 * context, H,
 * ..), where far chunks are reached exactly. */
enum { BUILD_STATES = 13 };
const char *build_state(const model_config *c, const build_options *o, int64_t layer, int k, tl_desc *d);
/* Does what a sequence keeps stay the same size however long it gets, and its positions without end? */
bool build_endless(const model_config *c);
/* Bytes of state for one more token, and those that a sequence needs whatever its length. */
size_t build_state_per_token(const model_config *c, tl_dtype cache);
size_t build_state_fixed(const model_config *c, tl_dtype cache);
/* Of a sequence of `done` tokens, to which position not above n its state can go back. */
int64_t build_rewind(const model_config *c, int64_t done, int64_t n);

/* Decode graphs are made for so many rows: the smallest that holds the tokens at hand. */
enum { BUILD_BUCKETS = 7 };
extern const int64_t build_bucket_rows[BUILD_BUCKETS];
int64_t build_bucket(int64_t rows); /* the largest for more than it holds */

/* Builds into g; errors are g's sticky error. out->params etc. are allocated with a and freed by build_fini. */
tl_status build_model(tl_graph *g, const tl_allocator *a, const model_config *c, const model_params *p,
                      const build_options *o, build_result *out, tl_error *e);
/* The backward pass of a segment: gradients of its loss and of what it hands on. Errors are g's. */
tl_status build_segment_backward(tl_graph *g, const tl_allocator *a, build_result *r, tl_recompute level, tl_error *e);
void build_fini(build_result *r, const tl_allocator *a);

/* Constants that graphs bind: RoPE frequencies (count head_dim*partial/2), the factor on cos and sin, ALiBi slopes
 * (heads), the sinusoid table. seen: tokens in the context, for scalings that depend on it. */
int64_t build_rope_dims(const model_config *c);
/* Dims of ordinary layers, of gated ones where they differ, of cosFormer's one angle; returns how many. */
int build_rope_parts(const model_config *c, int64_t dims[3]);
/* A number for every head: ALiBi's slopes, or the logarithms of retention's decays. false: the model has none. */
bool build_head_constants(const model_config *c, float *x);
void build_rope_freq(const model_config *c, int64_t seen, double *freq, double *mscale);
void build_alibi_slopes(int64_t heads, float *slopes);
void build_sinusoid(int64_t rows, int64_t width, float *table);
/* Rows of the sinusoid table that a graph of this context reads; 0: it reads none. */
int64_t build_sinusoid_rows(const model_config *c, int64_t context);

#endif
