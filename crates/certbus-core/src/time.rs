//! Points in time and their one spelling. It never asks what time it is: `now` comes from the edge of the program.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use ::time::format_description::well_known::Rfc3339;
use ::time::{OffsetDateTime, UtcOffset};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A point in time: whole milliseconds since 1970-01-01T00:00:00Z. Spelt `2026-11-22T02:11:55.000Z` (RFC 3339, UTC).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

/// 9999-12-31T23:59:59.999Z.
const LAST: i64 = 253_402_300_799_999;

impl Timestamp {
    /// From milliseconds since the epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// From seconds since the epoch, as certificates carry them.
    pub const fn from_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    /// Milliseconds since the epoch.
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since the epoch, rounded down.
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// This instant moved later, but never past the last one that RFC 3339 can spell (year 9999).
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)).min(LAST))
    }

    /// This instant moved earlier.
    pub fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
    }

    /// How long it is from `earlier` to this instant; zero if `earlier` is not earlier.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Parses RFC 3339, or a plain date `YYYY-MM-DD` (midnight UTC).
    ///
    /// # Errors
    /// A text that says what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let full = if text.len() == 10 { format!("{text}T00:00:00Z") } else { text.to_owned() };
        let parsed = OffsetDateTime::parse(&full, &Rfc3339)
            .map_err(|_| format!("`{text}` is not a time; write 2026-11-22 or 2026-11-22T02:11:55Z"))?;
        Ok(Self((parsed.unix_timestamp_nanos() / 1_000_000) as i64))
    }

    /// How far it is from `now`, as people say it: `in 12 days`, `3 h ago`, `now`. Of what is to come, hours below
    /// ten days; of what is past, below two.
    pub fn away(self, now: Timestamp) -> String {
        let seconds = self.since(now).max(now.since(self)).as_secs();
        let days_from = if self > now { 864_000 } else { 172_800 };
        let words = match seconds {
            0 => return "now".into(),
            1..120 => format!("{seconds} s"),
            120..7200 => format!("{} min", seconds / 60),
            7200.. if seconds < days_from => format!("{} h", seconds / 3600),
            _ => format!("{} days", seconds / 86_400),
        };
        if self > now { format!("in {words}") } else { format!("{words} ago") }
    }

    /// The calendar day in UTC: `2026-11-22`.
    pub fn date(self) -> String {
        self.to_string().chars().take(10).collect()
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(at) = OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000_000) else {
            return write!(f, "{}ms", self.0);
        };
        let at = at.to_offset(UtcOffset::UTC);
        write!(
            f,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
            at.year(),
            u8::from(at.month()),
            at.day(),
            at.hour(),
            at.minute(),
            at.second(),
            at.millisecond()
        )
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Timestamp::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// A length of time as people write it: `48h`, `7d`, `30m` or `10s`. Never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span(Duration);

const UNITS: [(char, u64); 4] = [('d', 86400), ('h', 3600), ('m', 60), ('s', 1)];

impl Span {
    /// Of whole seconds; what is less is dropped.
    pub fn new(duration: Duration) -> Self {
        Self(Duration::from_secs(duration.as_secs()))
    }

    /// As the library knows it.
    pub fn duration(self) -> Duration {
        self.0
    }
}

impl FromStr for Span {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let (unit, seconds) = UNITS.into_iter().find(|(unit, _)| text.ends_with(*unit))?;
            let many: u64 = text.strip_suffix(unit)?.trim().parse().ok().filter(|many| *many > 0)?;
            Some(Self(Duration::from_secs(many.checked_mul(seconds)?)))
        };
        read().ok_or_else(|| format!("`{text}` is no length of time; write 48h, 7d, 30m or 10s"))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.0.as_secs();
        let (unit, seconds) = UNITS.into_iter().find(|(_, seconds)| all.is_multiple_of(*seconds)).unwrap_or(('s', 1));
        write!(f, "{}{unit}", all / seconds)
    }
}

impl TryFrom<String> for Span {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Span> for String {
    fn from(span: Span) -> Self {
        span.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_survives_its_own_spelling() {
        for millis in [0, 1, 999, 1_763_777_515_123, 4_102_444_800_000] {
            let at = Timestamp::from_millis(millis);
            assert_eq!(Timestamp::parse(&at.to_string()), Ok(at));
        }
        assert_eq!(Timestamp::parse("2026-11-22").unwrap().to_string(), "2026-11-22T00:00:00.000Z");
        let last = Timestamp::from_millis(0).plus(Duration::MAX);
        assert_eq!(Timestamp::parse(&last.to_string()), Ok(last));
        assert!(Timestamp::parse("22.11.2026").unwrap_err().contains("2026-11-22"));
    }
}
