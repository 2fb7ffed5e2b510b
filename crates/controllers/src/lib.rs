//! Every controller: one file each, listed once. Pure.
