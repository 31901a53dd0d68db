//! Finding the ESP: GPT, partition choice, block devices and their partition nodes.
