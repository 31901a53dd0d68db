//! The verification policy: every check with its verdict.
