//! Every built-in kind: one file each, listed once.
