//! `certbus doctor`: looks at everything this machine's CertBus stands on, and says what to do about what is wrong.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use certbus_bus::EventLog;
use certbus_core::id::{Cursor, StreamKind};
use certbus_core::identity::Role;
use certbus_core::key::SigningKey;
use certbus_manager::clock;

use super::exit::Found;
use super::output;
use crate::settings::Settings;
use crate::wire::{self, Engine};

/// A check that finds something exits with 10.
pub(crate) async fn run(settings: &Settings) -> Result<()> {
    match look(settings).await? {
        0 => Ok(()),
        count => bail!(Found::new(format!("{count} to mend"))),
    }
}

/// How often an engine is asked, to tell how long it takes.
const ASKED: usize = 5;

/// Clocks that differ by more are told.
const APART: u64 = 5_000;

/// How long an engine takes to say that nothing came, in the middle of some times.
async fn read_takes(log: &dyn EventLog, head: Cursor) -> Result<Duration> {
    let mut times = Vec::new();
    for _ in 0..ASKED {
        let began = Instant::now();
        log.read(head, 1).await?;
        times.push(began.elapsed());
    }
    times.sort();
    Ok(times.get(ASKED / 2).copied().unwrap_or_default())
}

/// Prints what it finds; returns how much of it is wrong.
pub(crate) async fn look(settings: &Settings) -> Result<u32> {
    let mut wrong = 0;
    let mut problem = |text: String| {
        output::problem(text);
        wrong += 1;
    };
    if settings.path.exists() {
        output::done(format!("settings {}", settings.path.display()));
    } else {
        output::warning(format!("no settings file {}; defaults are used", settings.path.display()));
    }
    let mode = std::fs::metadata(&settings.data).map_or(0, |data| data.permissions().mode() & 0o777);
    if mode & 0o077 != 0 {
        let data = settings.data.display();
        problem(format!(
            "the data folder {data} has mode {mode:04o}, so others may look into it; run `chmod 700 {data}`"
        ));
    }
    let mut held = Vec::new();
    for (path, role) in [
        (settings.manager_key(), Role::Manager),
        (settings.node_key(), Role::Node),
        (settings.owner_key(), Role::Owner),
    ] {
        if !path.exists() {
            if role == Role::Manager {
                problem(format!("no manager identity {}; `certbus init` makes it", path.display()));
            }
            continue;
        }
        match wire::identity(&path, role) {
            Ok(identity) => held.push((identity, role)),
            Err(error) => problem(format!("{error:#}")),
        }
    }
    if !held.iter().any(|(_, role)| *role == Role::Manager) {
        return Ok(wrong);
    }
    let began = Instant::now();
    let manager = match wire::manager(settings).await {
        Ok(manager) => manager,
        Err(error) => {
            problem(format!("{error:#}"));
            return Ok(wrong);
        }
    };
    let took = began.elapsed();
    {
        let view = manager.view().await?;
        for kind in StreamKind::ALL {
            let chain = view.chain(kind);
            let place = manager.tenant().stream(kind).log.place();
            output::done(format!("log {place}: {} batches, all hold", chain.cursor().seq));
        }
        output::done(format!("read both streams in {} ms", took.as_millis()));
        if let Some(health) = Engine::open(&settings.log()?, false).await?.health().await? {
            let took = read_takes(&*manager.tenant().certs.log, view.certs.cursor()).await?;
            output::done(format!("{}: a read takes {:.1} ms", health.version, took.as_secs_f64() * 1e3));
            let apart = health.clock.map_or(0, |clock| clock.abs_diff(clock::now().millis()));
            if apart > APART {
                problem(format!("its clock and this one are {} s apart: set them by NTP", apart / 1000));
            }
            health.wrong.into_iter().for_each(&mut problem);
            health.remarks.iter().for_each(output::warning);
        }
        let ahead = view.certs.last_time().max(view.works.last_time()).since(clock::now());
        if ahead.as_secs() > 60 {
            problem(format!(
                "the log was written {} s in the future: this clock or a manager's is wrong",
                ahead.as_secs()
            ));
        }
        for (identity, role) in &held {
            let own = match role {
                Role::Owner => identity.sign.as_ref().map(SigningKey::public) == view.certs.authority(),
                Role::Node => view.certs.recipients().iter().any(|r| r.key == identity.open.public()),
                Role::Manager => true,
            };
            if !own {
                problem(format!(
                    "the {role} identity `{}` is not {} of this log: it belongs to another, or was replaced or removed",
                    identity.name,
                    if *role == Role::Owner { "the authority" } else { "a recipient" }
                ));
            }
        }
        if view.certs.recipients().is_empty() {
            problem("no recipient could open a certificate: `certbus recipient add NAME`".into());
        } else {
            let names: Vec<&str> = view.certs.recipients().iter().map(|r| r.name.as_str()).collect();
            output::done(format!("recipients: {}", names.join(", ")));
        }
    }
    match manager.settings().await {
        Err(error) => problem(format!("{error:#}")),
        Ok(issuing) if issuing.ca.is_empty() => output::warning("no CA is set up; `certbus init --ca …` does it"),
        Ok(issuing) => {
            for name in issuing.ca.keys() {
                match issuing.connect(name).await {
                    Ok(_) => output::done(format!("CA {name} answers")),
                    Err(error) => problem(format!("CA {name}: {error}")),
                }
            }
            if let Err(error) = issuing.solvers(&settings.solvers()) {
                problem(format!("{error}"));
            }
        }
    }
    let beside: Vec<&str> = held
        .iter()
        .filter_map(|(_, role)| match role {
            Role::Owner => Some("the owner file"),
            Role::Node => Some("the nodes' identity"),
            Role::Manager => None,
        })
        .collect();
    if !beside.is_empty() {
        output::warning(format!(
            "{} on this machine beside the manager's: a break-in here opens everything; fine for one machine, better kept \
             elsewhere",
            beside.join(" and ") + if beside.len() == 1 { " lies" } else { " lie" }
        ));
    }
    Ok(wrong)
}
