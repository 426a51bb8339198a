/* The notation of the story grammars, for story*.c only.
 *
 * A rule has alternatives, all equally likely. An alternative is text with slots; it ends at its end or at '|', behind
 * which a word keeps its other forms ("rabbit|rabbits"). The first rule of a grammar is the whole story. Slots:
 *
 *     {rule}      one alternative of a rule                 {rule.1}    its second form
 *     {X=rule}    the same, remembered as X                 {X}, {X.1}  that word again, or its second form
 *     {X=rule!Y}  the same, but not the word of Y           {X:0}       a form shared by X's whole class (a pronoun)
 *     {-X=rule}   remembered, not written                   {~...}      with "a" or "an" before it
 *     {^...}      with a capital
 *
 * What is remembered holds to the end of the story: this is what makes text agree over long distances. */
#ifndef DATA_STORY_GRAMMAR_H
#define DATA_STORY_GRAMMAR_H

#include <stddef.h>

typedef struct story_rule {
    const char *name;
    const char *forms; /* forms that all words of the class share, separated by '|'; "" if none */
    const char *const *alt;
    size_t n;
} story_rule;

typedef struct story_grammar {
    const story_rule *rule;
    size_t n;
} story_grammar;

#define STORY_RULE(name, forms, ...)                                                                                   \
    { #name, forms, (const char *const[]){__VA_ARGS__ }, sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *) }

extern const story_grammar story_grammar_en, story_grammar_zh;

#endif
