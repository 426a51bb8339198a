/* What files of api/ share. */
#ifndef API_API_H
#define API_API_H

#include "data/loader.h"
#include "model/model.h"
#include "tilia/data.h"
#include "train/trainer.h"

struct tl_dataset {
    const tl_allocator *alloc;
    const tl_tokenizer *tokenizer; /* NULL: ids only */
    token_store text;
    loader *loader; /* NULL before tl_dataset_shape */
    int64_t rows, context;
    int users; /* trainers whose loaders look into text */
};

/* The public trainer: settings, a store of token ids that grows by text, and a loader over it that is made anew when
 * the text has grown. */
struct tl_trainer {
    trainer *inner;
    tl_model *model;
    tl_trainer_options o;
    token_store text;
    loader *loader;   /* NULL: to be made */
    tl_dataset *data; /* then text is not looked at; NULL: none */
};

/* Where tensor i of the model's files is: which parameter, and which piece of it. */
typedef struct tensor_place {
    const model_param *param;
    param_piece piece;
} tensor_place;
tl_status tensor_need(const tl_model *m, size_t i, tensor_place *out, tl_error *err);

#endif
