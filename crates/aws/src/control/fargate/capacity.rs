//! How big the machine of a pod is: the smallest of Fargate's sizes that its containers fit into.
//! <https://docs.aws.amazon.com/eks/latest/userguide/fargate-pod-configuration.html>

/// What is kept for the parts of Kubernetes on the machine.
const OWN_MEMORY_MIB: u64 = 256;

/// One of the sizes that Fargate sells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    pub cpu_milli: u32,
    pub memory_mib: u32,
}

/// Thousandths of a vCPU, and the memory that there may be with it: from, to and in steps of so many MiB.
const SIZES: &[(u32, u64, u64, u64)] = &[
    // Not 1.5 GiB: that size does not exist.
    (250, 512, 1_024, 512),
    (250, 2_048, 2_048, 1_024),
    (500, 1_024, 4_096, 1_024),
    (1_000, 2_048, 8_192, 1_024),
    (2_000, 4_096, 16_384, 1_024),
    (4_000, 8_192, 30_720, 1_024),
    (8_000, 16_384, 61_440, 4_096),
    (16_000, 32_768, 122_880, 8_192),
];

/// What a pod asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    pub cpu_milli: u64,
    pub memory_bytes: u64,
}

impl Capacity {
    /// For containers that ask for so much together; none if no size is big enough.
    pub fn of(wanted: Wanted) -> Option<Self> {
        // Whoever asks for no memory gets the smallest size as it is.
        let own = if wanted.memory_bytes == 0 { 0 } else { OWN_MEMORY_MIB };
        let memory = wanted.memory_bytes.div_ceil(1 << 20).saturating_add(own);
        SIZES.iter().find_map(|&(cpu_milli, least, most, step)| {
            let memory = least + memory.saturating_sub(least).div_ceil(step) * step;
            let fits = wanted.cpu_milli <= u64::from(cpu_milli) && memory <= most;
            fits.then(|| Self { cpu_milli, memory_mib: u32::try_from(memory).unwrap_or(u32::MAX) })
        })
    }
}

/// `0.25vCPU 0.5GB`, as the annotation `CapacityProvisioned` tells it.
impl std::fmt::Display for Capacity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}vCPU {}GB", f64::from(self.cpu_milli) / 1e3, f64::from(self.memory_mib) / 1024.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_gets_the_smallest_size_that_it_fits_into() {
        for (cpu_milli, memory_mib, told) in [
            (0, 0, "0.25vCPU 0.5GB"),
            (250, 0, "0.25vCPU 0.5GB"),
            (100, 256, "0.25vCPU 0.5GB"),
            (100, 257, "0.25vCPU 1GB"),
            (100, 768, "0.25vCPU 1GB"),
            (100, 769, "0.25vCPU 2GB"),
            (250, 1_792, "0.25vCPU 2GB"),
            (250, 1_793, "0.5vCPU 3GB"),
            (251, 0, "0.5vCPU 1GB"),
            (500, 4_096, "1vCPU 5GB"),
            (1_000, 0, "1vCPU 2GB"),
            // The guide's own example.
            (1_000, 8_192, "2vCPU 9GB"),
            (1_001, 1_024, "2vCPU 4GB"),
            (4_000, 30_464, "4vCPU 30GB"),
            (4_000, 30_465, "8vCPU 32GB"),
            (8_000, 16_385, "8vCPU 20GB"),
            (16_000, 122_624, "16vCPU 120GB"),
        ] {
            let wanted = Wanted { cpu_milli, memory_bytes: memory_mib << 20 };
            let capacity = Capacity::of(wanted).map(|capacity| capacity.to_string());
            assert_eq!(capacity.as_deref(), Some(told), "{cpu_milli} m, {memory_mib} MiB");
        }
        for (cpu_milli, memory_mib) in [(16_001, 0), (0, 122_625), (u64::MAX, 0)] {
            assert_eq!(Capacity::of(Wanted { cpu_milli, memory_bytes: memory_mib << 20 }), None);
        }
        assert_eq!(Capacity::of(Wanted { cpu_milli: 0, memory_bytes: u64::MAX }), None);
    }
}
