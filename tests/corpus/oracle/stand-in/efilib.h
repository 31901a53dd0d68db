/* See efi.h. */
#include "efi.h"
