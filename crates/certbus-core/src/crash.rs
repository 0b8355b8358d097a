//! Where a test may kill this process: the named steps of the flows that must survive it. Compiled to nothing without
//! debug assertions; with them, `CERTBUS_CRASH_AT=step` ends the process as `kill -9` does, `step:3` at the third time.

macro_rules! steps {
    ($($(#[doc = $doc:literal])* $step:ident = $name:literal,)*) => {
        /// A place between two effects.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Step {
            $($(#[doc = $doc])* $step,)*
        }

        impl Step {
            /// All of them, in the order in which an issuance meets them.
            pub const ALL: &[Self] = &[$(Self::$step,)*];

            /// Its word in `CERTBUS_CRASH_AT`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$step => $name,)*
                }
            }
        }
    };
}

steps! {
    /// A batch is signed, and not sent.
    Appending = "appending",
    /// A batch is on the log, and this process has not noticed.
    Appended = "appended",
    /// The attempt is claimed.
    Claimed = "claimed",
    /// The CA has the order; the log does not.
    Ordered = "ordered",
    /// The order is on the log.
    Placed = "placed",
    /// A challenge is about to be set up.
    SettingUp = "setting-up",
    /// A challenge is set up.
    SetUp = "set-up",
    /// All challenges can be seen; the CA is not told.
    Visible = "visible",
    /// The CA is told.
    Told = "told",
    /// The signing request is about to be sent.
    Finalizing = "finalizing",
    /// The signing request is sent.
    Finalized = "finalized",
    /// Challenges are about to be removed.
    CleaningUp = "cleaning-up",
    /// Challenges are removed.
    CleanedUp = "cleaned-up",
    /// The certificate is here, and not on the log.
    Issued = "issued",
    /// The certificate is on the log; the order is still open.
    Published = "published",
    /// The order is ended.
    Ended = "ended",
    /// A part of a snapshot is stored.
    SnapshotPart = "snapshot-part",
    /// The parts of a snapshot are stored; its manifest is not.
    SnapshotManifest = "snapshot-manifest",
    /// The snapshot is there.
    SnapshotDone = "snapshot-done",
    /// Between any two changes of an agent to files.
    Deploying = "deploying",
}

/// Ends the process here if the environment says so.
#[inline]
pub fn at(step: Step) {
    #[cfg(debug_assertions)]
    armed::at(step);
    #[cfg(not(debug_assertions))]
    let _ = step;
}

#[cfg(debug_assertions)]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    static ARMED: OnceLock<Option<(String, u32)>> = OnceLock::new();
    static TIMES: AtomicU32 = AtomicU32::new(0);

    pub(super) fn at(step: super::Step) {
        let armed = ARMED.get_or_init(|| {
            let text = std::env::var("CERTBUS_CRASH_AT").ok()?;
            let (name, times) = text.split_once(':').unwrap_or((&text, "1"));
            Some((name.to_owned(), times.parse().unwrap_or(1)))
        });
        if let Some((name, times)) = armed
            && name == step.name()
            && TIMES.fetch_add(1, Ordering::SeqCst) + 1 == *times
        {
            let me = std::process::id().to_string();
            let _ = std::process::Command::new("kill").args(["-KILL", &me]).status();
            std::process::abort();
        }
    }
}
