//! Which images go when the disk fills: the longest unused first, until there is room again.
//!
//! Thresholds and the minimum age are upstream's defaults: <https://kubernetes.io/docs/concepts/architecture/garbage-collection/#container-image-garbage-collection>.

use object::Time;

const HIGH_PERCENT: u64 = 85;
const LOW_PERCENT: u64 = 80;
const MINIMUM_AGE_SECONDS: i64 = 120;

/// The disk that images are on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    pub capacity_bytes: u64,
    pub available_bytes: u64,
}

/// One image, under however many names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredImage {
    pub id: String,
    pub bytes: u64,
    /// A container has it, or it must stay for another reason.
    pub is_kept: bool,
    pub added_at: Time,
    /// When a container was last seen to have it; when it was added, if none was.
    pub used_at: Time,
}

/// What to remove, and how far that falls short.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Garbage {
    /// Ids, in this order.
    pub images: Vec<String>,
    /// Said of the node when not enough can go (`FreeDiskSpaceFailed`).
    pub failure: Option<String>,
}

pub fn garbage(disk: Disk, mut images: Vec<StoredImage>, now: Time) -> Garbage {
    let Disk { capacity_bytes, available_bytes } = disk;
    let used_bytes = capacity_bytes.saturating_sub(available_bytes);
    // Percents of a disk's bytes do not fit in 64 bits of a very large one.
    let share = |percent: u64| capacity_bytes / 100 * percent;
    if capacity_bytes == 0 || used_bytes < share(HIGH_PERCENT) {
        return Garbage::default();
    }
    let wanted = used_bytes.saturating_sub(share(LOW_PERCENT));
    images.sort_by_key(|image| (image.used_at, image.added_at));
    let (mut freed, mut garbage) = (0_u64, Garbage::default());
    for image in images {
        // One that was just fetched is about to be used.
        if freed >= wanted || image.is_kept || now.secs_since(image.added_at) < MINIMUM_AGE_SECONDS {
            continue;
        }
        freed = freed.saturating_add(image.bytes);
        garbage.images.push(image.id);
    }
    if freed < wanted {
        garbage.failure = Some(format!(
            "Failed to garbage collect required amount of images. Attempted to free {wanted} bytes, but only found {freed} bytes eligible to free."
        ));
    }
    garbage
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn image(id: &str, gib: u64, kept: bool, added: i64, used: i64) -> StoredImage {
        let at = |seconds: i64| Time::from_micros(seconds * 1_000_000);
        StoredImage { id: id.into(), bytes: gib * GIB, is_kept: kept, added_at: at(added), used_at: at(used) }
    }

    fn check(available_gib: u64, images: &[StoredImage], want: &[&str], falls_short: bool) {
        let disk = Disk { capacity_bytes: 100 * GIB, available_bytes: available_gib * GIB };
        let got = garbage(disk, images.to_vec(), Time::from_micros(1_000_000_000));
        assert_eq!(got.images, want, "{available_gib} GiB left");
        assert_eq!(got.failure.is_some(), falls_short, "{:?}", got.failure);
    }

    #[test]
    fn the_longest_unused_go_until_there_is_room() {
        let images = [
            image("new", 9, false, 900, 900),
            image("kept", 9, true, 1, 1),
            image("later", 4, false, 10, 500),
            image("first", 3, false, 10, 10),
            image("second", 3, false, 10, 100),
        ];
        check(20, &images, &[], false);
        check(15, &images, &["first", "second"], false);
        check(14, &images, &["first", "second"], false);
        check(10, &images, &["first", "second", "later"], false);
        check(5, &images, &["first", "second", "later"], true);
    }
}
