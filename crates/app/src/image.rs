//! `ekso image`: the site's content store, worked on directly, and those of its clusters, which get copies; they are made for several
//! processes at once.

use std::path::Path;

use files::FileError;
use runtime::image::{Image, ImportOptions, Store};

use crate::cli::{self, Format, ImageImport, Listing, Named};
use crate::exit;
use crate::output::{self, Screen};
use crate::site::Site;

#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Store(#[from] runtime::image::StoreError),
    #[error(transparent)]
    Import(#[from] runtime::image::ImportError),
    #[error("there is no image named {0}: `ekso image list` shows those there are")]
    NotFound(String),
    #[error("ekso image needs root: run it with sudo")]
    NotRoot,
    #[error("print as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl ImageError {
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NotRoot => exit::MACHINE_LACKS,
            _ => exit::FAILED,
        }
    }
}

pub fn run(command: &cli::Image, screen: &Screen) -> Result<(), ImageError> {
    if !rustix::process::geteuid().is_root() {
        return Err(ImageError::NotRoot);
    }
    match command {
        cli::Image::Import(args) => import(args, screen),
        cli::Image::List(args) => list(args),
        cli::Image::Remove { cluster, images } => remove(cluster, images, screen),
    }
}

/// The store of what was imported, and that of each cluster that has one.
struct Stores {
    imported: Store,
    clusters: Vec<Store>,
}

impl Stores {
    fn open(data_dir: &Path) -> Result<Self, ImageError> {
        let site = Site::open(data_dir)?;
        let folders = site.clusters()?.into_iter().map(|cluster| site.cluster_images(&cluster.name));
        let clusters = folders.filter(|folder| folder.exists()).map(Store::open);
        Ok(Self { imported: Store::open(site.images())?, clusters: clusters.collect::<Result<_, _>>()? })
    }

    fn all(&self) -> impl Iterator<Item = &Store> {
        std::iter::once(&self.imported).chain(&self.clusters)
    }
}

fn import(args: &ImageImport, screen: &Screen) -> Result<(), ImageError> {
    let stores = Stores::open(&args.cluster.site.data_dir)?;
    let store = &stores.imported;
    // A full disk does not take what no registry has.
    let options = ImportOptions { pinned: true, ..ImportOptions::default() };
    let images = match (&args.rootfs, args.source.as_str()) {
        (Some(dir), name) => {
            let [entrypoint, cmd] =
                [&args.entrypoint, &args.cmd].map(|text| words(text.as_deref().unwrap_or("")));
            let image = store.import_rootfs(dir, &entrypoint, &cmd, name)?;
            store.set_pinned(&image, true)?;
            vec![image]
        }
        (None, "-") => store.import(std::io::stdin().lock(), &options)?,
        (None, path) => store.import_path(Path::new(path), &options)?,
    };
    for cluster in &stores.clusters {
        cluster.take_over(store)?;
    }
    for image in &images {
        screen.say(&format!("imported {} ({})", image.name, output::bytes(image.size_bytes)));
    }
    Ok(())
}

/// The words of a command line: split at spaces, kept together by quotes.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    for c in text.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

fn list(args: &Listing) -> Result<(), ImageError> {
    let mut images: Vec<Image> = Vec::new();
    for store in Stores::open(&args.site.data_dir)?.all() {
        images.extend(store.list()?);
    }
    images.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
    images.dedup_by(|a, b| (&a.name, a.id) == (&b.name, b.id));
    match args.output.output {
        Format::Json => {
            let all: Vec<_> = images.iter().map(|image| serde_json::json!({
                "name": image.name, "id": image.id.to_string(), "sizeBytes": image.size_bytes, "created": image.created,
            })).collect();
            println!("{}", serde_json::to_string_pretty(&all)?);
        }
        Format::Text => {
            let row = |image: &Image| {
                let id: String =
                    image.id.to_string().trim_start_matches("sha256:").chars().take(12).collect();
                vec![image.name.clone(), id, output::bytes(image.size_bytes)]
            };
            let rows: Vec<Vec<String>> = images.iter().map(row).collect();
            println!("{}", output::table(&["IMAGE", "ID", "SIZE"], &rows));
        }
    }
    Ok(())
}

fn remove(cluster: &Named, images: &[String], screen: &Screen) -> Result<(), ImageError> {
    let stores = Stores::open(&cluster.site.data_dir)?;
    for name in images {
        let mut is_known = false;
        for store in stores.all() {
            is_known |= store.remove(name)?;
        }
        if !is_known {
            return Err(ImageError::NotFound(name.clone()));
        }
        screen.say(&format!("removed {name}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_split_as_a_shell_would() {
        for (text, expected) in [
            ("", &[][..]),
            ("/bin/sh -c 'echo a b'", &["/bin/sh", "-c", "echo a b"]),
            ("a \"\" b", &["a", "", "b"]),
        ] {
            assert_eq!(words(text), expected);
        }
    }
}
