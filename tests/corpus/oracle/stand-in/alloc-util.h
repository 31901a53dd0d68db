/* What systemd's efi-string.c uses of src/basic when it is built for user space. */
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define new(type, count) ((type *) malloc(sizeof(type) * (count)))
#define ASSERT_SE_PTR(pointer) (pointer)
#define assert_cc(condition) _Static_assert(condition, #condition)
#define assert_se(condition) do { if (!(condition)) abort(); } while (0)
#define assert_not_reached() abort()

/* Memory that is not given back: the program ends soon. */
#ifndef _cleanup_free_
#  define _cleanup_free_
#endif
