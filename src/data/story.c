#include "data/story.h"
#include "base/rng.h"
#include "data/story_grammar.h"
#include <math.h>
#include <string.h>

enum { DEPTH = 12, VARS = 26, NO_WORD = -1 };
enum { STORY_RNG = 0x53544f52 }; /* operator number of the random key */

/* A point in a derivation: the open alternatives, what is remembered, and the cost so far. */
typedef struct story_point {
    const char *at[DEPTH];
    int depth;
    struct {
        int16_t rule, word;
    } var[VARS];
    double nats;
    size_t offset; /* bytes written or matched */
} story_point;

/* One walk through the grammar: with dice (out set) or along a text, where every alternative is tried. */
typedef struct story_walk {
    const story_grammar *g;
    str *out;
    rng_key key;
    uint64_t index, draws;
    const char *text;
    size_t n;
    size_t best;       /* longest prefix that could be matched */
    size_t count;      /* derivations found */
    double nats;       /* of the last one */
    double mass;       /* probability of the derivations that reach the text's end */
    bool stop_at_end;  /* only the prefix is asked for */
    bool prefix_found; /* the text ended inside a derivation */
} story_walk;

typedef struct story_slot {
    char var, other; /* 0 if absent */
    bool silent, article, capital;
    bool shared; /* {X:k} */
    int form;
    const char *name; /* rule, NULL for {X} */
    size_t name_len;
    const char *end; /* behind '}' */
} story_slot;

static const story_grammar *story_of(story_lang lang) {
    return lang == STORY_ZH ? &story_grammar_zh : &story_grammar_en;
}

static int16_t story_find(const story_grammar *g, const char *name, size_t len) {
    for (size_t i = 0; i < g->n; i++)
        if (!strncmp(g->rule[i].name, name, len) && !g->rule[i].name[len]) return (int16_t)i;
    return 0; /* unknown names are a mistake in the tables; tests/data/t_story.c looks for them */
}

static bool story_is_var(char c) {
    return c >= 'A' && c <= 'Z';
}

/* Reads the slot whose '{' is at p[0]. */
static story_slot story_read_slot(const char *p) {
    story_slot s = {0};
    for (p++; *p == '-' || *p == '~' || *p == '^'; p++) {
        if (*p == '-') s.silent = true;
        if (*p == '~') s.article = true;
        if (*p == '^') s.capital = true;
    }
    if (story_is_var(*p)) {
        s.var = *p++;
        if (*p == '=') p++;
    }
    const char *name = p;
    while ((*p >= 'a' && *p <= 'z') || *p == '_') p++;
    s.name_len = (size_t)(p - name);
    s.name = s.name_len ? name : NULL;
    if (*p == '!') s.other = p[1], p += 2;
    if (*p == '.' || *p == ':') s.shared = *p == ':', s.form = p[1] - '0', p += 2;
    s.end = p + 1;
    return s;
}

/* The k-th of several forms separated by '|', and its length. */
static const char *story_form(const char *forms, int k, size_t *len) {
    while (k-- > 0 && strchr(forms, '|')) forms = strchr(forms, '|') + 1;
    *len = strcspn(forms, "|");
    return forms;
}

/* Writes n bytes, or compares them with the text. False: this derivation is dead. */
static bool story_emit(story_walk *w, story_point *s, const char *p, size_t n) {
    if (w->out) {
        str_add(w->out, p, n);
        s->offset += n;
        return true;
    }
    for (size_t i = 0; i < n; i++, s->offset++) {
        if (s->offset == w->n) {
            w->prefix_found = true;
            w->mass += exp(-s->nats);
        }
        if (s->offset == w->n || w->text[s->offset] != p[i]) {
            if (s->offset > w->best) w->best = s->offset;
            return false;
        }
    }
    return true;
}

/* Writes a plain word with the slot's article and capital. */
static bool story_word(story_walk *w, story_point *s, const story_slot *t, const char *p, size_t n) {
    if (t->article) {
        bool vowel = n && strchr("aeiouAEIOU", p[0]);
        char a[] = {t->capital ? 'A' : 'a', 'n', ' '};
        if (!story_emit(w, s, a, vowel ? 2 : 1) || !story_emit(w, s, " ", 1)) return false;
    } else if (t->capital && n && p[0] >= 'a' && p[0] <= 'z') {
        char c = (char)(p[0] - 'a' + 'A');
        return story_emit(w, s, &c, 1) && story_emit(w, s, p + 1, n - 1);
    }
    return story_emit(w, s, p, n);
}

/* Takes alternative `word` of a rule at price p. */
static bool story_take(story_walk *w, story_point *s, const story_slot *t, int16_t rule, int16_t word, double nats) {
    const char *alt = w->g->rule[rule].alt[word];
    s->nats += nats;
    if (t->var) {
        s->var[t->var - 'A'].rule = rule;
        s->var[t->var - 'A'].word = word;
    }
    if (t->silent) return true;
    size_t n;
    const char *form = story_form(alt, t->form, &n);
    if (!memchr(form, '{', n)) return story_word(w, s, t, form, n);
    if (s->depth == DEPTH) return false;
    s->at[s->depth++] = form;
    return true;
}

/* A uniform draw below n, without bias: what falls into the incomplete last round is drawn again. */
static size_t story_draw(story_walk *w, size_t n) {
    uint32_t limit = UINT32_MAX - UINT32_MAX % (uint32_t)n, u;
    do u = rng_u32(w->key, w->index, w->draws++);
    while (u >= limit);
    return u % n;
}

/* Follows the grammar from s to the end. Along a text it tries every alternative at every choice; almost all of them
 * die at their first byte. */
static void story_follow(story_walk *w, story_point *s) {
    while (s->depth > 0) {
        const char **at = &s->at[s->depth - 1];
        size_t plain = strcspn(*at, "{|");
        if (plain) {
            const char *p = *at;
            *at += plain;
            if (!story_emit(w, s, p, plain)) return;
            continue;
        }
        if (**at != '{') { /* end of an alternative */
            s->depth--;
            continue;
        }
        story_slot t = story_read_slot(*at);
        *at = t.end;
        if (!t.name) { /* a word that is remembered */
            int16_t rule = s->var[t.var - 'A'].rule, word = s->var[t.var - 'A'].word;
            size_t n;
            const char *forms = t.shared ? w->g->rule[rule].forms : w->g->rule[rule].alt[word];
            const char *p = story_form(forms, t.form, &n);
            if (!story_word(w, s, &t, p, n)) return;
            continue;
        }
        int16_t rule = story_find(w->g, t.name, t.name_len);
        int16_t not = t.other && s->var[t.other - 'A'].rule == rule ? s->var[t.other - 'A'].word : NO_WORD;
        size_t all = w->g->rule[rule].n, n = all - (not != NO_WORD);
        double nats = log((double)n);
        if (w->out) {
            int16_t word = (int16_t)story_draw(w, n);
            if (not != NO_WORD && word >= not ) word++;
            if (!story_take(w, s, &t, rule, word, nats)) return;
            continue;
        }
        for (int16_t i = 0; (size_t)i < all; i++) {
            if (i == not ) continue;
            story_point next = *s;
            if (story_take(w, &next, &t, rule, i, nats)) story_follow(w, &next);
            if (w->stop_at_end && w->prefix_found) return;
        }
        return;
    }
    if (!w->out && s->offset < w->n) { /* the story is over, the text is not */
        if (s->offset > w->best) w->best = s->offset;
        return;
    }
    w->count++;
    w->prefix_found = true;
    w->nats = s->nats;
}

static void story_walk_from_start(story_walk *w) {
    static const char start[] = "{story}";
    story_point s = {.at = {start}, .depth = 1};
    story_follow(w, &s);
}

bool story_lang_parse(const char *name, story_lang *out) {
    if (strcmp(name, "en") && strcmp(name, "zh")) return false;
    *out = strcmp(name, "zh") ? STORY_EN : STORY_ZH;
    return true;
}

tl_status story_generate(story_lang lang, uint64_t seed, uint64_t index, str *out, double *nats) {
    story_walk w = {.g = story_of(lang), .out = out, .index = index};
    w.key = rng_key_make(seed, (uint64_t)lang, STORY_RNG);
    story_walk_from_start(&w);
    if (nats) *nats = w.nats;
    return out->failed ? TL_NOMEM : TL_OK;
}

bool story_score(story_lang lang, const char *text, size_t n, double *nats, size_t *where) {
    story_walk w = {.g = story_of(lang), .text = text, .n = n};
    story_walk_from_start(&w);
    if (w.count && nats) *nats = w.nats;
    if (!w.count && where) *where = w.best;
    return w.count > 0;
}

bool story_prefix_ok(story_lang lang, const char *text, size_t n) {
    story_walk w = {.g = story_of(lang), .text = text, .n = n, .stop_at_end = true};
    story_walk_from_start(&w);
    return w.prefix_found;
}

double story_prefix_nats(story_lang lang, const char *text, size_t n) {
    story_walk w = {.g = story_of(lang), .text = text, .n = n};
    story_walk_from_start(&w);
    return w.count ? -log(w.mass + exp(-w.nats)) : w.mass > 0 ? -log(w.mass) : (double)INFINITY;
}

size_t story_derivations(story_lang lang, const char *text, size_t n) {
    story_walk w = {.g = story_of(lang), .text = text, .n = n};
    story_walk_from_start(&w);
    return w.count;
}

static bool story_is_word(const char *alt) {
    return *alt && !strchr(alt, '{') && !strchr(alt, ' ');
}

/* True if an earlier alternative of the grammar is the same word. */
static bool story_seen(const story_grammar *g, size_t rule, size_t word) {
    size_t n, m;
    const char *p = story_form(g->rule[rule].alt[word], 0, &n);
    for (size_t i = 0; i <= rule; i++)
        for (size_t k = 0; k < (i == rule ? word : g->rule[i].n); k++) {
            const char *q = story_form(g->rule[i].alt[k], 0, &m);
            if (n == m && !memcmp(p, q, n)) return true;
        }
    return false;
}

size_t story_word_count(story_lang lang) {
    const story_grammar *g = story_of(lang);
    size_t count = 0;
    for (size_t i = 0; i < g->n; i++)
        for (size_t k = 0; k < g->rule[i].n; k++)
            if (story_is_word(g->rule[i].alt[k]) && !story_seen(g, i, k)) count++;
    return count;
}

/* Longest expansion of a rule, or of a remembered word: no longer than the longest word of any class. */
static size_t story_longest(const story_grammar *g, size_t rule, size_t longest_word) {
    size_t best = 0;
    for (size_t k = 0; k < g->rule[rule].n; k++) {
        size_t sum = 0;
        for (const char *p = g->rule[rule].alt[k]; *p && *p != '|';) {
            if (*p != '{') {
                sum++, p++;
                continue;
            }
            story_slot t = story_read_slot(p);
            p = t.end;
            if (t.article) sum += 3;
            if (!t.silent)
                sum +=
                    t.name ? story_longest(g, (size_t)story_find(g, t.name, t.name_len), longest_word) : longest_word;
        }
        if (sum > best) best = sum;
    }
    return best;
}

size_t story_max_bytes(story_lang lang) {
    const story_grammar *g = story_of(lang);
    size_t longest = 0;
    for (size_t i = 0; i < g->n; i++)
        for (size_t k = 0; k < g->rule[i].n; k++)
            if (!strchr(g->rule[i].alt[k], '{') && strlen(g->rule[i].alt[k]) > longest)
                longest = strlen(g->rule[i].alt[k]);
    return story_longest(g, 0, longest);
}
