//! EFI variables, read from an efivarfs directory and never written.
