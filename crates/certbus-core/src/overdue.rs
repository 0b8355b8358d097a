//! When somebody should have renewed what is merely seen: no plan of its owner is known, only a life and a habit.

use std::time::Duration;

use crate::polling::SHORT_LIFE;
use crate::time::Timestamp;

/// How many of the last replacements make a habit.
pub const HABIT: usize = 5;

/// From when on a certificate is overdue: later than the endpoint's own past replacements came, by a tenth of the life that
/// is left then; without such a habit when less than a third of its life is left, or half of a life under 10 days.
///
/// `habit`: the parts of their lives after which certificates were replaced there, the last [`HABIT`] of them. Once is no
/// habit, and one that came after the end is none to go by.
pub fn overdue_from(not_before: Timestamp, not_after: Timestamp, habit: &[f64]) -> Timestamp {
    let life = not_after.since(not_before);
    let in_time = || habit.iter().copied().filter(|part| (0.0..1.0).contains(part));
    let latest = in_time().reduce(f64::max).filter(|_| in_time().count() >= 2);
    match latest {
        Some(part) => {
            let point = not_before.plus(life.mul_f64(part));
            point.plus(not_after.since(point) / 10)
        }
        None if life < SHORT_LIFE => not_before.plus(life / 2),
        None => not_before.plus(life.mul_f64(2.0 / 3.0)),
    }
}

/// The part of its life that a certificate had lived when another came at `at`. None: it had no life.
pub fn part_lived(not_before: Timestamp, not_after: Timestamp, at: Timestamp) -> Option<f64> {
    let life = not_after.since(not_before);
    (life > Duration::ZERO).then(|| at.since(not_before).as_secs_f64() / life.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(start: Timestamp, days: f64) -> Timestamp {
        start.plus(Duration::from_secs_f64(days * 86_400.0))
    }

    #[test]
    fn invariant_6_overdue_is_a_part_of_life_or_a_habit_and_never_a_number_of_days() {
        let start = Timestamp::parse("2026-01-01").unwrap();
        let overdue = |days: f64, habit: &[f64]| {
            overdue_from(start, after(start, days), habit).since(start).as_secs_f64() / 86_400.0
        };
        assert!((overdue(90.0, &[]) - 60.0).abs() < 0.01);
        assert!((overdue(6.0, &[]) - 3.0).abs() < 0.01);
        assert!((overdue(90.0, &[0.5, 0.5]) - (45.0 + 4.5)).abs() < 0.01, "renewed early by habit: noticed early");
        assert!((overdue(90.0, &[0.01]) - 60.0).abs() < 0.01, "once is no habit");
        assert!((overdue(90.0, &[0.5, 0.8, 0.7]) - (72.0 + 1.8)).abs() < 0.01, "the latest of them counts");
        assert!((overdue(90.0, &[1.4, 1.2]) - 60.0).abs() < 0.01, "a lapse is no habit");
        assert!((overdue(90.0, &[1.4, 0.6, 0.5]) - (54.0 + 3.6)).abs() < 0.01);
    }

    #[test]
    fn the_part_lived_is_of_its_own_life() {
        let start = Timestamp::parse("2026-01-01").unwrap();
        assert_eq!(part_lived(start, after(start, 90.0), after(start, 45.0)), Some(0.5));
        assert_eq!(part_lived(start, start, after(start, 45.0)), None);
    }
}
