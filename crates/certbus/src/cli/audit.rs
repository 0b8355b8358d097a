//! `certbus audit`: the trail of what people and programs changed in the inventory.

use anyhow::Result;
use certbus_manager::clock;
use certbus_store::audit::Actor;
use clap::Args;

use super::output;
use super::reach::Reach;

#[derive(Debug, Args)]
pub(crate) struct Audit {
    /// At most so many lines, the newest
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    limit: i64,
    /// Only lines before this number
    #[arg(long, value_name = "NUMBER")]
    before: Option<i64>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

impl Audit {
    pub(crate) async fn run(self, reach: &Reach) -> Result<()> {
        let lines = reach.inventory().await?.audit(self.before, self.limit).await?;
        let heading = ["number", "when", "who", "from", "what", "of", "detail"];
        output::listing(self.json, &heading, lines, |line| {
            let at = line.at.to_string();
            vec![line.id.to_string(), at, line.actor, line.source, line.action, line.subject, line.detail]
        });
        Ok(())
    }
}

/// Whoever runs this program, as the trail names him.
pub(crate) fn actor() -> Actor {
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::effective()).ok().flatten();
    let name = user.map_or_else(|| nix::unistd::Uid::effective().to_string(), |user| user.name);
    Actor { name, source: "cli".into() }
}

/// The name of this process among all that share an inventory.
pub(super) fn process() -> String {
    let host = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    format!("{host}/{}/{}", std::process::id(), clock::now().millis())
}
