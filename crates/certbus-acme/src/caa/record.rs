//! What a set of CAA records says to one who asks (RFC 8659 section 4, RFC 8657): a pure decision.

use certbus_core::spec::Challenge;

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaaRecord {
    /// Whether who does not know the tag must not issue.
    pub critical: bool,
    /// The tag, in lower case.
    pub tag: String,
    /// The value.
    pub value: String,
}

/// Who asks, and for what.
#[derive(Debug, Clone, Copy)]
pub struct Asking<'a> {
    /// The CA's identities: any of them will do.
    pub identities: &'a [String],
    /// The account's URL.
    pub account: &'a str,
    /// How control will be shown.
    pub challenge: Challenge,
    /// Whether a wildcard is asked for.
    pub wildcard: bool,
}

/// Tags of RFC 8659, RFC 9495 and those that all know by now: no obstacle even if critical.
const KNOWN: [&str; 7] = ["issue", "issuewild", "iodef", "issuemail", "issuevmc", "contactemail", "contactphone"];

/// Why the records at a name forbid it, in the words of the record; None if they do not.
pub fn obstacle(records: &[CaaRecord], asking: &Asking<'_>) -> Option<String> {
    if let Some(unknown) = records.iter().find(|record| record.critical && !KNOWN.contains(&record.tag.as_str())) {
        return Some(format!("`{} \"{}\"` is critical and no CA knows it", unknown.tag, unknown.value));
    }
    let tagged = |tag: &str| records.iter().filter(|record| record.tag == tag).collect::<Vec<_>>();
    let wild = if asking.wildcard { tagged("issuewild") } else { Vec::new() };
    // For a wildcard `issuewild` counts alone where there is one (RFC 8659 section 4.3).
    let counting = if wild.is_empty() { tagged("issue") } else { wild };
    if counting.is_empty() {
        return None;
    }
    let mut closest = None;
    for record in &counting {
        match verdict(&record.value, asking) {
            Verdict::Allows => return None,
            Verdict::Parameter(why) => closest = Some(format!("`{} \"{}\"` {why}", record.tag, record.value)),
            Verdict::Another => {}
        }
    }
    Some(closest.unwrap_or_else(|| {
        let all: Vec<String> = counting.iter().map(|r| format!("`{} \"{}\"`", r.tag, r.value)).collect();
        format!("there is only {}", all.join(", "))
    }))
}

enum Verdict {
    Allows,
    /// The CA is named, and a parameter forbids it.
    Parameter(String),
    Another,
}

fn verdict(value: &str, asking: &Asking<'_>) -> Verdict {
    let mut parts = value.split(';').map(str::trim);
    let issuer = parts.next().unwrap_or_default().trim_end_matches('.');
    if issuer.is_empty() || !asking.identities.iter().any(|identity| identity.eq_ignore_ascii_case(issuer)) {
        return Verdict::Another;
    }
    let mut account = None;
    for part in parts.filter(|part| !part.is_empty()) {
        let Some((name, value)) = part.split_once('=').map(|(name, value)| (name.trim(), value.trim())) else {
            return Verdict::Parameter(format!("has `{part}`, which is no parameter"));
        };
        if name.eq_ignore_ascii_case("accounturi") {
            if account.replace(value).is_some() || value != asking.account {
                return Verdict::Parameter(format!("is for another account than {}", asking.account));
            }
        } else if name.eq_ignore_ascii_case("validationmethods") {
            let mut methods = value.split(',').map(str::trim);
            if !methods.any(|method| method.eq_ignore_ascii_case(asking.challenge.as_str())) {
                return Verdict::Parameter(format!("does not allow {}", asking.challenge));
            }
        }
    }
    Verdict::Allows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(of: &[&str]) -> Vec<CaaRecord> {
        let parse = |text: &&str| {
            let (critical, text) = text.strip_prefix('!').map_or((false, *text), |rest| (true, rest));
            let (tag, value) = text.split_once(' ').unwrap();
            CaaRecord { critical, tag: tag.into(), value: value.into() }
        };
        of.iter().map(parse).collect()
    }

    #[test]
    fn what_the_records_say_is_what_the_rfcs_say() {
        let identities = ["ca.example".to_owned(), "old.ca.example".to_owned()];
        let account = "https://ca.example/acct/1";
        for (of, wildcard, allowed) in [
            (&["issue ca.example"][..], false, true),
            (&["issue CA.Example"], false, true),
            (&["issue old.ca.example"], true, true),
            (&["issue ;"], false, false),
            (&["issue"], false, false),
            (&["issue other.example"], false, false),
            (&["issue other.example", "issue ca.example"], false, true),
            (&["issue ca.example", "issuewild ;"], true, false),
            (&["issue ca.example", "issuewild ;"], false, true),
            (&["issuewild other.example"], false, true),
            (&["issue ;", "issuewild ca.example"], true, true),
            (&["iodef mailto:ca@shop.example"], false, true),
            (&["!tbs Unknown", "issue ca.example"], false, false),
            (&["tbs Unknown", "issue ca.example"], false, true),
            (&["!iodef mailto:a@b"], false, true),
            (&["issue ca.example; accounturi=https://ca.example/acct/1"], false, true),
            (&["issue ca.example; accounturi=https://ca.example/acct/2"], false, false),
            (&["issue ca.example; accounturi=https://ca.example/acct/1; accounturi=x"], false, false),
            (&["issue ca.example; validationmethods=http-01,dns-01"], false, true),
            (&["issue ca.example; validationmethods=http-01"], false, false),
            (
                &["issue ca.example; validationmethods=http-01", "issue ca.example;validationmethods=dns-01"],
                false,
                true,
            ),
            (&["issue ca.example; future=1"], false, true),
            (&["issue ca.example; %%%"], false, false),
        ] {
            let of: Vec<&str> = of.iter().map(|text| if *text == "issue" { "issue " } else { text }).collect();
            let asking = Asking { identities: &identities, account, challenge: Challenge::Dns01, wildcard };
            let why = obstacle(&records(&of), &asking);
            assert_eq!(why.is_none(), allowed, "{of:?} wildcard {wildcard}: {why:?}");
        }
    }
}
