/* What a failed assertion of systemd's calls, by the names of several versions. */
#include <stdio.h>
#include <stdlib.h>

void efi_assert(const char *text, const char *file, unsigned line, const char *function) {
        fprintf(stderr, "%s:%u: %s: %s\n", file, line, function, text);
        abort();
}

void log_assert_failed(const char *text, const char *file, int line, const char *function) {
        efi_assert(text, file, line, function);
}

void log_assert_failed_unreachable(const char *file, int line, const char *function) {
        efi_assert("not reached", file, line, function);
}
