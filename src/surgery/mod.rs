//! Plans and their execution: swap, prune, restore, recover.
