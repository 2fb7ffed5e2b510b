//! What exit codes mean; `ekso --help` says the same.

pub const FAILED: u8 = 1;
pub const NO_CLUSTER: u8 = 3;
pub const MACHINE_LACKS: u8 = 4;
