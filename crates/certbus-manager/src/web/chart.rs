//! Two small charts, drawn here so that they take the page's colours, light and dark, and say each number to those who cannot
//! see them.

use std::fmt::Write;

use certbus_core::time::Timestamp;
use certbus_store::shown::Counts;

const WIDTH: usize = 560;
const HEIGHT: usize = 150;
const BASE: usize = 124;

/// A bar: how high, which kind, what it says, and what stands below it.
pub(crate) struct Bar {
    pub(crate) count: i64,
    pub(crate) kind: &'static str,
    pub(crate) words: String,
    pub(crate) below: Option<String>,
}

/// Bars side by side, as SVG. It has no script and no style of its own.
pub(crate) fn bars(title: &str, all: &[Bar]) -> String {
    let most = all.iter().map(|bar| bar.count).max().unwrap_or(0).max(1);
    let step = WIDTH as f64 / all.len().max(1) as f64;
    let gap = if all.len() > 30 { 1.0 } else { 4.0 };
    let mut svg = format!(
        "<svg class=\"chart\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">\
         <line class=\"axis\" x1=\"0\" y1=\"{BASE}\" x2=\"{WIDTH}\" y2=\"{BASE}\"/>"
    );
    for (at, bar) in all.iter().enumerate() {
        let x = at as f64 * step;
        // What is there is seen, however few.
        let height = if bar.count == 0 { 0.0 } else { (bar.count as f64 / most as f64 * 100.0).max(2.0) };
        let (left, width, top) = (x + gap / 2.0, step - gap, BASE as f64 - height);
        let _ = write!(
            svg,
            "<g class=\"bar {}\"><title>{}</title><rect class=\"room\" x=\"{x:.1}\" y=\"14\" width=\"{step:.1}\" height=\"110\"/>\
             <rect class=\"value\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"1.5\"/></g>",
            bar.kind, bar.words
        );
        if let Some(below) = &bar.below {
            let (anchor, x) = match at {
                0 if all.len() > 30 => ("start", x),
                at if all.len() > 30 && at + 6 > all.len() => ("end", WIDTH as f64),
                _ => ("middle", x + step / 2.0),
            };
            let _ = write!(svg, "<text x=\"{x:.1}\" y=\"142\" text-anchor=\"{anchor}\">{below}</text>");
        }
        if bar.count > 0 && all.len() <= 30 {
            let middle = x + step / 2.0;
            let _ = write!(
                svg,
                "<text x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                top - 4.0,
                short(bar.count)
            );
        }
    }
    svg.push_str("</svg>");
    svg
}

/// `1,204`, `38k`, `1.2M`.
fn short(count: i64) -> String {
    match count {
        0..10_000 => thousands(count),
        10_000..1_000_000 => format!("{}k", count / 1000),
        _ => format!("{:.1}M", count as f64 / 1e6),
    }
}

/// `4,012`.
pub(crate) fn thousands(count: i64) -> String {
    let digits = count.unsigned_abs().to_string();
    let mut out = String::from(if count < 0 { "-" } else { "" });
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// How many endpoints' certificates have which part of their life left: none, up to a tenth, up to two …
pub(crate) fn tenths(counts: &Counts, now: Timestamp) -> [i64; 11] {
    let today = now.millis() as f64 / 86_400_000.0;
    let mut tenths = [0_i64; 11];
    for (first, last, count) in &counts.lives {
        let life = (last - first).max(1) as f64;
        let left = ((*last as f64 + 1.0 - today) / life).clamp(-1.0, 1.0);
        let at = if left <= 0.0 { 0 } else { (left * 10.0).ceil() as usize };
        if let Some(tenth) = tenths.get_mut(at.min(10)) {
            *tenth += count;
        }
    }
    tenths
}

/// The same, drawn: short-lived ones beside long-lived ones.
pub(crate) fn by_life_left(counts: &Counts, now: Timestamp) -> String {
    let tenths = tenths(counts, now);
    let bars: Vec<Bar> = tenths
        .iter()
        .enumerate()
        .map(|(at, count)| {
            let (below, words) = match at {
                0 => ("over".to_owned(), "expired".to_owned()),
                at => (format!("{}%", at * 10), format!("{} to {} % of life left", (at - 1) * 10, at * 10)),
            };
            // Under a third of its life somebody should have renewed it.
            let kind = match at {
                0 => "bad",
                1..=3 => "warn",
                _ => "good",
            };
            Bar { count: *count, kind, words: format!("{words}: {}", thousands(*count)), below: Some(below) }
        })
        .collect();
    bars_or_nothing("Endpoints by the part of their certificate's life that is left", &bars)
}

/// How many expire on each of the next days.
pub(crate) fn by_day(counts: &Counts, now: Timestamp, days: i64) -> String {
    let found = counts.expiries(now, days);
    let bars: Vec<Bar> = found
        .iter()
        .enumerate()
        .skip(1)
        .map(|(at, count)| {
            let day = now.plus(std::time::Duration::from_secs(86_400 * (at as u64 - 1))).date();
            let kind = if at <= 7 { "warn" } else { "good" };
            let below = ((at - 1) % 15 == 0).then(|| day.get(5..).unwrap_or_default().to_owned());
            Bar { count: *count, kind, words: format!("{day}: {}", thousands(*count)), below }
        })
        .collect();
    bars_or_nothing("Endpoints by the day on which their certificate expires", &bars)
}

fn bars_or_nothing(title: &str, all: &[Bar]) -> String {
    if all.iter().all(|bar| bar.count == 0) { String::new() } else { bars(title, all) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_stands_where_the_rest_of_its_life_puts_it_whatever_its_length() {
        let now = Timestamp::from_millis(20_000 * 86_400_000);
        let counts =
            Counts { lives: vec![(19_990, 20_079, 3), (19_999, 20_004, 4), (19_900, 19_990, 5)], ..Counts::default() };
        let svg = by_life_left(&counts, now);
        assert!(svg.contains("80 to 90 % of life left: 3"), "{svg}");
        assert!(svg.contains("90 to 100 % of life left: 4"), "{svg}");
        assert!(svg.contains("expired: 5"), "{svg}");
        let days = by_day(&counts, now, 90);
        assert!(days.contains(": 4</title>") && days.contains(": 3</title>"), "{days}");
    }

    #[test]
    fn large_numbers_are_said_in_groups() {
        assert_eq!(
            [thousands(0), thousands(999), thousands(4012), thousands(1_234_567)],
            ["0", "999", "4,012", "1,234,567"]
        );
    }
}
