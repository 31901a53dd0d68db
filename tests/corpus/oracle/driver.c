/* Asks systemd-boot's own functions: built by fetch-sources.sh together with efi-string.c and string-util-fundamental.c
 * of one version of systemd, used by src/boot/tests/oracle.rs.
 *
 * Standard input: questions, each a letter and two byte strings, each behind its length (32 bits, little endian).
 * Standard output: for each question one byte string, written in the same way.
 *
 *   V a b  strverscmp_improved of two texts in UTF-8: "<", "=" or ">"
 *   G a b  efi_fnmatch of the pattern a and the text b: "0" or "1"
 *   D a -  xstrn8_to_16: UTF-16LE
 *   A a -  line_get_key_value with the separator "=": each key and value with a NUL behind it
 *   W a -  the same with blanks as separators
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "efi-string.h"

int strverscmp_improved(const char16_t *a, const char16_t *b);

#ifdef LINES
/* Up to 254 it is a static function of boot.c. */
typedef size_t UINTN;
#  include "lines.c"
#endif

static char *question(size_t *length) {
        unsigned char bytes[4];
        if (fread(bytes, 1, 4, stdin) != 4)
                exit(1);
        *length = bytes[0] | bytes[1] << 8 | bytes[2] << 16 | (size_t) bytes[3] << 24;
        char *text = malloc(*length + 1);
        if (!text || fread(text, 1, *length, stdin) != *length)
                exit(1);
        text[*length] = 0;
        return text;
}

/* xstrn8_to_16, which has NULL for an empty text; their callers look at that first. */
static char16_t *wide(const char *text, size_t length) {
        char16_t *all = xstrn8_to_16(text, length);
        return all ? all : calloc(1, sizeof(char16_t));
}

static void answer(const void *bytes, size_t length) {
        unsigned char head[4] = { length, length >> 8, length >> 16, length >> 24 };
        fwrite(head, 1, 4, stdout);
        fwrite(bytes, 1, length, stdout);
}

static void answer_lines(char *text, const char *separators) {
        size_t position = 0, length = 0, room = 3 * strlen(text) + 16;
        char *key, *value, *all = malloc(room);
        while (line_get_key_value(text, separators, &position, &key, &value)) {
                memcpy(all + length, key, strlen(key) + 1);
                length += strlen(key) + 1;
                memcpy(all + length, value, strlen(value) + 1);
                length += strlen(value) + 1;
        }
        answer(all, length);
        free(all);
}

int main(void) {
        for (int what; (what = getchar()) != EOF;) {
                size_t a_length, b_length;
                char *a = question(&a_length), *b = question(&b_length);
                char16_t *wide_a = wide(a, a_length), *wide_b = wide(b, b_length);
                switch (what) {
                case 'V': {
                        int order = strverscmp_improved(wide_a, wide_b);
                        answer(order < 0 ? "<" : order > 0 ? ">" : "=", 1);
                        break;
                }
                case 'G':
                        answer(efi_fnmatch(wide_a, wide_b) ? "1" : "0", 1);
                        break;
                case 'D':
                        answer(wide_a, 2 * strlen16(wide_a));
                        break;
                case 'A':
                        answer_lines(a, "=");
                        break;
                case 'W':
                        answer_lines(a, " \t");
                        break;
                default:
                        return 1;
                }
                free(a), free(b), free(wide_a), free(wide_b);
        }
        return 0;
}
