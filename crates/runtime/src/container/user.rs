//! Who a container's process is: the pod's security context, else the image's user, looked up in the image.

use plan::node::{SecurityContext, SupplementalGroupsPolicy};
use std::path::Path;

/// The largest `/etc/passwd` or `/etc/group` that is read.
const LIMIT_BYTES: u64 = 4 << 20;

#[derive(Debug, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub home: String,
}

struct Passwd<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

fn passwd(text: &str) -> impl Iterator<Item = Passwd<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(Passwd { name, uid, gid, home: fields.nth(1).unwrap_or("") })
    })
}

fn groups(text: &str) -> impl Iterator<Item = Group<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some(Group { name, gid, members: fields.next().unwrap_or("") })
    })
}

/// Reads a database of this process's root, which is the container's by now. A missing one is empty.
fn database(path: &str) -> String {
    use rustix::fs::OFlags;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    std::fs::File::open("/")
        .and_then(|root| crate::sys::open_in_root(root, Path::new(path), flags))
        .and_then(|file| crate::sys::read_limited(file, LIMIT_BYTES))
        .unwrap_or_default()
}

/// Resolves within this process's root.
pub fn resolve(security: &SecurityContext, image_user: &str) -> Result<User, String> {
    resolve_in(security, image_user, &database("etc/passwd"), &database("etc/group"))
}

fn resolve_in(
    security: &SecurityContext,
    image_user: &str,
    passwd_text: &str,
    group_text: &str,
) -> Result<User, String> {
    let (image_name, image_group) = match image_user.split_once(':') {
        Some((user, group)) => (user, group),
        None => (image_user, ""),
    };
    let asked = security.run_as_user;
    let name = asked.map_or_else(|| image_name.to_string(), |uid| uid.to_string());
    let entry = if name.is_empty() {
        passwd(passwd_text).find(|entry| entry.uid == 0)
    } else {
        let number = name.parse::<u32>().ok();
        passwd(passwd_text).find(|entry| entry.name == name || Some(entry.uid) == number)
    };
    let uid = match (&entry, name.parse::<u32>()) {
        (Some(entry), _) => entry.uid,
        (None, Ok(uid)) => uid,
        (None, Err(_)) if name.is_empty() => 0,
        (None, Err(_)) => {
            return Err(format!("unable to find user {name}: no matching entries in passwd file"));
        }
    };
    let mut gid = entry.as_ref().map_or(0, |entry| entry.gid);
    if asked.is_none() && !image_group.is_empty() {
        gid = match groups(group_text).find(|group| group.name == image_group) {
            Some(group) => group.gid,
            None => image_group.parse().map_err(|_| {
                format!("unable to find group {image_group}: no matching entries in group file")
            })?,
        };
    }
    if let Some(asked) = security.run_as_group {
        gid = asked;
    }
    // The primary group is listed as well, as containerd does since CVE-2022-36109.
    let mut supplementary = vec![gid];
    supplementary.extend(&security.supplemental_groups);
    if security.supplemental_groups_policy == SupplementalGroupsPolicy::Merge
        && let Some(entry) = &entry
    {
        let member = |group: &Group| group.members.split(',').any(|member| member == entry.name);
        supplementary.extend(groups(group_text).filter(member).map(|group| group.gid));
    }
    let mut seen = std::collections::BTreeSet::new();
    supplementary.retain(|gid| seen.insert(*gid));
    let home = entry.map(|entry| entry.home).filter(|home| !home.is_empty()).unwrap_or("/");
    Ok(User { uid, gid, groups: supplementary, home: home.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1001:Web:/srv/web:/bin/sh\n:bad\nx:y:z\n";
    const GROUP: &str = "root:x:0:\nwww:x:1001:\nmedia:x:44:web,other\nlog:x:45:web\n";

    fn check(security: SecurityContext, image_user: &str, want: Result<(u32, u32, &[u32], &str), &str>) {
        let got = resolve_in(&security, image_user, PASSWD, GROUP);
        let want = want
            .map(|(uid, gid, groups, home)| User { uid, gid, groups: groups.to_vec(), home: home.into() })
            .map_err(str::to_string);
        assert_eq!(got, want, "image user {image_user:?}, {security:?}");
    }

    #[test]
    fn users() {
        let none = SecurityContext::default;
        check(none(), "", Ok((0, 0, &[0], "/root")));
        check(none(), "web", Ok((1000, 1001, &[1001, 44, 45], "/srv/web")));
        check(none(), "1000:media", Ok((1000, 44, &[44, 45], "/srv/web")));
        check(none(), "7:8", Ok((7, 8, &[8], "/")));
        check(none(), "nobody", Err("unable to find user nobody: no matching entries in passwd file"));
        check(none(), "web:no", Err("unable to find group no: no matching entries in group file"));
        let user = SecurityContext { run_as_user: Some(1000), ..none() };
        check(user.clone(), "0:0", Ok((1000, 1001, &[1001, 44, 45], "/srv/web")));
        let strict = SecurityContext {
            supplemental_groups: vec![9],
            supplemental_groups_policy: SupplementalGroupsPolicy::Strict,
            run_as_group: Some(5),
            ..user
        };
        check(strict, "", Ok((1000, 5, &[5, 9], "/srv/web")));
    }
}
