/* Chat templates of the families that matter, told by fingerprints of the tokenizer's own template. A conversation is
 * a list of parts: the format's markers, in which special tokens are read, and what people say, in which they are
 * not: nobody can write himself another role. */
#include "tokenizer/added.h"
#include "tokenizer/encode.h"
#include <stdio.h>
#include <string.h>

typedef struct chat_writer {
    const tokenizer *t;
    encoder *x;      /* NULL: text only */
    token_list *out; /* NULL: text only */
    str *text;       /* NULL: ids only */
    str plain;       /* text since the last special token; encoded as one, whoever wrote it */
    size_t at;       /* bytes of the conversation before plain */
    bool eats;       /* the last special token takes the white space behind it */
    size_t *range;   /* where answers begin and end in the conversation, in turn; NULL: nobody asks */
    size_t ranges, cap;
    tl_error *e;
    tl_status status;
} chat_writer;

/* What stands in plain, to ids; nothing in it is a special token. */
static void chat_flush(chat_writer *w) {
    size_t used;
    if (w->status == TL_OK && w->plain.failed) w->status = error_set(w->e, TL_NOMEM, "no memory for the conversation");
    if (w->status == TL_OK && w->plain.len && w->text) str_add(w->text, w->plain.data, w->plain.len);
    if (w->status == TL_OK && w->plain.len && w->out)
        w->status = encoder_run(w->x, w->plain.data, w->plain.len, w->at, 0, true, &used, w->out, w->e);
    w->at += w->plain.len;
    str_clear(&w->plain);
}

static void chat_say_n(chat_writer *w, const char *s, size_t n) {
    while (w->eats && n && strchr(" \t\n\r\v\f", s[0])) {
        if (w->text) str_add(w->text, s, 1);
        s++, n--, w->at++;
    }
    if (n) w->eats = false;
    str_add(&w->plain, s, n);
}

/* Part of the format: special tokens in it are read as such. */
static void chat_mark(chat_writer *w, const char *s) {
    size_t n = strlen(s), at = 0;
    added_match m;
    while (w->status == TL_OK && added_next(w->t->added, w->t->uni, 0, true, s, at, n, &m)) {
        chat_say_n(w, s + at, m.begin - at);
        chat_flush(w);
        if (w->text) str_add(w->text, s + m.begin, m.end - m.begin);
        if (w->status == TL_OK && w->out && !token_list_add(w->out, m.token->id, w->at, w->at + m.end - m.begin))
            w->status = error_set(w->e, TL_NOMEM, "no memory for ids");
        w->at += m.end - m.begin;
        w->eats = (m.token->flags & ADDED_RSTRIP) != 0;
        at = m.end;
    }
    chat_say_n(w, s + at, n - at);
}

static void chat_say(chat_writer *w, const char *s) {
    chat_say_n(w, s, strlen(s));
}

/* Without the white space at both ends, as most templates' | trim. */
static void chat_say_trimmed(chat_writer *w, const char *s) {
    size_t n = strlen(s);
    while (n && strchr(" \t\n\r\v\f", s[0])) s++, n--;
    while (n && strchr(" \t\n\r\v\f", s[n - 1])) n--;
    chat_say_n(w, s, n);
}

static void chat_token(chat_writer *w, tokenizer_role role, const char *absent) {
    size_t n;
    const char *text = tokenizer_text(w->t, tokenizer_role_id(w->t, role), &n);
    chat_mark(w, text ? text : absent);
}

/* An answer begins or ends here; its end is that of the marker that closes it. */
static void chat_turn(chat_writer *w) {
    if (!w->range) return;
    if (!mem_reserve(w->t->alloc, &w->range, &w->cap, w->ranges + 1))
        w->status = error_set(w->e, TL_NOMEM, "no memory for the conversation");
    else
        w->range[w->ranges++] = w->at + w->plain.len;
}

static bool chat_is(const chat_message *m, const char *role) {
    return !strcmp(m->role, role);
}

static tl_status chat_refuse(chat_writer *w, const char *family, const chat_message *m, size_t i) {
    if (w->status == TL_OK)
        w->status = error_set(w->e, TL_ARG, "message %zu: the %s format has no place for role \"%.40s\" there", i,
                              family, m->role);
    return w->status;
}

/* Roles must alternate user, assistant from message `from` on. */
static bool chat_alternates(chat_writer *w, const char *family, const chat_message *m, size_t from, size_t n) {
    for (size_t i = from; i < n; i++)
        if (!chat_is(&m[i], (i - from) % 2 ? "assistant" : "user")) {
            chat_refuse(w, family, &m[i], i);
            return false;
        }
    return true;
}

static void chat_chatml(chat_writer *w, const chat_message *m, size_t n, bool open) {
    for (size_t i = 0; i < n; i++) {
        chat_mark(w, "<|im_start|>");
        chat_say(w, m[i].role);
        chat_say(w, "\n");
        bool answer = chat_is(&m[i], "assistant");
        if (answer) chat_turn(w);
        chat_say(w, m[i].text);
        chat_mark(w, "<|im_end|>");
        if (answer) chat_turn(w);
        chat_say(w, "\n");
    }
    if (open) chat_mark(w, "<|im_start|>assistant\n");
}

static void chat_llama3(chat_writer *w, const chat_message *m, size_t n, bool open) {
    chat_token(w, TOKENIZER_BOS, "<|begin_of_text|>");
    for (size_t i = 0; i < n; i++) {
        chat_mark(w, "<|start_header_id|>");
        chat_say(w, m[i].role);
        chat_mark(w, "<|end_header_id|>\n\n");
        bool answer = chat_is(&m[i], "assistant");
        if (answer) chat_turn(w);
        chat_say_trimmed(w, m[i].text);
        chat_mark(w, "<|eot_id|>");
        if (answer) chat_turn(w);
    }
    if (open) chat_mark(w, "<|start_header_id|>assistant<|end_header_id|>\n\n");
}

static void chat_llama2(chat_writer *w, const chat_message *m, size_t n, bool open) {
    size_t from = n && chat_is(&m[0], "system");
    (void)open; /* [/INST] has opened the turn */
    if (!chat_alternates(w, "llama2", m, from, n)) return;
    for (size_t i = from; i < n; i++) {
        if ((i - from) % 2) {
            chat_mark(w, " ");
            chat_turn(w);
            chat_say_trimmed(w, m[i].text);
            chat_mark(w, " ");
            chat_token(w, TOKENIZER_EOS, "</s>");
            chat_turn(w);
            continue;
        }
        chat_token(w, TOKENIZER_BOS, "<s>");
        chat_mark(w, "[INST] ");
        if (i == from && from) {
            chat_mark(w, "<<SYS>>\n");
            chat_say(w, m[0].text);
            chat_mark(w, "\n<</SYS>>\n\n");
        }
        chat_say_trimmed(w, m[i].text);
        chat_mark(w, " [/INST]");
    }
}

static void chat_inst(chat_writer *w, const chat_message *m, size_t n, const char *before) {
    size_t from = n && chat_is(&m[0], "system");
    if (!chat_alternates(w, "mistral", m, from, n)) return;
    chat_token(w, TOKENIZER_BOS, "<s>");
    for (size_t i = from; i < n; i++) {
        if ((i - from) % 2) {
            chat_mark(w, before);
            chat_turn(w);
            if (*before)
                chat_say_trimmed(w, m[i].text);
            else
                chat_say(w, m[i].text);
            chat_token(w, TOKENIZER_EOS, "</s>");
            chat_turn(w);
            continue;
        }
        chat_mark(w, "[INST] ");
        if (i == from && from) {
            chat_say(w, m[0].text);
            chat_say(w, "\n\n");
        }
        chat_say(w, m[i].text);
        chat_mark(w, " [/INST]");
    }
}

/* [/INST] has opened the turn. */
static void chat_mistral(chat_writer *w, const chat_message *m, size_t n, bool open) {
    (void)open;
    chat_inst(w, m, n, " ");
}

static void chat_mistral_v1(chat_writer *w, const chat_message *m, size_t n, bool open) {
    (void)open;
    chat_inst(w, m, n, "");
}

static void chat_gemma(chat_writer *w, const chat_message *m, size_t n, bool open) {
    size_t from = n && chat_is(&m[0], "system"); /* goes before the first thing the user says */
    if (!chat_alternates(w, "gemma", m, from, n)) return;
    chat_token(w, TOKENIZER_BOS, "<bos>");
    for (size_t i = from; i < n; i++) {
        chat_mark(w, (i - from) % 2 ? "<start_of_turn>model\n" : "<start_of_turn>user\n");
        if (i == from && from) {
            chat_say_trimmed(w, m[0].text);
            chat_say(w, "\n\n");
        }
        bool answer = (i - from) % 2;
        if (answer) chat_turn(w);
        chat_say_trimmed(w, m[i].text);
        chat_mark(w, "<end_of_turn>");
        if (answer) chat_turn(w);
        chat_say(w, "\n");
    }
    if (open) chat_mark(w, "<start_of_turn>model\n");
}

static void chat_lines(chat_writer *w, const char *family, const char *end, const chat_message *m, size_t n,
                       bool open) {
    for (size_t i = 0; i < n; i++) {
        const char *mark = chat_is(&m[i], "system")      ? "<|system|>\n"
                           : chat_is(&m[i], "user")      ? "<|user|>\n"
                           : chat_is(&m[i], "assistant") ? "<|assistant|>\n"
                                                         : NULL;
        if (!mark) {
            chat_refuse(w, family, &m[i], i);
            return;
        }
        bool answer = chat_is(&m[i], "assistant");
        chat_mark(w, mark);
        if (answer) chat_turn(w);
        chat_say(w, m[i].text);
        if (end)
            chat_mark(w, end);
        else
            chat_token(w, TOKENIZER_EOS, "</s>");
        if (answer) chat_turn(w);
        chat_mark(w, "\n");
    }
    if (open) chat_mark(w, "<|assistant|>\n");
}

static void chat_phi3(chat_writer *w, const chat_message *m, size_t n, bool open) {
    chat_lines(w, "phi3", "<|end|>", m, n, open);
}

static void chat_zephyr(chat_writer *w, const chat_message *m, size_t n, bool open) {
    chat_lines(w, "zephyr", NULL, m, n, open);
}

/* For tokenizers without a template: lines that say who speaks. */
static void chat_plain(chat_writer *w, const chat_message *m, size_t n, bool open) {
    size_t had = w->out ? w->out->n : 0;
    int32_t bos = tokenizer_role_id(w->t, TOKENIZER_BOS);
    if (w->out) w->status = tokenizer_encode(w->t, "", 0, TOKENIZER_ADD, w->out, w->e);
    if (w->out)
        w->out->n = w->out->n > had && w->out->id[had] == bos ? had + 1 : had; /* where one stands before texts */
    for (size_t i = 0; i < n; i++) {
        bool answer = chat_is(&m[i], "assistant");
        chat_say(w, answer ? "Assistant:" : chat_is(&m[i], "user") ? "User: " : "");
        if (answer) chat_turn(w);
        if (answer) chat_say(w, " ");
        chat_say(w, m[i].text);
        chat_say(w, "\n");
        if (answer) chat_turn(w);
    }
    if (open) chat_say(w, "Assistant:");
}

/* A family is told by strings its template holds (and one it does not). */
static const struct {
    const char *name, *has, *and_has, *but_not;
    void (*write)(chat_writer *w, const chat_message *m, size_t n, bool open);
} chat_families[] = {
    {"llama3", "<|start_header_id|>", "<|eot_id|>", "<|im_start|>", chat_llama3},
    {"gemma", "<start_of_turn>", "<end_of_turn>", "<|im_start|>", chat_gemma},
    {"chatml", "<|im_start|>", "<|im_end|>", "<|im_sep|>", chat_chatml},
    {"llama2", "<<SYS>>", "[INST]", "[SYSTEM_PROMPT]", chat_llama2},
    {"mistral-v1", "[INST]", "{{ message['content'] + eos_token", "[SYSTEM_PROMPT]", chat_mistral_v1},
    {"mistral", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", chat_mistral},
    {"phi3", "<|end|>", "<|user|>", "<|im_start|>", chat_phi3},
    {"zephyr", "<|user|>", "eos_token", "<|end|>", chat_zephyr},
    {"phi", "<|end|>", "<|assistant|>", "<|im_start|>", chat_phi3},
    {"plain", "\1", "\1", "\1", chat_plain}, /* no template holds that: it is chosen by name alone */
};
enum { CHAT_FAMILIES = sizeof chat_families / sizeof *chat_families };

static int chat_guess(const tokenizer *t) {
    const char *s = t->chat_template;
    for (int i = 0; s && i < CHAT_FAMILIES; i++)
        if (strstr(s, chat_families[i].has) && strstr(s, chat_families[i].and_has) &&
            !strstr(s, chat_families[i].but_not))
            return i;
    return -1;
}

const char *tokenizer_chat_family(const tokenizer *t) {
    int i = chat_guess(t);
    return i < 0 ? NULL : chat_families[i].name;
}

static tl_status chat_choose(const tokenizer *t, const char *family, int *out, tl_error *e) {
    *out = family ? -1 : chat_guess(t);
    for (int i = 0; family && i < CHAT_FAMILIES; i++)
        if (!strcmp(family, chat_families[i].name)) *out = i;
    if (*out >= 0) return TL_OK;
    static const char names[] = "choose by name: chatml, llama2, llama3, mistral, mistral-v1, gemma, phi3, zephyr";
    if (family) return error_set(e, TL_ARG, "chat format \"%.40s\" is not known; %s", family, names);
    if (!t->chat_template) return error_set(e, TL_NOTFOUND, "the tokenizer has no chat template; %s", names);
    return error_set(e, TL_UNSUPPORTED, "the tokenizer's chat template is of no known family; %s", names);
}

static tl_status chat_write(chat_writer *w, const char *family, const chat_message *m, size_t n, bool open_turn) {
    int which;
    TRY(chat_choose(w->t, family, &which, w->e));
    size_t ids = w->out ? w->out->n : 0, chars = w->text ? w->text->len : 0;
    str_init(&w->plain, w->t->alloc);
    if (w->out) TRY(encoder_take(w->t, &w->x, w->e));
    chat_families[which].write(w, m, n, open_turn);
    chat_flush(w);
    if (w->status == TL_OK && w->text && w->text->failed)
        w->status = error_set(w->e, TL_NOMEM, "no memory for the conversation");
    encoder_give(w->x);
    str_fini(&w->plain);
    if (w->status != TL_OK) {
        if (w->out) w->out->n = ids;
        if (w->text && w->text->data) w->text->data[w->text->len = chars] = 0;
    }
    return w->status;
}

tl_status tokenizer_chat(const tokenizer *t, const char *family, const chat_message *m, size_t n, bool open_turn,
                         token_list *out, str *text, tl_error *e) {
    chat_writer w = {.t = t, .out = out, .text = text, .e = e, .status = TL_OK};
    return chat_write(&w, family, m, n, open_turn);
}

tl_status tokenizer_chat_marked(const tokenizer *t, const char *family, const chat_message *m, size_t n,
                                token_list *out, str *mark, tl_error *e) {
    chat_writer w = {.t = t, .out = out, .e = e, .status = TL_OK};
    size_t had = out->n, r = 0;
    w.range = mem_new(t->alloc, w.cap = 16, sizeof *w.range);
    if (!w.range) return error_set(e, TL_NOMEM, "no memory for the conversation");
    tl_status s = chat_write(&w, family, m, n, false);
    for (size_t i = had; s == TL_OK && i < out->n; i++) { /* ids and answers both in order */
        while (r + 1 < w.ranges && out->span[i].begin >= w.range[r + 1]) r += 2;
        char is = r + 1 < w.ranges && out->span[i].end > w.range[r] && out->span[i].begin < w.range[r + 1];
        str_add(mark, &is, 1);
    }
    mem_free(t->alloc, w.range);
    if (s == TL_OK && mark->failed) s = error_set(e, TL_NOMEM, "no memory for the conversation");
    return s;
}
