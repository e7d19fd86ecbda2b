//! Keeping our two repositories in order: setting a damaged one aside, and packing what has gathered.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use git2::{Oid, Repository};

/// The name that a damaged repository gets: `mirror.git.damaged-1`. At most one is kept, the newest, for whoever wants to
/// know what happened.
pub(super) fn set_aside(path: &Path) -> io::Result<Option<PathBuf>> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Ok(None);
    };
    if !path.exists() {
        return Ok(None);
    }
    let prefix = format!("{name}.damaged-");
    let mut highest = 0_u64;
    let mut older = Vec::new();
    for entry in fs::read_dir(parent)? {
        let entry = entry?;
        let number = entry.file_name().to_str().and_then(|have| have.strip_prefix(&prefix)?.parse::<u64>().ok());
        if let Some(number) = number {
            highest = highest.max(number);
            older.push(entry.path());
        }
    }
    let aside = parent.join(format!("{prefix}{}", highest.saturating_add(1)));
    fs::rename(path, &aside)?;
    for path in older {
        remove(&path)?;
    }
    Ok(Some(aside))
}

/// Removes what is there, file or directory; nothing there is fine.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    let outcome = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match outcome {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// More packs than this of one size class are made one. Each write and each fetch makes a pack, and looking an object up asks
/// all of them.
const PACKS_OF_A_SIZE: usize = 48;
/// The size classes, in bytes. A pack leaves its class when it has grown, so that nothing is packed again and again.
const SIZES: [u64; 3] = [1 << 20, 32 << 20, 1 << 30];

/// Makes one pack out of many small ones. The new pack is complete before an old one goes, so a crash in between only leaves
/// objects in two places.
pub(super) fn tidy(repository: &Repository) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let directory = repository.path().join("objects/pack");
    for (class, below) in SIZES.iter().enumerate() {
        let from = if class == 0 { 0 } else { SIZES.get(class - 1).copied().unwrap_or(0) };
        let mut packs = Vec::new();
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            let size = entry.metadata()?.len();
            if entry.path().extension().is_some_and(|extension| extension == "pack") && (from..*below).contains(&size) {
                packs.push(entry.path());
            }
        }
        if packs.len() > PACKS_OF_A_SIZE {
            merge_packs(repository, &directory, &packs)?;
        }
    }
    Ok(())
}

fn merge_packs(
    repository: &Repository,
    directory: &Path,
    packs: &[PathBuf],
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut builder = repository.packbuilder()?;
    builder.set_threads(1);
    for pack in packs {
        for oid in objects_of(&pack.with_extension("idx"))? {
            builder.insert_object(oid, None)?;
        }
    }
    builder.write(directory, 0o444)?;
    let fresh = builder.name()?.map(|name| format!("pack-{name}")).ok_or("the new pack has no name")?;
    sync(directory, &fresh)?;
    for pack in packs.iter().filter(|pack| pack.file_stem().is_none_or(|stem| stem != fresh.as_str())) {
        // Its index first: a pack without one is not looked at.
        remove(&pack.with_extension("idx"))?;
        remove(pack)?;
    }
    Ok(())
}

/// The objects that an index of version 2 lists: an eight-byte head, 256 counts of which the last is the total, then the ids.
fn objects_of(index: &Path) -> io::Result<Vec<Oid>> {
    let broken = || io::Error::new(io::ErrorKind::InvalidData, format!("{} is no pack index", index.display()));
    let bytes = fs::read(index)?;
    let (head, rest) = bytes.split_at_checked(8).ok_or_else(broken)?;
    let (counts, ids) = rest.split_at_checked(256 * 4).ok_or_else(broken)?;
    let total = counts.last_chunk::<4>().map(|count| u32::from_be_bytes(*count)).ok_or_else(broken)?;
    if head != b"\xfftOc\0\0\0\x02" {
        return Err(broken());
    }
    let ids = usize::try_from(total).ok().and_then(|total| ids.get(..total.checked_mul(20)?)).ok_or_else(broken)?;
    ids.chunks_exact(20).map(|id| Oid::from_bytes(id).map_err(|_| broken())).collect()
}

/// Syncs all packs to the disk.
pub(super) fn sync_packs(repository: &Repository) -> io::Result<()> {
    sync(&repository.path().join("objects/pack"), "pack-")
}

/// Syncs the files of this directory whose name starts so, and the directory.
fn sync(directory: &Path, prefix: &str) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(prefix)) {
            fs::File::open(entry.path())?.sync_all()?;
        }
    }
    fs::File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_damaged_repository_is_kept() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("mirror.git");
        assert_eq!(set_aside(&path).expect("nothing to do"), None);
        for round in 1..=3 {
            fs::create_dir(&path).expect("a directory");
            fs::write(path.join("HEAD"), round.to_string()).expect("a file");
            let aside = set_aside(&path).expect("it is set aside").expect("it was there");
            assert_eq!(aside, home.path().join(format!("mirror.git.damaged-{round}")));
            assert_eq!(fs::read_dir(home.path()).expect("a list").count(), 1, "only the newest stays");
        }
    }
}
