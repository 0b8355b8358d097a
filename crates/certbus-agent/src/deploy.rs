//! One round for one target: compare, stage, swap in, check, tell the load balancer; whatever fails, the old files are
//! back. Nothing is written, checked or reloaded when nothing changed. It blocks, and belongs on a thread for that.

use std::collections::HashSet;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use certbus_client::{AdoptError, Client, Live};
use certbus_core::id::{CertificateId, Hash};
use tokio::runtime::Handle;
use zeroize::Zeroizing;

use crate::command::{self, CommandError};
use crate::haproxy::{self, RuntimeError};
use crate::layout;
use crate::plan::{Conflict, Plan, Taken, plan};
use crate::state::{Deployed, Found, TargetState};
use crate::swap::{FileError, Swap, TakeBack};
use crate::target::{Access, Layout, Target, read_password};
use crate::template::file_name;

/// What a round did.
#[derive(Debug)]
pub struct Round {
    /// The target.
    pub target: String,
    /// How many certificates it is to hold.
    pub wanted: usize,
    /// How many of them were written.
    pub written: usize,
    /// How the load balancer was told.
    pub told: Told,
    /// What went wrong; empty if all is as it should be.
    pub failures: Vec<DeployError>,
}

/// How the load balancer was told of new files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// There was nothing to tell, or no way to.
    Nothing,
    /// By its reload command.
    Reloaded,
    /// Over its socket, without a reload.
    Committed,
}

/// What went wrong in a round. The load balancer serves on with what it had.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// Two would stand in one file.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// The machine does not know who is to have the files.
    #[error("nothing can be written: {0}")]
    Access(String),
    /// A version does not open.
    #[error("certificate {certificate} ({names}) cannot be opened, its files are left as they are: {source}")]
    Material {
        /// Its id.
        certificate: String,
        /// Its names.
        names: String,
        /// Why.
        source: AdoptError,
    },
    /// PKCS#12 could not be made.
    #[error("certificate {certificate} cannot be put into PKCS#12: {why}")]
    Pkcs12 {
        /// Its id.
        certificate: String,
        /// Why.
        why: String,
    },
    /// A file could not be written.
    #[error("cannot write {0}; the old file is in its place")]
    Write(FileError),
    /// The agent's own journal could not be written.
    #[error("cannot write down what is under way, so nothing was changed: {0}")]
    Journal(FileError),
    /// The old files could not be put back.
    #[error("cannot put the old file back: {0}; it is tried again before anything else")]
    TakeBack(FileError),
    /// The check said no.
    #[error("the check failed, the old files are back and nothing was reloaded: {0}")]
    Check(CommandError),
    /// The reload said no.
    #[error("the reload failed, {files}; the server still runs the old ones: {source}")]
    Reload {
        /// What became of the files.
        files: &'static str,
        /// Why.
        source: CommandError,
    },
    /// HAProxy said no.
    #[error("HAProxy did not take it, {files}; it still runs the old ones: {source}")]
    Runtime {
        /// What became of the files.
        files: &'static str,
        /// Why.
        source: RuntimeError,
    },
}

/// Brings a target in line with what the client serves.
pub(crate) fn round(work: &Work<'_>, journal: &Path) -> (Round, Found) {
    let name = work.target.name.clone();
    let mut round = Round { target: name, wanted: 0, written: 0, told: Told::Nothing, failures: Vec::new() };
    let mut found = Found { reload_owed: work.state.reload_owed, ..Found::default() };
    if let Err(error) = round.run(work, journal, &mut found) {
        round.failures.push(error);
    }
    (round, found)
}

/// What a round has to go by.
pub(crate) struct Work<'a> {
    pub(crate) client: &'a Client,
    /// The target's number among all.
    pub(crate) number: usize,
    pub(crate) target: &'a Target,
    pub(crate) state: &'a TargetState,
    /// Whether every file is compared, not only those of a version that is not known to lie there.
    pub(crate) all: bool,
    /// Which target writes which file.
    pub(crate) taken: &'a Mutex<Taken>,
}

impl Round {
    fn run(&mut self, work: &Work<'_>, journal: &Path, found: &mut Found) -> Result<(), DeployError> {
        let (target, state) = (work.target, work.state);
        if Swap::recover(journal).map_err(DeployError::TakeBack)? {
            tracing::warn!(target = %target.name, "a round that was cut short is taken back and begun anew");
        }
        let access = target.access.resolve().map_err(DeployError::Access)?;
        let Plan { wanted, conflicts } = {
            let mut taken = work.taken.lock().unwrap_or_else(PoisonError::into_inner);
            plan(work.number, target, work.client.served(), |id| state.deployed.contains_key(&id), &mut taken)
        };
        self.failures.extend(conflicts.into_iter().map(DeployError::Conflict));
        self.wanted = wanted.len();
        found.gone = work.not_wanted(&wanted);
        let paths = |live: &Arc<Live>| target.layout.paths(live.version());
        // Who was not told of what lies there is told of all of it.
        let mut owed: Vec<PathBuf> = if state.reload_owed { wanted.iter().flat_map(paths).collect() } else { vec![] };
        let differ: Vec<Arc<Live>> = wanted.into_iter().filter(|live| !work.lies_there(live, access)).collect();
        if differ.is_empty() && !state.reload_owed {
            return Ok(());
        }
        let (mut swap, left_out) = Swap::begin(journal, differ.iter().map(paths)).map_err(DeployError::Journal)?;
        let blocked: HashSet<usize> = left_out.iter().map(|(set, _)| *set).collect();
        self.failures.extend(left_out.into_iter().map(|(_, error)| DeployError::Write(error)));
        let free = differ.iter().enumerate().filter(|(set, _)| !blocked.contains(set));
        let new = self.stage(work, access, free, &mut swap, found);
        // What lies there already was put there by a round that did not come to write down whether it was told of.
        let held = found.deployed.iter().map(|(id, _)| *id).collect::<HashSet<_>>();
        owed.extend(differ.iter().filter(|live| held.contains(&live.version().certificate)).flat_map(paths));
        found.reload_owed |= !held.is_empty();
        if new.is_empty() && !found.reload_owed {
            return swap.take_back(TakeBack::All).map(drop).map_err(DeployError::TakeBack);
        }
        let count = new.len();
        let files = swap.swap_in().map_err(DeployError::Write);
        let checked = files.and_then(|()| run(&target.check, target).map_err(DeployError::Check));
        if let Err(error) = checked {
            swap.take_back(TakeBack::All).map_err(|e| self.also(&error, e))?;
            return Err(error);
        }
        owed.extend(swap.paths().map(Path::to_owned));
        match tell(target, &owed) {
            Ok(told) => {
                swap.keep().map_err(DeployError::Journal)?;
                found.deployed.extend(new);
                (found.reload_owed, self.told, self.written) = (false, told, count);
                Ok(())
            }
            Err(untold) => {
                let stay = match swap.take_back(TakeBack::Replaced) {
                    Ok(stay) => stay,
                    Err(second) => return Err(self.also(&untold.error(false), second)),
                };
                found.reload_owed |= stay;
                Err(untold.error(stay))
            }
        }
    }

    /// Opens, compares and stages; says what is now beside its place. One certificate's failure leaves the others.
    fn stage<'l>(
        &mut self,
        work: &Work<'_>,
        access: Access,
        differ: impl Iterator<Item = (usize, &'l Arc<Live>)>,
        swap: &mut Swap,
        found: &mut Found,
    ) -> Vec<(CertificateId, Deployed)> {
        let target = work.target;
        let mut new = Vec::new();
        for (set, live) in differ {
            let version = live.version();
            let paths = target.layout.paths(version);
            let contents = match contents(work.client, target, live) {
                Ok(contents) => contents,
                Err(error) => {
                    self.failures.push(error);
                    continue;
                }
            };
            let files: Box<[Hash]> = contents.iter().map(|bytes| Hash::of(bytes)).collect();
            let deployed = Deployed { version: version.fingerprint, files };
            if hold(&paths, &deployed, access) {
                found.deployed.push((version.certificate, deployed));
                continue;
            }
            match swap.stage(set, &contents, access) {
                Ok(()) => new.push((version.certificate, deployed)),
                Err(error) => {
                    // The next would fail as this one did.
                    let hopeless =
                        matches!(error.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::ReadOnlyFilesystem);
                    self.failures.push(DeployError::Write(error));
                    if hopeless {
                        break;
                    }
                }
            }
        }
        new
    }

    /// A second failure on the way back: both are said.
    fn also(&mut self, first: &DeployError, second: FileError) -> DeployError {
        tracing::error!(target = %self.target, "{first}");
        DeployError::TakeBack(second)
    }
}

impl Work<'_> {
    /// Whether the version is known to lie in its files; if all are compared, they are read.
    fn lies_there(&self, live: &Live, access: Access) -> bool {
        let (version, target) = (live.version(), self.target);
        let known = self.state.deployed.get(&version.certificate).filter(|known| known.version == version.fingerprint);
        known.is_some_and(|known| !self.all || hold(&target.layout.paths(version), known, access))
    }

    /// The files of certificates that are gone stay: the load balancer's configuration may name them.
    fn not_wanted(&self, wanted: &[Arc<Live>]) -> Vec<CertificateId> {
        let meant: HashSet<CertificateId> = wanted.iter().map(|live| live.version().certificate).collect();
        let gone: Vec<CertificateId> = self.state.deployed.keys().filter(|id| !meant.contains(id)).copied().collect();
        for id in &gone {
            tracing::info!(target = %self.target.name, certificate = %id, "not served any more; its files are left in place");
        }
        gone
    }
}

/// Whether files have this content, this owner and this mode.
fn hold(paths: &[PathBuf], deployed: &Deployed, access: Access) -> bool {
    paths.len() == deployed.files.len()
        && paths.iter().zip(&deployed.files).all(|(path, hash)| holds(path, *hash, access))
}

fn holds(path: &Path, hash: Hash, access: Access) -> bool {
    let Ok(metadata) = path.symlink_metadata() else { return false };
    metadata.is_file()
        && metadata.permissions().mode() & 0o7777 == access.mode
        && access.owner.is_none_or(|owner| owner == metadata.uid())
        && access.group.is_none_or(|group| group == metadata.gid())
        && std::fs::read(path).map(Zeroizing::new).is_ok_and(|bytes| Hash::of(&bytes) == hash)
}

fn contents(client: &Client, target: &Target, live: &Live) -> Result<Vec<Zeroizing<Vec<u8>>>, DeployError> {
    let version = live.version();
    let material = client.material(live).map_err(|source| DeployError::Material {
        certificate: version.certificate.to_string(),
        names: version.names.to_string(),
        source,
    })?;
    // Moved, not copied: each text is wiped once.
    let bytes = |mut text: Zeroizing<String>| Zeroizing::new(std::mem::take(&mut *text).into_bytes());
    Ok(match &target.layout {
        Layout::Separate { .. } => {
            let chain = Zeroizing::new(layout::chain_pem(&material.chain).into_bytes());
            vec![chain, bytes(layout::key_pem(&material.key))]
        }
        Layout::Combined { .. } => vec![bytes(layout::combined_pem(&material.chain, &material.key))],
        Layout::Pkcs12 { password_file, .. } => {
            let password = read_password(password_file).map_err(DeployError::Access)?;
            let (id, alias) = (version.certificate, file_name(&version.names));
            let store = layout::pkcs12(id, &alias, &material.chain, &material.key, &password);
            vec![store.map_err(|why| DeployError::Pkcs12 { certificate: id.to_string(), why })?]
        }
    })
}

/// Why the load balancer was not told.
enum Untold {
    Reload(CommandError),
    Runtime(RuntimeError),
}

impl Untold {
    /// The error, once it is known what became of the files.
    fn error(self, stay: bool) -> DeployError {
        let files =
            if stay { "files that were there before are back, first ones stay" } else { "the old files are back" };
        match self {
            Self::Reload(source) => DeployError::Reload { files, source },
            Self::Runtime(source) => DeployError::Runtime { files, source },
        }
    }
}

/// Tells the load balancer of files that are new to it.
fn tell(target: &Target, files: &[PathBuf]) -> Result<Told, Untold> {
    if let Some(socket) = &target.socket {
        match commit(socket, files, target) {
            // What HAProxy does not hold yet it learns by a reload.
            Err(RuntimeError::NotHeld { .. }) if !target.reload.is_empty() => {}
            Err(error) => return Err(Untold::Runtime(error)),
            Ok(()) => return Ok(Told::Committed),
        }
    }
    run(&target.reload, target).map_err(Untold::Reload)?;
    Ok(if target.reload.is_empty() { Told::Nothing } else { Told::Reloaded })
}

/// Has HAProxy take every file; if it refuses one, those it took are what they were.
fn commit(socket: &Path, files: &[PathBuf], target: &Target) -> Result<(), RuntimeError> {
    let replace = |file: &Path, from: &Path| {
        let text = std::fs::read_to_string(from).map(Zeroizing::new);
        let text = text.map_err(|source| RuntimeError::Socket { socket: from.to_owned(), source })?;
        haproxy::replace(socket, file, &text, target.limit)
    };
    for (at, file) in files.iter().enumerate() {
        if let Err(error) = replace(file, file) {
            for taken in files.iter().take(at) {
                if let Err(error) = replace(taken, &Swap::before(taken)) {
                    tracing::error!(target = %target.name, "HAProxy keeps the new version in memory: {error}");
                }
            }
            return Err(error);
        }
    }
    Ok(())
}

fn run(program: &[String], target: &Target) -> Result<(), CommandError> {
    Handle::current().block_on(command::run(program, target.limit))
}
