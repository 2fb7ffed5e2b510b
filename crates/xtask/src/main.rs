//! Automation: tidy checks, benches, CI.
fn main() {}
