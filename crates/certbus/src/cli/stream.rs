//! The log itself: look at it, walk its signatures and hashes, cut off what does not hold, write snapshots, trim, copy.

mod copy;
mod look;

use std::path::PathBuf;

use anyhow::{Result, bail};
use certbus_bus::follow::{FollowError, catch_up, from_snapshot};
use certbus_bus::log::LogError;
use certbus_core::batch::Batch;
use certbus_core::chain::{Chain, ChainError};
use certbus_core::event::Event;
use certbus_core::id::StreamKind;
use certbus_core::identity::Role;
use certbus_core::time::Span;
use certbus_manager::{Stream, Tenant};
use clap::Subcommand;

use super::exit::{Found, Mistake};
use super::output;
use crate::settings::Settings;
use crate::wire;

#[derive(Debug, Subcommand)]
pub(crate) enum StreamCommand {
    /// Check every batch and statement, as a reader does.
    Verify {
        /// Remove the batches from the first one that no reader accepts
        #[arg(long)]
        cut: bool,
        /// Cut without asking
        #[arg(long, requires = "cut")]
        yes: bool,
    },
    /// List the streams of every tenant: from where to where they go, and their snapshots.
    Ls {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Show one batch: who wrote it, when, from where, and its events. What is sealed stays sealed.
    Show {
        /// Its number
        #[arg(value_name = "NUMBER")]
        seq: u64,
        /// Of the managers' stream, `work`
        #[arg(long)]
        work: bool,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// List the newest batches.
    Tail {
        /// So many
        #[arg(short = 'n', long, default_value_t = 20, value_name = "N")]
        lines: usize,
        /// And those that come
        #[arg(short, long)]
        follow: bool,
        /// Of the managers' stream, `work`
        #[arg(long)]
        work: bool,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Copy every stream to another engine, with its numbers and hashes.
    Copy {
        /// The log's URL as in certbus.toml, or @FILE that has it
        #[arg(value_name = "FROM")]
        from: String,
        /// The URL of an empty log, or of a copy to go on with; or @FILE that has it
        #[arg(value_name = "TO")]
        to: String,
    },
    /// Forget old batches that a snapshot stands for.
    Trim {
        /// Keep those that are younger than this (30d, 12h)
        #[arg(long, default_value = "30d", value_name = "TIME")]
        keep: Span,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Write a snapshot of each stream, for whoever starts next.
    Snapshot,
    /// Say, as the owner, that the log was put back to an older copy: this one. Whoever has seen more goes on from here.
    Restored {
        /// The owner file, if it is not in the data folder
        #[arg(long, value_name = "FILE")]
        owner: Option<PathBuf>,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

impl StreamCommand {
    pub(crate) async fn run(self, settings: &Settings) -> Result<()> {
        match self {
            Self::Snapshot => {
                wire::manager(settings).await?.publish_snapshots().await?;
                output::done("wrote a snapshot of certs and of work");
                Ok(())
            }
            Self::Ls { json } => look::list(settings, json).await,
            Self::Show { seq, work, json } => look::show(settings, kind(work), seq, json).await,
            Self::Tail { lines, follow, work, json } => look::tail(settings, kind(work), lines, follow, json).await,
            Self::Copy { from, to } => copy::copy(settings, &from, &to).await,
            Self::Trim { keep, yes } => copy::trim(settings, keep.duration(), yes).await,
            Self::Restored { owner, yes } => restored(settings, owner, yes).await,
            Self::Verify { cut, yes } => {
                let mut bad = Vec::new();
                for kind in StreamKind::ALL {
                    if !verify(settings, kind, cut, yes).await? {
                        bad.push(kind.as_str());
                    }
                }
                if bad.is_empty() {
                    return Ok(());
                }
                bail!(Found::new(format!(
                    "{} {} not hold to the end; readers stop there and serve on; `certbus stream verify --cut` removes \
                     the rest",
                    bad.join(" and "),
                    if bad.len() == 1 { "does" } else { "do" }
                )))
            }
        }
    }
}

fn kind(work: bool) -> StreamKind {
    if work { StreamKind::Work } else { StreamKind::Certs }
}

async fn restored(settings: &Settings, owner: Option<PathBuf>, yes: bool) -> Result<()> {
    let manager = wire::manager(settings).await?;
    let owner = wire::owner(settings, owner.as_ref())?;
    let (certs, work) = {
        let view = manager.view().await?;
        (view.certs.cursor().seq, view.works.cursor().seq)
    };
    let question = format!(
        "go on from this copy, which ends at batch {certs} of certs and {work} of work? What was issued after it is forgotten."
    );
    if !yes && output::ask(&question) != Some(true) {
        bail!(Mistake::new(format!("{question} Say --yes")));
    }
    let epoch = manager.restored(&owner).await?;
    manager.publish_snapshots().await?;
    output::done(format!("the log goes on from this copy (restore number {epoch})"));
    output::line("load balancers go on by themselves; start every manager that is running again");
    output::line("what is missing of late: compare `certbus cert ls` with what your CA says it issued, and renew it");
    Ok(())
}

/// True if the stream holds to its end, or does after the cut.
async fn verify(settings: &Settings, kind: StreamKind, cut: bool, yes: bool) -> Result<bool> {
    let identity = wire::identity(&settings.manager_key(), Role::Manager)?;
    wire::check_tenant(&identity, settings)?;
    let tenant = wire::tenant(settings, identity.pin.into_iter().collect(), false).await?;
    let stream = tenant.stream(kind);
    let place = stream.log.place();
    let mut walk = Walk::new(kind, &tenant);
    let Err(error) = walk.read_on(stream).await else {
        walk.chain.check_anchored()?;
        output::done(format!("{place}: {}", walk.summary()));
        return Ok(true);
    };
    let reached = walk.chain.cursor();
    output::problem(format!("{place}: holds up to batch {}; then: {error}", reached.seq));
    if error.wants_upgrade() {
        output::line("nothing is wrong with it: a newer program wrote it; upgrade this one");
        return Ok(false);
    }
    // What is cut must stand behind a history that this identity trusts; anything else is another log, not a bad tail.
    let is_tail = reached.seq > 0 && walk.chain.check_anchored().is_ok();
    let is_bad = match &error {
        FollowError::Chain(ChainError::Elsewhere { .. } | ChainError::NotPinned(_)) => false,
        FollowError::Chain(_) | FollowError::Log(LogError::Corrupt { .. }) => true,
        _ => false,
    };
    if !is_tail || !is_bad {
        return if cut { Err(error.into()) } else { Ok(false) };
    }
    if !cut {
        return Ok(false);
    }
    if !yes && output::ask(&format!("remove every batch after {} of {place}?", reached.seq)) != Some(true) {
        output::line("nothing was removed; --yes removes without asking");
        return Ok(false);
    }
    // Somebody may have cut it meanwhile, and good batches may stand there now.
    if walk.read_on(stream).await.is_ok() {
        output::done(format!("{place}: {}", walk.summary()));
        return Ok(true);
    }
    stream.log.cut(walk.chain.cursor()).await?;
    output::done(format!("removed every batch after {}", walk.chain.cursor().seq));
    output::line(
        "readers that stood there go on by themselves; one that had read further refuses the log as an older copy: empty its \
         state folder",
    );
    Ok(true)
}

/// A reader on its way, counting.
struct Walk {
    chain: Chain,
    batches: u64,
    events: usize,
}

impl Walk {
    fn new(kind: StreamKind, tenant: &Tenant) -> Self {
        Self { chain: Chain::new(kind, tenant.pins.clone()), batches: 0, events: 0 }
    }

    async fn read_on(&mut self, stream: &Stream) -> Result<(), FollowError> {
        let Self { chain, batches, events } = self;
        let mut count = |_: &Batch, found: &[Event]| {
            *batches += 1;
            *events += found.len();
        };
        match catch_up(&*stream.log, chain, &mut count).await {
            // The beginning is a snapshot: it is verified in its place, then the batches after it.
            Err(FollowError::Log(LogError::Trimmed { .. })) => {
                if let Some((adopted, kept)) = from_snapshot(&*stream.snapshots, chain).await? {
                    kept.iter().for_each(|(batch, found)| count(batch, found));
                    *chain = adopted;
                }
                catch_up(&*stream.log, chain, &mut count).await
            }
            other => other,
        }
    }

    fn summary(&self) -> String {
        let cursor = self.chain.cursor();
        let hash: String = cursor.hash.to_string().chars().take(12).collect();
        let statements = self.chain.statements().len();
        format!("{} batches, {} events, {statements} statements; head {} {hash}", self.batches, self.events, cursor.seq)
    }
}
