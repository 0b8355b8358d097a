//! `certbus endpoint`: what is watched. Registered, listed, shown, edited, removed, imported, exported, polled.

mod import;
mod poll;
mod show;

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use certbus_core::endpoint::{Endpoint, FieldError, Written};
use certbus_core::time::Timestamp;
use certbus_manager::clock;
use certbus_store::endpoints::Stored;
use certbus_store::{Listed, Query, State};
use clap::{Args, Subcommand};

use super::exit::{Missing, Mistake};
use super::output::{self, Columns};
use super::reach::Reach;
use crate::inventory::Inventory;

#[derive(Debug, Subcommand)]
pub(crate) enum EndpointCommand {
    /// Watch servers: [PROTOCOL://]HOST[:PORT], each with all its nodes.
    Add {
        /// What to watch
        #[arg(required = true, value_name = "ENDPOINT")]
        endpoints: Vec<String>,
        #[command(flatten)]
        fields: Fields,
    },
    /// List what is watched.
    Ls(List),
    /// Show all that is known of one: its nodes, what they serve and served, how they failed.
    Show {
        /// Number, name, host or host:port
        endpoint: String,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Change what is said of endpoints.
    Edit {
        /// Number, name, host or host:port
        #[arg(required = true, value_name = "ENDPOINT")]
        endpoints: Vec<String>,
        /// Another host
        #[arg(long)]
        host: Option<String>,
        /// Watch it again after --paused
        #[arg(long, conflicts_with = "paused")]
        active: bool,
        #[command(flatten)]
        fields: Fields,
    },
    /// Watch endpoints no longer, and forget what was seen of them.
    Rm {
        /// Number, name, host or host:port
        #[arg(required = true, value_name = "ENDPOINT")]
        endpoints: Vec<String>,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Register what a file lists: CSV with a heading, lines of `scan --json` or `endpoint export`, or plain targets.
    Import(import::Import),
    /// Print all endpoints, for `endpoint import` of another inventory.
    Export {
        /// CSV rather than one JSON object a line
        #[arg(long)]
        csv: bool,
    },
    /// Ask endpoints for their certificates now, and keep what they show.
    Poll {
        /// Number, name, host or host:port
        #[arg(required_unless_present = "all", value_name = "ENDPOINT")]
        endpoints: Vec<String>,
        /// Every endpoint that is watched from this site
        #[arg(long, conflicts_with = "endpoints")]
        all: bool,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Fields {
    /// What people call it
    #[arg(long)]
    name: Option<String>,
    /// Its port
    #[arg(long)]
    port: Option<String>,
    /// The name in the ClientHello, if it is not the host; "" for the host
    #[arg(long, value_name = "NAME")]
    sni: Option<String>,
    /// What is spoken before TLS: smtp, imap, postgres …; none
    #[arg(long, value_name = "PROTOCOL")]
    starttls: Option<String>,
    /// Words to group by, separated by commas
    #[arg(long, value_name = "WORDS")]
    tags: Option<String>,
    /// Who is to be told
    #[arg(long)]
    owner: Option<String>,
    /// From where it is polled, separated by commas
    #[arg(long, value_name = "WORDS")]
    sites: Option<String>,
    /// How often, such as 10m; "" for as often as usual
    #[arg(long, value_name = "TIME")]
    interval: Option<String>,
    /// Do not poll it
    #[arg(long)]
    paused: bool,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Words: begins of labels or words of host, name, or a certificate's names or issuer
    #[arg(value_name = "WORDS")]
    search: Vec<String>,
    /// Only those that are: expired, older-version, another, overdue, failing, unseen, unmanaged, paused, current, ok
    #[arg(long, value_parser = |text: &str| text.parse::<State>())]
    state: Option<State>,
    /// Only those with this tag
    #[arg(long)]
    tag: Option<String>,
    /// Only those of this owner
    #[arg(long)]
    owner: Option<String>,
    /// Only those polled from this site
    #[arg(long)]
    site: Option<String>,
    /// At most so many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

impl Fields {
    fn written(self) -> Written {
        Written {
            name: self.name,
            port: self.port,
            sni: self.sni,
            starttls: self.starttls,
            tags: self.tags,
            owner: self.owner,
            sites: self.sites,
            interval: self.interval,
            active: self.paused.then(|| "no".to_owned()),
            host: None,
        }
    }
}

impl EndpointCommand {
    pub(crate) async fn run(self, reach: &Reach) -> Result<()> {
        let inventory = &reach.inventory().await?;
        match self {
            Self::Add { endpoints, fields } => add(inventory, &endpoints, fields).await,
            Self::Ls(list) => list.run(inventory).await,
            Self::Show { endpoint, json } => show::run(inventory, &endpoint, json).await,
            Self::Edit { endpoints, host, active, fields } => {
                let active = if active { Some("yes".to_owned()) } else { None };
                let written = fields.written();
                let written = Written { host, active: active.or(written.active.clone()), ..written };
                edit(inventory, &endpoints, &written).await
            }
            Self::Rm { endpoints, yes } => remove(inventory, &endpoints, yes).await,
            Self::Import(import) => import.run(inventory).await,
            Self::Export { csv } => import::export(inventory, csv).await,
            Self::Poll { endpoints, all, json } => poll::run(inventory, &endpoints, all, json).await,
        }
    }
}

/// All that is wrong with what was written for one endpoint, as a mistake of its author.
fn mistake(what: &str, errors: &[FieldError]) -> Mistake {
    let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
    Mistake::new(format!("{what}: {}", all.join("; ")))
}

async fn add(inventory: &Inventory, hosts: &[String], fields: Fields) -> Result<()> {
    if hosts.len() > 1 && fields.name.is_some() {
        bail!(Mistake::new("--name is for one endpoint; give it to each with `endpoint edit`"));
    }
    let written = fields.written();
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for host in hosts {
        let sites = written.sites.clone().or_else(|| Some(inventory.site().to_owned()));
        let written = Written { host: Some(host.clone()), sites, ..written.clone() };
        let endpoint = Endpoint::parse(&written).map_err(|errors| mistake(host, &errors))?;
        if endpoints.iter().any(|other| other.key == endpoint.key) {
            bail!(Mistake::new(format!("{} is named twice", endpoint.key)));
        }
        endpoints.push(endpoint);
    }
    let ids = inventory.add(&endpoints).await?;
    for (endpoint, id) in endpoints.iter().zip(ids) {
        output::done(format!("{} is watched, as number {id}", endpoint.key));
    }
    Ok(())
}

async fn edit(inventory: &Inventory, names: &[String], written: &Written) -> Result<()> {
    if *written == Written::default() {
        bail!(Mistake::new("nothing to change was said; see `certbus endpoint edit --help`"));
    }
    let ids = meant(inventory, names).await?;
    if ids.len() > 1 && (written.host.is_some() || written.name.is_some()) {
        bail!(Mistake::new(format!("--host and --name are for one endpoint, and {} are meant", ids.len())));
    }
    for id in ids {
        let Some(stored) = inventory.endpoint(id).await? else { continue };
        let edited = stored.endpoint.edited(written).map_err(|errors| mistake(&stored.endpoint.name, &errors))?;
        if edited == stored.endpoint {
            output::line(format!("{} is so already", edited.name));
            continue;
        }
        inventory.edit(&stored, &edited).await?;
        output::done(format!("{} is changed", edited.name));
    }
    Ok(())
}

async fn remove(inventory: &Inventory, names: &[String], yes: bool) -> Result<()> {
    let ids = meant(inventory, names).await?;
    let mut meant = Vec::new();
    for id in &ids {
        meant.extend(inventory.endpoint(*id).await?.map(|stored| stored.endpoint.name));
    }
    let question = format!("Forget {} and all that was seen of it?", meant.join(", "));
    if !yes {
        match output::ask(&question) {
            Some(true) => {}
            Some(false) => return Ok(()),
            None => bail!(Mistake::new("nobody is here to confirm; say --yes")),
        }
    }
    inventory.remove(&ids).await?;
    output::done(format!("{} is watched no longer", meant.join(", ")));
    Ok(())
}

/// The endpoints that are meant, each once. Nothing is done if one name means nothing.
async fn meant(inventory: &Inventory, names: &[String]) -> Result<Vec<i64>> {
    let mut ids = BTreeSet::new();
    for name in names {
        ids.extend(inventory.meant(name).await?);
    }
    Ok(ids.into_iter().collect())
}

impl List {
    async fn run(self, inventory: &Inventory) -> Result<()> {
        let now = clock::now();
        let mut query = Query {
            search: self.search.join(" "),
            state: self.state,
            tag: self.tag,
            owner: self.owner,
            site: self.site,
            limit: 500,
            ..Query::default()
        };
        let everything = query == Query { limit: 500, ..Query::default() };
        let mut left = self.limit.map_or(usize::MAX, |limit| limit as usize);
        let mut any = false;
        let mut columns = Columns::new(&["number", "name", "state", "expires", "serves", "issuer", "owner", "tags"]);
        while left > 0 && !output::nobody_reads() {
            query.limit = i64::try_from(left.min(500)).unwrap_or(500);
            let page = inventory.endpoints(&query).await?;
            left -= page.rows.len().min(left);
            any |= !page.rows.is_empty();
            if self.json {
                page.rows.iter().for_each(output::json);
            } else {
                columns.print(page.rows.into_iter().map(|row| cells(row, now)).collect());
            }
            query.after = page.next;
            if query.after.is_none() {
                break;
            }
        }
        if !any && !self.json {
            let hint = if everything { "`certbus endpoint add HOST` watches one" } else { "none is like that" };
            output::remark(format!("no endpoints in {}; {hint}", inventory.place()));
        }
        Ok(())
    }
}

fn cells(row: Listed, now: Timestamp) -> Vec<String> {
    let tags: Vec<&str> = row.stored.endpoint.tags.iter().map(|tag| tag.as_str()).collect();
    vec![
        row.stored.id.to_string(),
        row.stored.endpoint.name.clone(),
        row.state.as_str().to_owned(),
        row.expires_at.map_or_else(|| "-".to_owned(), |at| left(at, now)),
        row.serves.map_or_else(|| "-".to_owned(), |serves| serves.to_string()),
        row.issuer.clone().unwrap_or_else(|| "-".to_owned()),
        row.stored.endpoint.owner.clone(),
        tags.join(" "),
    ]
}

/// How long it is until `at`: days, and hours below ten days.
pub(super) fn left(at: Timestamp, now: Timestamp) -> String {
    let words = |hours: u64| if hours < 240 { format!("{hours} h") } else { format!("{} days", hours / 24) };
    match at > now {
        true => format!("in {}", words(at.since(now).as_secs() / 3600)),
        false => format!("{} ago", words(now.since(at).as_secs() / 3600)),
    }
}

/// One endpoint that is meant; several are a mistake.
async fn one(inventory: &Inventory, text: &str) -> Result<Stored> {
    let ids = inventory.meant(text).await?;
    if let [id] = ids.as_slice() {
        let stored = inventory.endpoint(*id).await?;
        return stored.ok_or_else(|| Missing::new(format!("there is no endpoint `{text}` any more")).into());
    }
    let mut all = Vec::new();
    for id in ids {
        all.extend(inventory.endpoint(id).await?.map(|stored| format!("{id} ({})", stored.endpoint.key)));
    }
    bail!(Mistake::new(format!("`{text}` means several endpoints: {}; give a number", all.join(", "))))
}
