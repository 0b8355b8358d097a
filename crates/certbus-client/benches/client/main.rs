//! The figures of the client, each beside its goal: `ci/bench client`. A file for each figure; ratios are of one run,
//! its two sides taking turns.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a measurement: a failure here is a failed measurement"
)]

mod handshakes;
mod lookup;
mod served;
mod start;
mod world;

fn main() {
    let named: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match named.first().map(String::as_str) {
        Some("lookup") => lookup::run(),
        Some("handshakes") => handshakes::run(),
        Some("start") => start::run(),
        Some("served") => served::run(),
        // The other process of a figure that needs two.
        Some("start-child") => start::child(&named[1..]),
        Some("served-writer") => served::writer(&named[1..]),
        // `cargo test --all-targets` comes here too.
        _ => println!("name one: lookup, handshakes, start, served"),
    }
}

/// The middle one.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A figure with its goal, and whether it is met.
fn goal(what: &str, figure: f64, unit: &str, met: bool, goal: &str) {
    let met = if met { "met" } else { "NOT MET" };
    println!("  {what}: {figure:.3}{unit} (goal {goal}): {met}");
}
