/* What the files of the one builder share: build.c and build_gated.c. */
#ifndef MODEL_BUILDER_H
#define MODEL_BUILDER_H

#include "model/build.h"

typedef struct builder {
    tl_graph *g;
    const model_config *c;
    const model_params *p;
    const build_options *o;
    build_result *r;
    tl_tensor *cos_table;         /* (N..,2 Dh) the one angle of cosFormer, or NULL */
    tl_tensor *rope, *gated_rope; /* (N..,R) cos and sin of ordinary and of gated layers, NULL without RoPE */
    tl_tensor *memory;            /* (rows, source, D) what the encoder made of the source */
    bool encoder;                 /* these are its layers */
    int64_t lead[2];              /* leading dims of activations: (B,T), or (R) */
    int n_lead;
} builder;

/* A parameter that is not a matrix, or NULL. */
tl_tensor *builder_param(const builder *b, param_role role, int64_t layer);
/* The one tensor of a matrix that is never in pieces. */
tl_tensor *builder_matrix(const builder *b, param_role role, int64_t layer);
/* x w^T + bias, w a matrix that is never in pieces, with its adapter */
tl_tensor *builder_linear(const builder *b, tl_tensor *x, param_role role, param_role bias, int64_t layer);
/* Does a row see nothing that follows it, by the order of places alone? */
bool builder_causal(const builder *b);
/* nth norm of a layer */
tl_tensor *builder_norm(const builder *b, tl_tensor *x, int64_t layer, int32_t nth);
/* x + dropout(h w^T + bias) of the mixer's output projection */
tl_tensor *builder_join(const builder *b, tl_tensor *x, tl_tensor *h, int64_t layer);
/* x (N.., w) as (N.., ...) of two more dimensions, of one more */
tl_tensor *builder_fold(const builder *b, tl_tensor *x, int64_t heads, int64_t width);
tl_tensor *builder_flat(const builder *b, tl_tensor *x, int64_t width);

/* Numbers that a bias of relative positions is made of; the bias (heads,2P-1), or NULL. reach: P. */
int64_t build_rel_count(const model_config *c, int kind, int64_t heads, int64_t width, int64_t reach);
tl_tensor *build_rel_bias(const builder *b, param_role role, int64_t layer, int kind, int64_t heads, int64_t width,
                          int64_t reach);
tl_tensor *build_gate_bias(const builder *b, int64_t layer); /* of gated layers and mixed chunks, (2P-1) */
/* The temperature of a gated layer's scores (ROLE_THETA, ROLE_CROSS_THETA), or NULL. */
tl_tensor *build_theta(const builder *b, param_role role, int64_t layer);
/* x (N..,width) times a number that is learned */
tl_tensor *build_times(const builder *b, tl_tensor *x, tl_tensor *number, int64_t width);
/* act(x), x (N..,width); act(gate) (.) up, of an mlp */
tl_tensor *build_act(const builder *b, tl_tensor *x, int64_t width, int64_t layer);
tl_tensor *build_glu(const builder *b, tl_tensor *gate, tl_tensor *up, int64_t layer);

/* Mixed chunks inside a block: q, k (N.., H, Dh) without RoPE, v; (N.., H, Dh). */
tl_tensor *build_chunk_mixer(const builder *b, tl_tensor *q, tl_tensor *k, tl_tensor *v, int64_t layer);
/* Piece k of a matrix that a file has in pieces; NULL: there is none. */
tl_tensor *builder_piece(const builder *b, param_role role, int64_t layer, int k);

/* segment: what the segment before hands on, of the shape and dtype of d (rows first), and what this one does, in the
 * order of the calls; NULL and nothing where rows are whole. what: a name for it. */
tl_tensor *build_carry_in(const builder *b, const tl_desc *d, const char *what, int64_t layer);
void build_carry_out(const builder *b, tl_tensor *out);
/* An operator whose second output goes on, if from is not NULL; its first. */
tl_tensor *build_carried(const builder *b, const tl_op_def *op, const void *attr, tl_tensor *const *in, int n,
                         tl_tensor *from);

/* What the experts of a layer say of x (N..,D), added to acc (or NULL). */
tl_tensor *build_experts(const builder *b, tl_tensor *acc, tl_tensor *x, int64_t layer);
/* The loss that keeps them equally busy, where there are any. */
void build_balance(const builder *b);
/* Attention over rows that stand for all tokens; q, k, v (N..,H,Dh), positions in them -> the same. */
tl_tensor *build_linformer(const builder *b, tl_tensor *q, tl_tensor *k, tl_tensor *v, int64_t layer);
tl_tensor *build_nystrom(const builder *b, tl_tensor *q, tl_tensor *k, tl_tensor *v);
/* A mixer whose memory is one matrix a head; in: (N..,D), q, k, v (N..,H,Dh) -> (N..,H Dh). */
tl_tensor *build_state_mixer(const builder *b, tl_tensor *in, tl_tensor *q, tl_tensor *k, tl_tensor *v, int64_t layer);
/* Width of its q and k, columns of its state. */
int64_t build_state_features(const model_config *c, int64_t layer, int64_t *columns);
/* Weights of a gated layer's scores. */
struct gate_attr build_gate(const builder *b, int64_t layer);
/* The token embeddings of ids with positions. Sets the builder's tables of rotations. */
tl_tensor *builder_embed(builder *b, tl_tensor *ids);
/* One block; of the encoder's builder one of its own. */
tl_tensor *builder_block(const builder *b, tl_tensor *x, int64_t layer);
/* build_encoder.c: inputs of source and cross attention; the encoder, whose result is b->memory; what a decoder layer
 * sees of it, added to x; ENCODE: all of it into the cache. */
void build_source_inputs(const builder *b);
void build_encoder(builder *b);
tl_tensor *build_cross(const builder *b, tl_tensor *x, int64_t layer);
void build_encode(const builder *b);
/* A layer of gau or flash. */
tl_tensor *build_gated(const builder *b, tl_tensor *x, int64_t layer);

#endif
