//! The AWS profile of a site: a section in `~/.aws/config` and one in `~/.aws/credentials`, everything else left as it was.
//!
//! Each section of ours says so in its first line. A section of the same name that is not ours stays, and ours gets the site's id to its
//! name.

use std::path::{Path, PathBuf};

use files::FileError;
use serde::{Deserialize, Serialize};

use crate::account::Access;
use crate::owner::Owner;
use crate::site::Site;
use crate::user_file::{UserFile, UserFileError};

const NAME: &str = "ekso";

#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    UserFile(#[from] UserFileError),
    #[error("{0} is not a text: mend it, or name another file with --aws-config or --aws-credentials")]
    NotText(PathBuf),
    #[error(
        "there is no home folder to keep an AWS profile in: name files with --aws-config and --aws-credentials"
    )]
    NoHome,
    #[error(
        "{0} has profiles named ekso and ekso-… that are not this site's: rename them, or name another file with --aws-config"
    )]
    Taken(PathBuf),
}

/// The two files that AWS's tools read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Files {
    pub config: PathBuf,
    pub credentials: PathBuf,
}

/// Where a site's profile went: kept, so that it can be taken out again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub profile: String,
    pub files: Files,
    /// What was not there before: files and folders.
    pub made: Vec<PathBuf>,
}

/// The files that are meant: those named, else those in the home of the user behind sudo.
pub fn files(
    config: Option<&Path>,
    credentials: Option<&Path>,
    owner: &Owner,
) -> Result<Files, ProfileError> {
    let usual = |named: Option<&Path>, name: &str| match (named, &owner.home) {
        (Some(path), _) => {
            std::path::absolute(path).map_err(|error| FileError::new("find", path, error).into())
        }
        (None, Some(home)) => Ok(home.join(".aws").join(name)),
        (None, None) => Err(ProfileError::NoHome),
    };
    Ok(Files { config: usual(config, "config")?, credentials: usual(credentials, "credentials")? })
}

/// The first line of a section of ours, and who wrote it.
fn mark(site: &Site) -> String {
    format!("# Of ekso's site {} in {}; `ekso delete` takes it out.", site.id, site.dir.display())
}

/// Site and folder of a section's mark; none if it has none.
fn marked(section: &str) -> Option<(&str, &str)> {
    let rest = section.lines().nth(1)?.strip_prefix("# Of ekso's site ")?;
    let (id, rest) = rest.split_once(" in ")?;
    Some((id, rest.rsplit_once(';')?.0))
}

/// Whether a section may be replaced by this site's: it is its own, or that of a site that is no more.
fn is_ours(site: &Site, section: &str) -> bool {
    let Some((id, dir)) = marked(section) else { return false };
    let is_alive = || Site::find(Path::new(dir)).is_ok_and(|found| found.is_some_and(|found| found.id == id));
    id == site.id || !is_alive()
}

/// Puts the site's profile into the files.
pub fn write(
    site: &Site,
    owner: &Owner,
    files: &Files,
    access: &Access,
    ca_pem: &str,
) -> Result<Record, ProfileError> {
    let made = owner.with_rights(|| missing(files));
    let texts =
        owner.with_rights(|| Ok::<_, ProfileError>((text(&files.config)?, text(&files.credentials)?)))?;
    let names = [NAME.to_owned(), format!("{NAME}-{}", site.id)];
    let is_free = |name: &String| {
        let sections = [section(&texts.0, &in_config(name)), section(&texts.1, name)];
        sections.into_iter().flatten().all(|section| is_ours(site, section))
    };
    let profile = names.into_iter().find(is_free).ok_or_else(|| ProfileError::Taken(files.config.clone()))?;
    let ca_path = ca_path(site, files);
    let mark = mark(site);
    let config = format!(
        "{mark}\nregion = {}\nendpoint_url = {}\nca_bundle = {}\n",
        access.region,
        access.endpoint,
        ca_path.display()
    );
    let credentials = format!(
        "{mark}\naws_access_key_id = {}\naws_secret_access_key = {}\n",
        access.access_key_id, access.secret_access_key
    );
    owner.with_rights(|| {
        edit(&files.credentials, Some(0o600), |text| put(text, &profile, &credentials))?;
        edit(&files.config, None, |text| put(text, &in_config(&profile), &config))?;
        // Public, and beside the config, since the site's own folder is for root alone.
        Ok::<_, ProfileError>(files::write(&ca_path, 0o644, ca_pem.as_bytes())?)
    })?;
    Ok(Record { profile, files: files.clone(), made })
}

/// Takes the site's profile out again, with what was made for it.
pub fn remove(site: &Site, owner: &Owner, record: &Record) -> Result<(), ProfileError> {
    let Record { profile, files, made } = record;
    owner.with_rights(|| {
        for (path, header) in [(&files.config, in_config(profile)), (&files.credentials, profile.clone())] {
            if !path.exists() {
                continue;
            }
            let is_of_this_site =
                section(&text(path)?, &header).and_then(marked).is_some_and(|(id, _)| id == site.id);
            if is_of_this_site {
                edit(path, None, |text| take(text, &header))?;
            }
            if made.contains(path) && text(path)?.trim().is_empty() {
                UserFile::lock(path)?.remove()?;
            }
        }
        let ca_path = ca_path(site, files);
        match std::fs::remove_file(&ca_path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(FileError::new("remove", &ca_path, error).into());
            }
            _ => {}
        }
        for folder in [files.config.parent(), files.credentials.parent()].into_iter().flatten() {
            if made.iter().any(|made| made == folder) {
                // One that holds something else by now stays.
                let _ = std::fs::remove_dir(folder);
            }
        }
        Ok(())
    })
}

fn ca_path(site: &Site, files: &Files) -> PathBuf {
    files.config.with_file_name(format!("ekso-{}-ca.pem", site.id))
}

fn missing(files: &Files) -> Vec<PathBuf> {
    let all = [&files.config, &files.credentials];
    let folders = all.into_iter().filter_map(|path| path.parent());
    let all = all.into_iter().map(PathBuf::as_path).chain(folders);
    all.filter(|path| !path.exists()).map(Path::to_owned).collect()
}

fn text(path: &Path) -> Result<String, ProfileError> {
    let content = files::read(path)?.unwrap_or_default();
    String::from_utf8(content).map_err(|_| ProfileError::NotText(path.to_owned()))
}

/// Changes a file; it keeps its mode unless told.
fn edit(path: &Path, mode: Option<u32>, change: impl FnOnce(&str) -> String) -> Result<(), ProfileError> {
    let file = UserFile::lock(path)?;
    let before = text(file.path())?;
    let after = change(&before);
    if after != before {
        file.write(mode.unwrap_or_else(|| file.mode()), after.as_bytes())?;
    }
    Ok(())
}

/// The header of a profile in the config file, where all but the default have a word before their name.
fn in_config(profile: &str) -> String {
    format!("profile {profile}")
}

/// The place of a section in a text: from its header to the next one's.
fn place(text: &str, header: &str) -> Option<(usize, usize)> {
    let mut start = None;
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if let Some(name) = line.trim().strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            if let Some(start) = start {
                return Some((start, at));
            }
            let name: Vec<&str> = name.split_whitespace().map(|word| word.trim_matches('"')).collect();
            if name.join(" ") == header {
                start = Some(at);
            }
        }
        at += line.len();
    }
    start.map(|start| (start, text.len()))
}

fn section<'a>(text: &'a str, header: &str) -> Option<&'a str> {
    place(text, header).map(|(start, end)| &text[start..end])
}

/// The text with a section put in place of the one of that name, or at its end.
fn put(text: &str, header: &str, body: &str) -> String {
    let section = format!("[{header}]\n{body}");
    match place(text, header) {
        Some((start, end)) if end < text.len() => format!("{}{section}\n{}", &text[..start], &text[end..]),
        Some((start, _)) => format!("{}{section}", &text[..start]),
        None if text.trim().is_empty() => section,
        None => format!("{}\n\n{section}", text.trim_end()),
    }
}

/// The text without a section, and without the blank line that was put before it.
fn take(text: &str, header: &str) -> String {
    let Some((start, end)) = place(text, header) else { return text.to_owned() };
    let before = text[..start].trim_end();
    let after = &text[end..];
    match (before.is_empty(), after.is_empty()) {
        (true, _) => after.to_owned(),
        (false, true) => format!("{before}\n"),
        (false, false) => format!("{before}\n\n{after}"),
    }
}

impl Site {
    fn profile_path(&self) -> PathBuf {
        self.aws().join("profile.json")
    }

    /// Where the site's profile went, if it went somewhere.
    pub fn profile(&self) -> Result<Option<Record>, FileError> {
        files::read_json(&self.profile_path())
    }

    /// Remembers it. What an earlier record says was made for it is still that.
    pub fn save_profile(&self, record: Record) -> Result<(), FileError> {
        let known = self.profile()?.filter(|known| known.files == record.files);
        let made = known.map_or_else(|| record.made.clone(), |known| known.made);
        files::write_json(&self.profile_path(), &Record { made, ..record })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access() -> Access {
        Access {
            endpoint: "https://127.0.0.1:4566".into(),
            account: "123456789012".into(),
            region: "us-east-1".into(),
            access_key_id: "AKIAX".into(),
            secret_access_key: "s3cret".into(),
        }
    }

    struct Home {
        dir: tempfile::TempDir,
        site: Site,
        files: Files,
    }

    fn home() -> Home {
        let dir = tempfile::tempdir().expect("a folder");
        let site = Site::open(&dir.path().join("site")).expect("a site");
        std::fs::create_dir(site.aws()).expect("made");
        let aws = dir.path().join("home/.aws");
        let files = Files { config: aws.join("config"), credentials: aws.join("credentials") };
        Home { dir, site, files }
    }

    impl Home {
        fn write(&self) -> Result<Record, ProfileError> {
            let record = write(&self.site, &Owner::this_process(), &self.files, &access(), "CA")?;
            self.site.save_profile(record.clone()).expect("remembered");
            Ok(record)
        }

        fn remove(&self) {
            let record = self.site.profile().expect("read").expect("a record");
            remove(&self.site, &Owner::this_process(), &record).expect("removed");
        }

        fn put(&self, config: &str, credentials: &str) {
            std::fs::create_dir_all(self.files.config.parent().expect("a parent")).expect("made");
            std::fs::write(&self.files.config, config).expect("written");
            std::fs::write(&self.files.credentials, credentials).expect("written");
        }

        fn texts(&self) -> (String, String) {
            (text(&self.files.config).expect("read"), text(&self.files.credentials).expect("read"))
        }
    }

    #[test]
    fn a_profile_comes_and_goes_without_trace() {
        use std::os::unix::fs::PermissionsExt;
        let home = home();
        assert_eq!(home.write().expect("written").profile, "ekso");
        let (config, credentials) = home.texts();
        assert!(config.starts_with("[profile ekso]\n# Of ekso's site "), "{config}");
        assert!(config.contains("\nendpoint_url = https://127.0.0.1:4566\n"), "{config}");
        assert!(credentials.contains("\naws_secret_access_key = s3cret\n"), "{credentials}");
        let mode = home.files.credentials.metadata().expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        home.write().expect("written again");
        assert_eq!(home.texts(), (config, credentials));
        home.remove();
        assert!(!home.dir.path().join("home/.aws").exists());
    }

    #[test]
    fn what_was_there_stays() {
        let (config, credentials) = (
            "[default]\nregion = eu-west-1\n\n[profile \"work\"]\nrole_arn = x\n",
            "# mine\n[default]\naws_access_key_id = A\n",
        );
        let home = home();
        home.put(config, credentials);
        home.write().expect("written");
        let (with, _) = home.texts();
        assert!(with.starts_with(config.trim_end()) && with.contains("[profile ekso]"), "{with}");
        // What somebody adds behind it meanwhile stays too.
        std::fs::write(&home.files.config, format!("{with}\n[profile late]\nregion = x\n")).expect("written");
        home.write().expect("written again");
        home.remove();
        assert_eq!(home.texts(), (format!("{config}\n[profile late]\nregion = x\n"), credentials.to_owned()));
    }

    #[test]
    fn a_profile_of_somebody_elses_is_not_touched() {
        let theirs = "[profile  ekso]\nregion = theirs\n";
        let home = home();
        home.put(theirs, "");
        let record = home.write().expect("written");
        assert_eq!(record.profile, format!("ekso-{}", home.site.id));
        assert!(home.texts().0.starts_with(theirs));
        home.remove();
        assert_eq!(home.texts(), (theirs.to_owned(), String::new()));
    }

    #[test]
    fn a_site_that_is_no_more_gives_its_name_up() {
        let home = home();
        let gone = Site { id: "gone00".into(), dir: home.dir.path().join("nowhere") };
        home.put(&format!("[profile ekso]\n{}\nregion = x\n", mark(&gone)), "");
        assert_eq!(home.write().expect("written").profile, "ekso");
        let other = Site::open(&home.dir.path().join("other")).expect("a site");
        let files = home.files.clone();
        let second = write(&other, &Owner::this_process(), &files, &access(), "CA").expect("written");
        assert_eq!(second.profile, format!("ekso-{}", other.id));
    }

    /// The files of somebody who has links in their home to what only root may touch.
    #[test]
    fn no_link_in_a_home_leads_root_astray() {
        use std::os::unix::fs::{chown, symlink};
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let home = home();
        let (folder, precious) = (home.dir.path().join("home"), home.dir.path().join("precious"));
        std::fs::write(&precious, "[default]\n").expect("written");
        let guard = std::os::unix::fs::PermissionsExt::from_mode;
        std::fs::set_permissions(&precious, guard(0o600)).expect("guarded");
        std::fs::set_permissions(home.dir.path(), guard(0o755)).expect("opened");
        std::fs::create_dir_all(folder.join(".aws")).expect("made");
        for path in [&folder, &folder.join(".aws")] {
            chown(path, Some(65_534), Some(65_534)).expect("given");
        }
        let owner = Owner { uid: 65_534, gid: 65_534, home: Some(folder.clone()) };
        let files = files(None, None, &owner).expect("files");
        let put = || write(&home.site, &owner, &files, &access(), "CA");
        for path in [&files.config, &files.credentials, &ca_path(&home.site, &files)] {
            symlink(&precious, path).expect("linked");
            let _ = put();
            assert_eq!(std::fs::read_to_string(&precious).expect("read"), "[default]\n");
            std::fs::remove_file(path).expect("removed");
        }
        put().expect("written");
        let made = std::os::unix::fs::MetadataExt::uid(&files.credentials.metadata().expect("there"));
        assert_eq!(made, 65_534);
    }

    #[test]
    fn a_locked_file_is_left_alone() {
        let home = home();
        home.put("", "");
        std::fs::write(home.files.credentials.with_file_name("credentials.lock"), "").expect("locked");
        let refused = home.write().expect_err("locked").to_string();
        assert!(refused.contains("is locked by another program"), "{refused}");
        assert_eq!(home.texts(), (String::new(), String::new()));
    }
}
