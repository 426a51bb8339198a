#include "tokenizer/alphabet.h"
#include "tokenizer/unicode.h"

/* Bytes that print in Latin-1 stand for themselves; the 68 others follow from U+0100 on, in order. */
static bool alphabet_prints(unsigned b) {
    return (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || (b >= 0xae && b <= 0xff);
}

uint32_t alphabet_of(uint8_t byte) {
    if (alphabet_prints(byte)) return byte;
    if (byte <= 0x20) return 0x100u + byte;
    return byte == 0xad ? 0x143 : 0x121u + (byte - 0x7fu);
}

int alphabet_byte(uint32_t cp) {
    if (cp < 0x100) return alphabet_prints(cp) ? (int)cp : -1;
    if (cp <= 0x120) return (int)(cp - 0x100);
    if (cp <= 0x142) return (int)(cp - 0x121 + 0x7f);
    return cp == 0x143 ? 0xad : -1;
}

size_t alphabet_decode(const char *text, size_t n, char *out) {
    const uint8_t *p = (const uint8_t *)text;
    size_t k = 0;
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        bool bad;
        i += unicode_decode(p + i, p + n, &cp, &bad);
        int b = bad ? -1 : alphabet_byte(cp);
        if (b < 0) return SIZE_MAX;
        out[k++] = (char)b;
    }
    return k;
}

void alphabet_encode(const char *bytes, size_t n, str *out) {
    for (size_t i = 0; i < n; i++) {
        char c[4];
        str_add(out, c, unicode_encode(alphabet_of((uint8_t)bytes[i]), c));
    }
}
