/* A mixture of experts in the place of the mlp. */
#include "model/builder.h"

/* Experts of a layer, in the two tensors in which a file may have what we keep as one. */
static tl_tensor *expand(const builder *b, tl_tensor *x, tl_tensor *begin, int64_t layer) {
    const model_config *c = b->c;
    tl_tensor *gate = builder_piece(b, ROLE_EXPERT_UP, layer, 0), *up = builder_piece(b, ROLE_EXPERT_UP, layer, 1);
    tl_tensor *part[2];
    if (up) {
        part[0] = tl_expert_linear(b->g, x, gate, begin);
        part[1] = tl_expert_linear(b->g, x, up, begin);
    } else {
        tl_tensor *h = tl_expert_linear(b->g, x, builder_matrix(b, ROLE_EXPERT_UP, layer), begin);
        tl_split(b->g, h, 2, (int64_t[]){c->expert_mlp, c->expert_mlp}, part);
    }
    return tl_glu(b->g, part[0], part[1], (tl_act_kind)c->act);
}

/* Which experts every row of x (N,D) goes to; in training also how busy they are, added up over layers. */
static void route(const builder *b, tl_tensor *x, int64_t rows, int64_t layer, tl_route_outputs *out) {
    const model_config *c = b->c;
    bool train = b->o->mode == BUILD_TRAIN && c->router_aux > 0;
    tl_tensor *z =
        tl_linear(b->g, x, builder_matrix(b, ROLE_ROUTER, layer), NULL, b->o->dtype == TL_F64 ? TL_F64 : TL_F32);
    tl_route_options ro = {.k = (int)c->experts_used, .norm = c->expert_norm, .slot = b->r->slot};
    if (train) ro.counted = tl_reshape(b->g, b->r->targets, 1, &rows), ro.mass = b->r->mass, ro.load = b->r->load;
    tl_route(b->g, tl_softmax(b->g, z), &ro, train, out);
    if (train) b->r->mass = out->mass, b->r->load = out->load;
}

tl_tensor *build_experts(const builder *b, tl_tensor *acc, tl_tensor *x, int64_t layer) {
    const model_config *c = b->c;
    tl_route_outputs to;
    tl_expert_order order;
    int64_t rows = b->lead[0] * (b->n_lead > 1 ? b->lead[1] : 1), flat[2] = {rows, c->width};
    x = tl_reshape(b->g, x, 2, flat);
    if (acc) acc = tl_reshape(b->g, acc, 2, flat);
    route(b, x, rows, layer, &to);
    tl_expert_sort(b->g, to.id, c->experts, &order);
    tl_tensor *h = expand(b, tl_embedding(b->g, order.token, x, 1, TL_NONE, NULL), order.begin, layer);
    h = tl_expert_linear(b->g, h, builder_matrix(b, ROLE_EXPERT_DOWN, layer), order.begin);
    return builder_flat(b, tl_expert_sum(b->g, acc, h, to.w, order.place), c->width);
}

void build_balance(const builder *b) {
    const model_config *c = b->c;
    build_result *r = b->r;
    if (!r->mass) return;
    r->balance = tl_balance(b->g, r->mass, r->load, r->denom, (float)c->router_aux, (int)c->experts_used,
                            config_expert_layers(c));
    tl_output(b->g, r->balance, "balance");
    tl_graph_add_loss(b->g, r->balance);
}
