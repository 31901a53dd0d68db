//! The boot oracle: what systemd-boot will show and start, from the files of the ESP and the EFI variables.
