//! What things are found by: every label of a name with what follows it, and every word, each by its prefix. One table for
//! all, so that a search reads one index.

use std::collections::BTreeSet;

use certbus_core::certificate::Facts;
use certbus_core::endpoint::USUAL_PORT;
use sqlx::SqliteConnection;

/// Longer tokens are cut: nobody types more.
const LONGEST: usize = 100;

/// Names of a certificate beyond these are not searched for.
const MOST_NAMES: usize = 200;

/// Words of a search beyond these say nothing.
const MOST_WORDS: usize = 16;

/// What a token leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Endpoint,
    Certificate,
}

impl Kind {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Endpoint => "e",
            Self::Certificate => "c",
        }
    }
}

/// The words of a search: each must be the begin of a token. Of `shop.example:443` the port says nothing.
pub fn words(text: &str) -> Vec<String> {
    let usual = USUAL_PORT.to_string();
    let mut words: Vec<String> = split(text).collect();
    if words.len() > 1 {
        words.retain(|word| *word != usual);
    }
    // The longest leads to the fewest.
    words.sort_by_key(|word| std::cmp::Reverse(word.len()));
    words.dedup();
    words.truncate(MOST_WORDS);
    words
}

fn split(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(|c: char| c.is_whitespace() || ",:;=/()\"<>+[]".contains(c)).filter_map(|word| {
        let word = word.trim_matches(['*', '.', '-']).replace('\'', "").to_lowercase();
        (!word.is_empty()).then(|| word.chars().take(LONGEST).collect())
    })
}

/// A word and all that follows each of its dots: `www.shop.example`, `shop.example`, `example`.
fn labels(word: &str) -> impl Iterator<Item = String> + '_ {
    let starts = std::iter::once(0).chain(word.match_indices('.').map(|(at, _)| at + 1));
    starts.filter_map(|at| word.get(at..)).filter(|rest| !rest.is_empty()).map(str::to_owned)
}

/// All tokens of these texts: the usual port, which a name that nobody gave has in it, leads to nothing.
pub(crate) fn tokens<'a>(texts: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    let usual = USUAL_PORT.to_string();
    let words = texts.into_iter().flat_map(split).filter(|word| *word != usual);
    words.flat_map(|word| labels(&word).collect::<Vec<_>>()).collect()
}

/// What a certificate is found by.
pub(crate) fn of_certificate(facts: &Facts) -> BTreeSet<String> {
    let names = facts.names.iter().take(MOST_NAMES).map(String::as_str);
    tokens(names.chain([common_words(&facts.subject), common_words(&facts.issuer)].iter().map(String::as_str)))
}

/// The values of a distinguished name, without what they are values of.
fn common_words(name: &str) -> String {
    name.split(", ").filter_map(|part| part.split_once('=')).map(|(_, value)| value).collect::<Vec<_>>().join(" ")
}

/// Makes the tokens of `id` these.
pub(crate) async fn set(
    write: &mut SqliteConnection,
    kind: Kind,
    id: i64,
    wanted: &BTreeSet<String>,
) -> Result<(), sqlx::Error> {
    let known: Vec<String> = sqlx::query_scalar("SELECT token FROM token WHERE kind = ? AND id = ?")
        .bind(kind.as_str())
        .bind(id)
        .fetch_all(&mut *write)
        .await?;
    let known: BTreeSet<String> = known.into_iter().collect();
    for token in known.difference(wanted) {
        sqlx::query("DELETE FROM token WHERE kind = ? AND token = ? AND id = ?")
            .bind(kind.as_str())
            .bind(token)
            .bind(id)
            .execute(&mut *write)
            .await?;
    }
    let news: Vec<&String> = wanted.difference(&known).collect();
    if !news.is_empty() {
        sqlx::query("INSERT INTO token (kind, token, id) SELECT ?, value, ? FROM json_each(?)")
            .bind(kind.as_str())
            .bind(id)
            .bind(serde_json::to_string(&news).unwrap_or_default())
            .execute(&mut *write)
            .await?;
    }
    Ok(())
}

/// The first text after all that begin with `prefix`.
pub(crate) fn after(prefix: &str) -> String {
    format!("{prefix}\u{10ffff}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_label_of_a_name_and_every_word_is_found_by_its_prefix() {
        let tokens = tokens(["*.www.Shop.example", "CN=R3, O=Let's Encrypt"]);
        for token in ["www.shop.example", "shop.example", "example", "lets", "encrypt", "r3"] {
            assert!(tokens.contains(token), "{token} in {tokens:?}");
        }
        assert_eq!(words("Let's Enc"), ["lets", "enc"]);
        assert_eq!(words("shop.exa*"), ["shop.exa"]);
        assert_eq!(words("shop.example:8443"), ["shop.example", "8443"]);
    }
}
