//! What an IMAGE is, found out by content, and the UKIs in it.
