//! Certificates of a cluster's own authority, for any time: by openssl, which believes whatever it is told of the clock.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::clients::{run, tool};

/// What a certificate says, and how long it is good for, in the words of date(1): `-1 hour`, `+30 seconds`.
pub struct Wanted<'a> {
    /// `/O=system:masters/CN=somebody`
    pub subject: &'a str,
    /// `clientAuth`, `serverAuth`
    pub usage: &'a str,
    /// `DNS:a,IP:192.0.2.1`; may be empty.
    pub names: &'a str,
    pub from: &'a str,
    pub to: &'a str,
}

/// A certificate and its key, each in a PEM file.
pub struct Issued {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// Issues one in a folder of its own. `pki` holds the authority's `ca.crt` and `ca.key`.
pub fn issue(pki: &Path, folder: &Path, wanted: &Wanted) -> Result<Issued> {
    std::fs::create_dir_all(folder)?;
    std::fs::write(folder.join("index"), "")?;
    std::fs::write(folder.join("serial"), "01\n")?;
    let names =
        if wanted.names.is_empty() { String::new() } else { format!("subjectAltName = {}\n", wanted.names) };
    let config = format!(
        "[ca]\ndefault_ca = d\n[d]\ndatabase = index\nserial = serial\nnew_certs_dir = .\ndefault_md = sha256\npolicy = p\n\
         x509_extensions = e\n[p]\norganizationName = optional\ncommonName = supplied\n\
         [e]\nextendedKeyUsage = {}\n{names}[req]\ndistinguished_name = n\n[n]\n",
        wanted.usage
    );
    std::fs::write(folder.join("config"), config)?;
    let there = |program: &str, words: &[&str]| -> Result<String> {
        run(Command::new(tool(program)?).args(words).current_dir(folder), "")?.ok()
    };
    let at =
        |when: &str| there("date", &["-u", "-d", when, "+%y%m%d%H%M%SZ"]).map(|text| text.trim().to_owned());
    let request = ["req", "-new", "-config", "config", "-subj", wanted.subject, "-out", "csr"];
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", "key"];
    there("openssl", &[&request[..], &key[..]].concat())?;
    let (ca, ca_key) = (pki.join("ca.crt"), pki.join("ca.key"));
    let (from, to) = (at(wanted.from)?, at(wanted.to)?);
    let sign = ["ca", "-batch", "-notext", "-config", "config", "-in", "csr", "-out", "cert"];
    let by = ["-cert", &*ca.to_string_lossy(), "-keyfile", &*ca_key.to_string_lossy()].map(str::to_owned);
    let times = ["-startdate", &from, "-enddate", &to];
    let words: Vec<&str> = sign.into_iter().chain(by.iter().map(String::as_str)).chain(times).collect();
    there("openssl", &words)?;
    Ok(Issued { certificate: folder.join("cert"), key: folder.join("key") })
}
