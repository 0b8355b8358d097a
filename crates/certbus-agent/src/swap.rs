//! Files of one round: staged beside their places, swapped in together, and kept or taken back. A journal says what is
//! under way, so that whatever ends the agent in between, the next start has the old files back and nothing lies about.
//!
//! Each file has two companions in its folder while a round is under way: the staged one, made for its owner alone
//! (0600) and given its final owner and mode before anything is in it (invariant 1), and the old one, by a second name.
//! Their names begin with a dot and end in `.key`, since HAProxy loads what lies in a folder but for such names.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use certbus_core::crash::{self, Step};
use certbus_core::id::Hash;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::target::Access;

/// A swap that was begun.
#[derive(Debug)]
pub(crate) struct Swap {
    journal: PathBuf,
    /// The files of each certificate.
    sets: Vec<Vec<Place>>,
}

/// One file.
#[derive(Debug, Serialize, Deserialize)]
struct Place {
    path: PathBuf,
    /// Whether something stood there when the swap began.
    existed: bool,
    #[serde(skip)]
    staged: bool,
}

/// Which files come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TakeBack {
    /// All; what is new is removed.
    All,
    /// All but the files of a certificate that had none before: they replace nothing, and a server that is not started
    /// yet needs them to start.
    Replaced,
}

/// An operation on a file, and why it failed.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}")]
pub struct FileError {
    /// The file.
    pub path: PathBuf,
    /// The operating system's words.
    pub source: io::Error,
}

impl Swap {
    /// Writes the journal: from here on these files may be staged. `sets` are the files of each certificate. Companions
    /// that no journal knows of go first: an old file that an ended swap did not come to remove must not come back. A set
    /// where they cannot go is left out, and told of.
    pub(crate) fn begin(
        journal: &Path,
        sets: impl Iterator<Item = Vec<PathBuf>>,
    ) -> Result<(Self, Vec<(usize, FileError)>), FileError> {
        let place = |path: PathBuf| {
            for companion in [staged(&path), old(&path)] {
                remove(&companion).map_err(fault(&path))?;
            }
            Ok(Place { existed: path.symlink_metadata().is_ok(), path, staged: false })
        };
        let (mut kept, mut left_out) = (Vec::new(), Vec::new());
        for (number, paths) in sets.enumerate() {
            kept.push(paths.into_iter().map(place).collect::<Result<Vec<Place>, _>>().unwrap_or_else(|error| {
                left_out.push((number, error));
                Vec::new()
            }));
        }
        let sets = kept;
        write_durably(journal, |file| Ok(serde_json::to_writer(file, &sets)?)).map_err(fault(journal))?;
        crash::at(Step::Deploying);
        Ok((Self { journal: journal.to_owned(), sets }, left_out))
    }

    /// Writes the files of certificate number `set` beside their places: all of them or none.
    pub(crate) fn stage(
        &mut self,
        set: usize,
        contents: &[Zeroizing<Vec<u8>>],
        access: Access,
    ) -> Result<(), FileError> {
        let Some(steps) = self.sets.get_mut(set) else { return Ok(()) };
        for (step, bytes) in steps.iter().zip(contents) {
            crash::at(Step::Deploying);
            if let Err(source) = write_beside(&step.path, bytes, access) {
                steps.iter().for_each(|step| drop(std::fs::remove_file(staged(&step.path))));
                return Err(fault(&step.path)(source));
            }
        }
        steps.iter_mut().for_each(|step| step.staged = true);
        Ok(())
    }

    /// Puts every staged file into its place, durably. The old ones keep a second name.
    pub(crate) fn swap_in(&self) -> Result<(), FileError> {
        for step in self.staged() {
            if step.existed {
                remove(&old(&step.path)).map_err(fault(&step.path))?;
                crash::at(Step::Deploying);
                std::fs::hard_link(&step.path, old(&step.path)).map_err(fault(&step.path))?;
            }
        }
        for step in self.staged() {
            crash::at(Step::Deploying);
            std::fs::rename(staged(&step.path), &step.path).map_err(fault(&step.path))?;
        }
        crash::at(Step::Deploying);
        self.sync_folders()
    }

    /// Has the old files back in their places. Says whether new ones stay.
    pub(crate) fn take_back(self, which: TakeBack) -> Result<bool, FileError> {
        let mut stay = false;
        for set in &self.sets {
            if which == TakeBack::Replaced && set.iter().all(|step| step.staged && !step.existed) {
                stay = true;
                continue;
            }
            for step in set {
                crash::at(Step::Deploying);
                step.take_back().map_err(fault(&step.path))?;
            }
        }
        self.sync_folders()?;
        remove(&self.journal).map_err(fault(&self.journal))?;
        Ok(stay)
    }

    /// The new files stay: the journal goes, then the old files.
    pub(crate) fn keep(self) -> Result<(), FileError> {
        crash::at(Step::Deploying);
        remove(&self.journal).map_err(fault(&self.journal))?;
        for step in self.sets.iter().flatten() {
            crash::at(Step::Deploying);
            let _ = std::fs::remove_file(old(&step.path));
        }
        Ok(())
    }

    /// The files that were staged.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.staged().map(|step| step.path.as_path())
    }

    /// The files of a swap that an earlier process did not end are as they were before it.
    pub(crate) fn recover(journal: &Path) -> Result<bool, FileError> {
        let text = match std::fs::read(journal) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(fault(journal)(e)),
        };
        // One that cannot be read was being written: nothing was staged yet.
        let sets = serde_json::from_slice(&text).unwrap_or_default();
        Self { journal: journal.to_owned(), sets }.take_back(TakeBack::All)?;
        Ok(true)
    }

    /// Where the file that stood at `path` before has its second name.
    pub(crate) fn before(path: &Path) -> PathBuf {
        old(path)
    }

    fn staged(&self) -> impl Iterator<Item = &Place> {
        self.sets.iter().flatten().filter(|step| step.staged)
    }

    fn sync_folders(&self) -> Result<(), FileError> {
        let folders: BTreeSet<&Path> = self.sets.iter().flatten().filter_map(|step| step.path.parent()).collect();
        for folder in folders.into_iter().filter(|folder| folder.is_dir()) {
            File::open(folder).and_then(|open| open.sync_all()).map_err(fault(folder))?;
        }
        Ok(())
    }
}

impl Place {
    fn take_back(&self) -> io::Result<()> {
        remove(&staged(&self.path))?;
        if !self.existed {
            return remove(&self.path);
        }
        match std::fs::rename(old(&self.path), &self.path) {
            // Nothing was put in its place yet.
            Err(e) if missing(&e) || old(&self.path).symlink_metadata().is_err_and(|e| missing(&e)) => Ok(()),
            // Two names of one file: the rename did nothing.
            Ok(()) => remove(&old(&self.path)),
            Err(e) => Err(e),
        }
    }
}

/// The new content of a file, beside it.
fn staged(path: &Path) -> PathBuf {
    companion(path, "new")
}

/// The old file, by its second name.
fn old(path: &Path) -> PathBuf {
    companion(path, "old")
}

/// As short for every name: a path that may stand may be staged.
fn companion(path: &Path, what: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    let hash = Hash::of(name).to_string();
    path.with_file_name(format!(".certbus-{}.{what}.key", hash.get(..16).unwrap_or_default()))
}

fn write_beside(path: &Path, bytes: &[u8], access: Access) -> io::Result<()> {
    if path.is_dir() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a folder; name a file"));
    }
    if let Some(folder) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
    }
    let new = staged(path);
    remove(&new)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    let written = (|| {
        if access.owner.is_some() || access.group.is_some() {
            std::os::unix::fs::fchown(&file, access.owner, access.group)?;
        }
        file.set_permissions(Permissions::from_mode(access.mode))?;
        file.write_all(bytes)?;
        file.sync_all()
    })();
    if written.is_err() {
        let _ = std::fs::remove_file(&new);
    }
    written
}

/// Writes a file of the agent's own (0600), whole or not at all.
pub(crate) fn write_durably(
    path: &Path,
    content: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> io::Result<()> {
    let new = path.with_extension("new");
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    let mut file = BufWriter::new(file);
    let written = content(&mut file).and_then(|()| file.into_inner().map_err(io::IntoInnerError::into_error));
    let written = written.and_then(|file| file.sync_all()).and_then(|()| std::fs::rename(&new, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&new);
    }
    written?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

/// Sees to it that nothing is there. Where nothing may be written that is asked for rather than tried.
fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if missing(&e) || path.symlink_metadata().is_err_and(|e| missing(&e)) => Ok(()),
        other => other,
    }
}

/// A folder that is none cannot hold the file either.
fn missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn fault(path: &Path) -> impl Fn(io::Error) -> FileError {
    move |source| FileError { path: path.to_owned(), source }
}
