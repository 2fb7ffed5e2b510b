//! Which devices the machines of a site may open: those that a machine has, and none of the host's disks.
//!
//! The limit is on the site's group, above the machines' own, which a privileged pod can write to.

use std::path::Path;

use devices::Rule;

use crate::{Error, Result};

/// Beside the standard ones: loop devices (7, volumes in files), the kernel's log, the console, TUN, FUSE and the maker of
/// loop devices.
const MACHINE: [(char, u32, Option<u32>); 6] = [
    ('b', 7, None),
    ('c', 1, Some(11)),
    ('c', 5, Some(1)),
    ('c', 10, Some(200)),
    ('c', 10, Some(229)),
    ('c', 10, Some(237)),
];

/// Limits a site's new group, which has no children yet, in whichever hierarchy it is.
pub fn restrict(group: &Path, unified: bool) -> Result<()> {
    let rules = MACHINE.map(|(kind, major, minor)| Rule {
        kind,
        major: Some(major),
        minor,
        access: "rwm".to_owned(),
    });
    let restricted = if unified {
        devices::restrict_v2(group, &rules)
    } else if group.join("devices.deny").exists() {
        devices::restrict_v1(group, &rules)
    } else {
        Ok(())
    };
    restricted.map_err(Error::file("restrict the devices of", group))
}
