//! The command line: what can be said, and which file does it.

mod agent;
mod alert;
pub(crate) mod audit;
mod cert;
mod check;
mod conf;
mod demo;
mod doctor;
mod endpoint;
mod example_server;
pub(crate) mod exit;
mod export;
mod init;
mod keys;
mod mk;
pub(crate) mod output;
mod reach;
mod renew;
mod scan;
mod serve;
mod stream;
mod task;
mod token;
mod user;
mod worker;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use crate::settings::{Overrides, Settings};

/// Issues, distributes and observes TLS certificates, and proves that the three agree.
#[derive(Debug, Parser)]
#[command(
    name = "certbus",
    version,
    after_help = "Exit codes: `certbus exit-codes`. Start here: `certbus demo`, then `certbus init`."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    places: Places,
    #[command(flatten)]
    far: reach::Far,
    /// More of what happens (twice: everything); RUST_LOG is honoured too.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct Places {
    /// The local settings [default: /etc/certbus/certbus.toml if there, else ~/.config/certbus/certbus.toml]
    #[arg(long, global = true, env = "CERTBUS_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// The data folder: log and identities [default: as the settings say]
    #[arg(long, global = true, env = "CERTBUS_DATA", value_name = "DIR")]
    data: Option<PathBuf>,
    /// The tenant
    #[arg(long, global = true, env = "CERTBUS_TENANT", default_value = "default", value_name = "NAME")]
    tenant: String,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Set CertBus up: settings, data folder, identities, log, CA account. May be run again.
    Init(init::Init),
    /// See it all happen on this machine: issue, distribute, serve, renew.
    Demo(demo::Demo),
    /// Look for what is wrong, and say what to do.
    Doctor,
    /// Managed certificates.
    #[command(subcommand)]
    Cert(cert::Cert),
    /// The issuing settings, sealed on the log.
    #[command(subcommand)]
    Conf(conf::Conf),
    /// Identity files.
    #[command(subcommand)]
    Identity(keys::IdentityCommand),
    /// Who certificates are sealed to.
    #[command(subcommand)]
    Recipient(keys::RecipientCommand),
    /// The owner file: who says who may write and read.
    #[command(subcommand)]
    Owner(keys::OwnerCommand),
    /// Who may write the log.
    #[command(subcommand)]
    Manager(keys::ManagerCommand),
    /// Load balancer groups with a log of their own.
    #[command(subcommand)]
    Tenant(keys::TenantCommand),
    /// The log itself.
    #[command(subcommand)]
    Stream(stream::StreamCommand),
    /// Renew whatever is due, for as long as it runs (or once, for cron).
    Serve(serve::Serve),
    /// Keep the files of nginx, HAProxy and others in line with the log, and reload them.
    Agent(agent::Agent),
    /// See which certificates servers really present. Needs no settings, no log and no root.
    Scan(Box<scan::Scan>),
    /// What is watched: servers that are polled for their certificates.
    #[command(subcommand)]
    Endpoint(endpoint::EndpointCommand),
    /// Make the polls that are due at this site, for as long as it runs.
    Worker(worker::Worker),
    /// Ask for the polls that are due, for as long as it runs.
    Scheduler(worker::Scheduler),
    /// Work that waits, is under way, or was given up.
    #[command(subcommand)]
    Task(task::TaskCommand),
    /// Who may log in to the web.
    #[command(subcommand)]
    User(user::UserCommand),
    /// What programs show when they use the API.
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Who is told when something is wrong, and what of.
    #[command(subcommand)]
    Alert(alert::AlertCommand),
    /// The audit trail: who changed what, when, from where.
    Audit(audit::Audit),
    /// An HTTPS server that serves managed certificates: a model for your own.
    ExampleServer(example_server::ExampleServer),
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// List what exit codes mean.
    #[command(long_about = exit::CODES)]
    ExitCodes,
}

/// Does what was said.
pub(crate) async fn run(cli: Cli) -> Result<()> {
    let Places { config, data, tenant } = cli.places;
    let overrides = Overrides { config, data, tenant, system: false };
    let settings = || Settings::load(&overrides);
    let far = cli.far;
    if !matches!(
        cli.command,
        Command::Cert(_)
            | Command::Endpoint(_)
            | Command::Task(_)
            | Command::User(_)
            | Command::Token(_)
            | Command::Alert(_)
            | Command::Conf(_)
            | Command::Audit(_)
    ) {
        far.is_not_for(&said())?;
    }
    match cli.command {
        Command::Init(init) => init.run(&overrides).await,
        Command::Demo(demo) => demo.run().await,
        Command::Doctor => doctor::run(&settings()?).await,
        Command::Cert(cert) => cert.run(&far.reach(settings()?)).await,
        Command::Conf(conf) => conf.run(&far.reach(settings()?)).await,
        Command::Identity(command) => command.run(&settings()?),
        Command::Recipient(command) => command.run(&settings()?).await,
        Command::Owner(command) => command.run(&settings()?).await,
        Command::Manager(command) => command.run(&settings()?).await,
        Command::Tenant(command) => command.run(&settings()?).await,
        Command::Stream(command) => command.run(&settings()?).await,
        Command::Serve(serve) => serve.run(&settings()?).await,
        Command::Agent(agent) => agent.run(&settings()?).await,
        Command::Scan(scan) => scan.run().await,
        Command::Endpoint(command) => command.run(&far.reach(settings()?)).await,
        Command::Worker(worker) => worker.run(&settings()?).await,
        Command::Scheduler(scheduler) => scheduler.run(&settings()?).await,
        Command::Task(command) => command.run(&far.reach(settings()?)).await,
        Command::User(command) => command.run(&far.reach(settings()?)).await,
        Command::Token(command) => command.run(&far.reach(settings()?)).await,
        Command::Alert(command) => command.run(&far.reach(settings()?)).await,
        Command::Audit(audit) => audit.run(&far.reach(settings()?)).await,
        Command::ExampleServer(server) => server.run(&settings()?).await,
        Command::Completions { shell } => {
            let mut command = <Cli as clap::CommandFactory>::command();
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut command, "certbus", &mut script);
            output::line(String::from_utf8_lossy(&script).trim_end());
            Ok(())
        }
        Command::ExitCodes => {
            output::line(exit::CODES);
            Ok(())
        }
    }
}

/// The command's word, as it was typed.
fn said() -> String {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let known = <Cli as clap::CommandFactory>::command();
    let word = words.into_iter().find(|word| known.get_subcommands().any(|command| command.get_name() == word));
    format!("certbus {}", word.unwrap_or_default())
}
