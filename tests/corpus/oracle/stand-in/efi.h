/* What gnu-efi's headers bring, for the version of systemd that has no efi.h of its own. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uchar.h>
