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

/// The loose objects of a repository of ours.
fn loose_objects(repository: &Repository) -> io::Result<Vec<(Oid, PathBuf)>> {
    let objects = repository.path().join("objects");
    let mut found = Vec::new();
    for directory in fs::read_dir(objects)? {
        let directory = directory?;
        let Some(first) = directory.file_name().to_str().filter(|name| name.len() == 2).map(str::to_owned) else {
            continue;
        };
        for file in fs::read_dir(directory.path())? {
            let file = file?;
            let Some(rest) = file.file_name().to_str().map(str::to_owned) else { continue };
            if let Ok(oid) = format!("{first}{rest}").parse::<Oid>()
                && rest.len() == 38
            {
                found.push((oid, file.path()));
            }
        }
    }
    Ok(found)
}

/// Gathers loose objects into one pack once there are more than `threshold`, and says how many it packed. The pack is written
/// and synced before the first loose file goes, so a crash in between only leaves an object in two places.
pub(super) fn pack_loose(
    repository: &Repository,
    threshold: usize,
) -> Result<usize, Box<dyn std::error::Error + Send + Sync>> {
    let loose = loose_objects(repository)?;
    if loose.len() <= threshold {
        return Ok(0);
    }
    let mut builder = repository.packbuilder()?;
    builder.set_threads(1);
    for (oid, _) in &loose {
        builder.insert_object(*oid, None)?;
    }
    builder.write(&repository.path().join("objects/pack"), 0o444)?;
    repository.odb()?.refresh()?;
    for (_, path) in &loose {
        remove(path)?;
    }
    Ok(loose.len())
}

/// How many packs a repository of ours has.
pub(super) fn count_packs(repository: &Repository) -> usize {
    let packs = fs::read_dir(repository.path().join("objects/pack"));
    packs.map_or(0, |packs| {
        packs.flatten().filter(|file| file.path().extension().is_some_and(|extension| extension == "pack")).count()
    })
}

/// Puts everything that `tips` reach into one pack and drops all other packs and loose objects: what a mirror that fetched a
/// thousand times needs.
pub(super) fn repack(repository: &Repository, tips: &[Oid]) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let directory = repository.path().join("objects/pack");
    let mut walk = repository.revwalk()?;
    for tip in tips {
        walk.push(*tip)?;
    }
    let mut builder = repository.packbuilder()?;
    builder.set_threads(1);
    builder.insert_walk(&mut walk)?;
    builder.write(&directory, 0o444)?;
    let Some(fresh) = builder.name()?.map(str::to_owned) else { return Ok(()) };
    for entry in fs::read_dir(&directory)? {
        let path = entry?.path();
        let keep = path.file_stem().and_then(|stem| stem.to_str()).is_some_and(|stem| stem.ends_with(&fresh));
        if !keep {
            remove(&path)?;
        }
    }
    repository.odb()?.refresh()?;
    for (_, path) in loose_objects(repository)? {
        remove(&path)?;
    }
    Ok(())
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
