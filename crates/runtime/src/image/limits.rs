//! How much an image may ask of the machine that unpacks it.

/// What to do with character and block devices in a layer.
/// A runtime mounts its own `/dev` over the image's, so leaving them out is seldom seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Devices {
    /// Leave them out.
    #[default]
    Skip,
    /// Fail, naming the entry.
    Refuse,
    /// Make them, except 0/0, which overlayfs would read as a deletion.
    Allow,
}

/// Bounds on one layer, and on one archive of images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Decompressed, headers included.
    pub total_bytes: u64,
    pub file_bytes: u64,
    pub entries: u64,
    /// Decompressed to compressed; looked at once `ratio_floor_bytes` came out, since small runs of zeros compress well.
    pub ratio: u64,
    pub ratio_floor_bytes: u64,
    pub path_bytes: usize,
    /// Directories above an entry.
    pub depth: usize,
    /// Names and values of one entry's extended attributes together.
    pub xattr_bytes: usize,
    /// One extended (PAX or GNU) header, which must be held in memory.
    pub header_bytes: usize,
    pub devices: Devices,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            total_bytes: 64 << 30,
            file_bytes: 32 << 30,
            entries: 1_000_000,
            ratio: 250,
            ratio_floor_bytes: 1 << 30,
            path_bytes: 4095,
            depth: 256,
            xattr_bytes: 128 << 10,
            header_bytes: 1 << 20,
            devices: Devices::Skip,
        }
    }
}

/// A bound that was passed; also travels inside an `io::Error`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} is over the limit of {limit}")]
pub struct OverLimit {
    pub what: &'static str,
    pub limit: u64,
}
