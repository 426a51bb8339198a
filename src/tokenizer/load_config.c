/* tokenizer_config.json and chat_template.jinja beside a tokenizer: roles and the chat template. */
#include "base/file.h"
#include "tokenizer/load.h"
#include <string.h>

enum { LOAD_CONFIG_MAX = 16 << 20 };

/* A token named by a string or by {"content": string}. */
static const char *load_config_token(const json_t *root, const char *key) {
    const json_t *v = json_object_get(root, key);
    return json_string_value(json_is_object(v) ? json_object_get(v, "content") : v);
}

static tl_status load_config_template(tokenizer *t, const json_t *root, tl_error *e) {
    const json_t *v = json_object_get(root, "chat_template");
    const char *text = json_string_value(v);
    for (size_t i = 0; !text && i < json_array_size(v); i++) { /* a list of named ones */
        const json_t *x = json_array_get(v, i);
        const char *name = json_string_value(json_object_get(x, "name"));
        if (name && !strcmp(name, "default")) text = json_string_value(json_object_get(x, "template"));
    }
    if (!text || t->chat_template) return TL_OK;
    t->chat_template = mem_strdup(t->alloc, text);
    return t->chat_template ? TL_OK : error_set(e, TL_NOMEM, "no memory for the chat template");
}

static tl_status load_config_file(tokenizer *t, const char *path, tl_error *e) {
    static const struct {
        const char *key;
        tokenizer_role role;
    } keys[] = {{"bos_token", TOKENIZER_BOS},
                {"eos_token", TOKENIZER_EOS},
                {"pad_token", TOKENIZER_PAD},
                {"unk_token", TOKENIZER_UNK}};
    json_t *root;
    TRY(json_read_file(t->alloc, path, LOAD_CONFIG_MAX, &root, e));
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const char *text = load_config_token(root, keys[i].key);
        int32_t id = text ? tokenizer_find(t, text, strlen(text)) : -1;
        if (id >= 0) t->role[keys[i].role] = id;
    }
    tl_status s = load_config_template(t, root, e);
    json_decref(root);
    return s;
}

tl_status load_config(tokenizer *t, const char *path, tl_error *e) {
    const char *slash = strrchr(path, '/');
    char buf[1024];
    int dir = slash ? (int)(slash - path + 1) : 0;
    if (t->model < MODEL_BPE) return TL_OK;
    int n = snprintf(buf, sizeof buf, "%.*schat_template.jinja", dir, path);
    if (n > 0 && (size_t)n < sizeof buf && file_exists(buf) && !t->chat_template) {
        size_t size;
        TRY(file_read(t->alloc, buf, LOAD_CONFIG_MAX, &t->chat_template, &size, e));
    }
    n = snprintf(buf, sizeof buf, "%.*stokenizer_config.json", dir, path);
    return n > 0 && (size_t)n < sizeof buf && file_exists(buf) ? load_config_file(t, buf, e) : TL_OK;
}
