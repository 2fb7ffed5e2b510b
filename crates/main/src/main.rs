//! The binary `ekso`: parse arguments, call `app`.
fn main() {}
