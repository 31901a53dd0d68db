//! FAT12, FAT16 and FAT32: reading, health, and the ordered writes that surgery is made of.
