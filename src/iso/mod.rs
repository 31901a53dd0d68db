//! ISO 9660 with Rock Ridge and El Torito: the UKI in a Talos Secure Boot ISO.
