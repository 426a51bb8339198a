/* GPT-2's alphabet: a printable character for each byte, in which byte-level vocabularies are written in files. */
#ifndef TOKENIZER_ALPHABET_H
#define TOKENIZER_ALPHABET_H

#include "base/str.h"

uint32_t alphabet_of(uint8_t byte); /* the code point that stands for byte */
int alphabet_byte(uint32_t cp);     /* -1: no byte */
/* text, written in the alphabet, as bytes into out (room for n); returns their number, SIZE_MAX if a character is
 * not of the alphabet. */
size_t alphabet_decode(const char *text, size_t n, char *out);
void alphabet_encode(const char *bytes, size_t n, str *out);

#endif
