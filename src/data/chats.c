#include "data/chats.h"

#include "base/json.h"

#include <string.h>

enum { LINE_MAX_BYTES = 1 << 28, TURNS = 4096 };

typedef struct chats {
    const tl_allocator *alloc;
    const tokenizer *t;
    const char *family;
    token_list ids;
    str learned;  /* a byte for each id */
    str contents; /* texts of messages that came in parts */
    chat_message *said;
    size_t n, cap, completion; /* said[completion..]: what is learned of a prompt with its completion */
} chats;

/* ---- messages --------------------------------------------------------------------------------------------------- */

static tl_status add_message(chats *c, const char *role, const char *text, tl_error *e) {
    if (c->n == TURNS) return error_set(e, TL_LIMIT, "a conversation of more than %d turns", TURNS);
    if (!mem_reserve(c->alloc, &c->said, &c->cap, c->n + 1))
        return error_set(e, TL_NOMEM, "no memory for a conversation");
    c->said[c->n++] = (chat_message){role, text};
    return TL_OK;
}

static bool has_zero(const json_t *text) {
    return strlen(json_string_value(text)) != json_string_length(text);
}

/* A content that is a list of parts, put together. Where it lies in contents is known when all of them are there. */
static tl_status parts_text(chats *c, const json_t *parts, size_t k, tl_error *e) {
    size_t i;
    json_t *v;
    json_array_foreach(parts, i, v) {
        const json_t *text = json_object_get(v, "text");
        const json_t *type = json_object_get(v, "type");
        bool plain = !type || (json_is_string(type) && strcmp(json_string_value(type), "text") == 0);
        if (!plain || !json_is_string(text) || has_zero(text))
            return error_set(e, TL_FORMAT, "part %zu of message %zu is no text", i, k);
        str_adds(&c->contents, json_string_value(text));
    }
    str_add(&c->contents, "", 1);
    return c->contents.failed ? error_set(e, TL_NOMEM, "no memory for a conversation") : TL_OK;
}

static tl_status read_messages(chats *c, const json_t *list, tl_error *e) {
    size_t k;
    json_t *m;
    if (!json_is_array(list) || !json_array_size(list))
        return error_set(e, TL_FORMAT, "\"messages\" is no list of messages");
    json_array_foreach(list, k, m) {
        const json_t *role = json_object_get(m, "role"), *content = json_object_get(m, "content");
        if (!json_is_string(role)) return error_set(e, TL_FORMAT, "message %zu has no \"role\"", k);
        if (json_is_string(content) && !has_zero(content)) {
            TRY(add_message(c, json_string_value(role), json_string_value(content), e));
        } else if (json_is_array(content)) {
            TRY(parts_text(c, content, k, e));
            TRY(add_message(c, json_string_value(role), NULL, e)); /* its text is set when contents no longer moves */
        } else {
            return error_set(e, TL_FORMAT, "message %zu has no \"content\" that is a text", k);
        }
    }
    return TL_OK;
}

static void place_contents(chats *c, size_t from) {
    const char *at = c->contents.data;
    for (size_t i = from; i < c->n; i++)
        if (!c->said[i].text) {
            c->said[i].text = at;
            at += strlen(at) + 1;
        }
}

/* ---- examples --------------------------------------------------------------------------------------------------- */

static tl_status add_end(chats *c, tl_error *e) {
    int32_t eod = tokenizer_role_id(c->t, TOKENIZER_EOD);
    if (eod < 0 || (c->ids.n && c->ids.id[c->ids.n - 1] == eod)) return TL_OK;
    if (!token_list_reserve(&c->ids, 1)) return error_set(e, TL_NOMEM, "no memory for a conversation");
    c->ids.span[c->ids.n] = (token_span){0, 0};
    c->ids.id[c->ids.n++] = eod;
    str_add(&c->learned, "\1", 1);
    return TL_OK;
}

static tl_status conversation(chats *c, tl_error *e) {
    bool answered = false;
    for (size_t i = c->completion; i < c->n; i++) answered |= strcmp(c->said[i].role, "assistant") == 0;
    if (!answered) return error_set(e, TL_FORMAT, "there is no message of role \"assistant\" to learn");
    TRY(tokenizer_chat_marked(c->t, c->family, c->said, c->n, &c->ids, &c->learned, e));
    if (c->completion) { /* turns of the prompt are read: what the prompt alone would give */
        size_t n = c->learned.len, i = 0;
        token_list prompt;
        token_list_init(&prompt, c->alloc);
        tl_status s = tokenizer_chat(c->t, c->family, c->said, c->completion, false, &prompt, NULL, e);
        for (; s == TL_OK && i < n && i < prompt.n; i++) c->learned.data[i] = 0;
        token_list_fini(&prompt);
        TRY(s);
    }
    return strcmp(c->family, "plain") == 0 && strcmp(c->said[c->n - 1].role, "assistant") == 0 ? add_end(c, e) : TL_OK;
}

/* Two texts one behind the other, encoded each by itself, so that the prompt's ids are those of a prompt. */
static tl_status completion(chats *c, const json_t *prompt, const json_t *answer, tl_error *e) {
    TRY(tokenizer_encode(c->t, json_string_value(prompt), json_string_length(prompt), TOKENIZER_ADD, &c->ids, e));
    int32_t eos = tokenizer_role_id(c->t, TOKENIZER_EOS);
    while (c->ids.n && c->ids.id[c->ids.n - 1] == eos) c->ids.n--; /* the text is not over */
    for (size_t i = 0; i < c->ids.n; i++) str_add(&c->learned, "", 1);
    TRY(tokenizer_encode(c->t, json_string_value(answer), json_string_length(answer), 0, &c->ids, e));
    while (c->learned.len < c->ids.n && !c->learned.failed) str_add(&c->learned, "\1", 1);
    return add_end(c, e);
}

static tl_status example(chats *c, const json_t *o, tl_error *e) {
    const json_t *messages = json_object_get(o, "messages"), *prompt = json_object_get(o, "prompt"),
                 *answer = json_object_get(o, "completion");
    const json_t *source = json_object_get(o, "source"), *target = json_object_get(o, "target");
    c->n = c->completion = c->ids.n = 0;
    str_clear(&c->learned);
    str_clear(&c->contents);
    if (!messages && !prompt != !answer)
        return error_set(e, TL_FORMAT, "there is no \"%s\" beside the \"%s\"", prompt ? "completion" : "prompt",
                         prompt ? "prompt" : "completion");
    if (!messages && !prompt && !source != !target)
        return error_set(e, TL_FORMAT, "there is no \"%s\" beside the \"%s\"", source ? "target" : "source",
                         source ? "source" : "target");
    if (!prompt && !answer && !messages && (source || target)) {
        if (!json_is_string(source) || !json_is_string(target))
            return error_set(e, TL_FORMAT, "\"%s\" is no text", json_is_string(source) ? "target" : "source");
        if (!json_string_length(target)) return error_set(e, TL_FORMAT, "the target is empty");
        prompt = source, answer = target;
    }
    if (json_is_string(prompt) && json_is_string(answer)) {
        if (!json_string_length(answer)) return error_set(e, TL_FORMAT, "the completion is empty");
        TRY(completion(c, prompt, answer, e));
    } else if (json_is_array(prompt) && json_is_array(answer)) {
        TRY(read_messages(c, prompt, e));
        c->completion = c->n;
        TRY(read_messages(c, answer, e));
        place_contents(c, 0);
        TRY(conversation(c, e));
    } else if (messages) {
        TRY(read_messages(c, messages, e));
        place_contents(c, 0);
        TRY(conversation(c, e));
    } else {
        return error_set(
            e, TL_FORMAT,
            "neither \"messages\" nor \"prompt\" and \"completion\" (texts or lists of messages) nor \"source\" and "
            "\"target\"");
    }
    if (c->learned.failed) return error_set(e, TL_NOMEM, "no memory for a conversation");
    return c->ids.n < 2 ? error_set(e, TL_FORMAT, "there is nothing before the answer") : TL_OK;
}

static tl_status write_line(chats *c, const char *line, size_t n, shard_writer *w, chats_report *r, tl_error *e) {
    json_t *o;
    TRY(json_parse(line, n, NULL, &o, e));
    tl_status s = example(c, o, e);
    json_decref(o);
    if (s == TL_OK) s = shard_writer_example(w, c->ids.id, c->learned.data, c->ids.n, e);
    if (s != TL_OK) return s;
    r->examples++;
    r->ids += (int64_t)c->ids.n;
    for (size_t i = 0; i < c->ids.n; i++) r->learned += c->learned.data[i];
    return TL_OK;
}

static tl_status write_all(chats *c, corpus *from, shard_writer *w, bool (*progress)(void *, int64_t, int64_t),
                           void *user, chats_report *r, tl_error *e) {
    str line;
    bool more = true;
    tl_status s = TL_OK;
    str_init(&line, c->alloc);
    while (s == TL_OK) {
        corpus_part at;
        str_clear(&line);
        s = corpus_document(from, LINE_MAX_BYTES, &line, &at, &more, e);
        if (s != TL_OK || !more) break;
        s = write_line(c, line.data, line.len, w, r, e);
        if (s != TL_OK) {
            error_at_file(e, strcmp(at.file, "-") ? at.file : "standard input");
            error_at_line(e, at.line);
        } else if (progress && !progress(user, corpus_documents(from), corpus_bytes(from))) {
            s = error_set(e, TL_CANCELLED, "reading the examples was cancelled");
        }
    }
    str_fini(&line);
    return s;
}

tl_status chats_write(const tl_allocator *a, const char *const *file, size_t n, const tokenizer *t, const char *family,
                      shard_writer *w, bool (*progress)(void *user, int64_t documents, int64_t bytes), void *user,
                      chats_report *out, tl_error *e) {
    corpus *from;
    corpus_options o = {.format = CORPUS_JSONL, .objects = true};
    chats c = {.alloc = a, .t = t, .family = family ? family : tokenizer_chat_family(t)};
    if (!c.family) c.family = "plain";
    *out = (chats_report){0};
    TRY(corpus_open(a, file, n, &o, &from, e));
    token_list_init(&c.ids, a);
    c.ids.want_spans = true;
    str_init(&c.learned, a);
    str_init(&c.contents, a);
    tl_status s = write_all(&c, from, w, progress, user, out, e);
    corpus_close(from);
    token_list_fini(&c.ids);
    str_fini(&c.learned);
    str_fini(&c.contents);
    mem_free(a, c.said);
    return s;
}

/* A half of a pair is a mistake that the reader names, unless it stands beside a text. */
static bool object_is_example(const json_t *o) {
    const bool prompt = json_object_get(o, "prompt"), answer = json_object_get(o, "completion");
    const bool source = json_object_get(o, "source"), target = json_object_get(o, "target");
    if (json_object_get(o, "messages") || (prompt && answer) || (source && target)) return true;
    return !json_object_get(o, "text") && (prompt || answer || source || target);
}

bool chats_are(const tl_allocator *a, const char *const *file, size_t n) {
    corpus *from;
    str line;
    json_t *o = NULL;
    bool more = false, yes = false;
    corpus_options co = {.objects = true};
    if (n < 1 || strcmp(file[0], "-") == 0 || corpus_open(a, file, n, &co, &from, NULL) != TL_OK) return false;
    const char *name = corpus_files(from) ? corpus_file(from, 0) : "";
    bool lines = strstr(name, ".jsonl") || strstr(name, ".ndjson");
    str_init(&line, a);
    if (lines && corpus_document(from, LINE_MAX_BYTES, &line, NULL, &more, NULL) == TL_OK && more &&
        json_parse(line.data, line.len, NULL, &o, NULL) == TL_OK)
        yes = object_is_example(o);
    json_decref(o);
    str_fini(&line);
    corpus_close(from);
    return yes;
}
