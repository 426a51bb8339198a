/* Checkpoints that a kill cannot break. RUN/ckpt-00001234/ is a Hugging Face directory (config.json, model.safetensors,
 * tokenizer.json; of adapters: one of PEFT's, adapter_config.json, adapter_model.safetensors, base.json) with
 * optimizer.safetensors (both moments) and, written last, manifest.json: sizes and XXH3 of the other files, where
 * training stands, a seal over itself.
 *
 * Writing: everything into ckpt-N.tmp/, each file synced, the manifest, the folder synced, the folder renamed, RUN
 * synced; then RUN/latest replaced; then older ones pruned. So at any moment a folder called ckpt-N is whole, and
 * `latest` names one that is. */
#ifndef TRAIN_CHECKPOINT_H
#define TRAIN_CHECKPOINT_H

#include "train/trainer.h"

enum { CHECKPOINT_VERSION = 1 };

/* Writes the state of t. extra (may be NULL) is the caller's own object, kept as it is under "extra". On an error
 * nothing half-written is visible and older checkpoints are untouched. [fails: IO, NOSPACE, NOMEM] */
tl_status checkpoint_save(const trainer *t, const char *run, const json_t *extra, tl_error *err);
/* Removes all but the newest `keep` checkpoints, and what interrupted writers left. keep 0: removes no checkpoint. */
tl_status checkpoint_prune(const tl_allocator *a, const char *run, int64_t keep, tl_error *err);

/* Checks seal, sizes and every checksum; *manifest (json_decref) may be NULL.
 * [fails: NOTFOUND no manifest; FORMAT, CHECKSUM naming the file; UNSUPPORTED a newer version] */
tl_status checkpoint_verify(const tl_allocator *a, const char *dir, json_t **manifest, tl_error *err);
/* The newest whole checkpoint of a run: the one that `latest` names, else, scanning backwards, the first that verifies.
 * Each one passed over is a warning in the log with its reason. [fails: NOTFOUND there is none; NOMEM] */
tl_status checkpoint_find(const tl_allocator *a, const char *run, const log_sink *log, char *dir, size_t size,
                          json_t **manifest, tl_error *err);

/* The settings that the checkpoint was trained with. [fails: CONFIG] */
tl_status checkpoint_settings(const json_t *manifest, trainer_settings *out, tl_error *err);
/* Puts moments, step and position in the data back into t, whose model was opened from dir.
 * [fails: SHAPE the model is another one; FORMAT, CONFIG, IO, NOMEM] */
tl_status checkpoint_restore(trainer *t, const char *dir, const json_t *manifest, tl_error *err);
/* The model of the checkpoint (with adapters only: its base stays in its file) and a trainer of its settings, where
 * both stood. steps > 0: another length of the schedule. On an error both are NULL. [owns: caller, both; the trainer
 * goes first] [fails: as model_open, trainer_create, checkpoint_restore] */
tl_status checkpoint_resume(tl_engine *e, const char *dir, const json_t *manifest, int64_t steps, tl_model **model,
                            trainer **out, tl_error *err);
/* "extra" of the manifest, borrowed; NULL if there is none. */
const json_t *checkpoint_extra(const json_t *manifest);

/* Settings as an object and back, for manifests and run.json. NULL: out of memory. */
json_t *checkpoint_settings_json(const trainer_settings *s);

#endif
