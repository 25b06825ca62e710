//! What a running broker says it has dropped: it writes its counters into its log when SIGUSR1 asks for them, each worker a
//! line. They are those that `$SYS` has, as of this moment rather than of up to some seconds ago.

use std::fs;
use std::path::Path;

use crate::history::Drops;

/// The log of a broker, from a moment on.
#[derive(Debug)]
pub struct Asked<'a> {
    log: &'a Path,
    /// Its length at that moment.
    from: usize,
    workers: usize,
}

impl<'a> Asked<'a> {
    /// Made before the signal. None if the log does not say how many workers there are.
    pub fn new(log: &'a Path) -> Option<Self> {
        let text = fs::read_to_string(log).ok()?;
        Some(Self { log, from: text.len(), workers: workers(&text)? })
    }

    /// The sum over all workers, once each has answered.
    pub fn answer(&self) -> Option<Drops> {
        let text = fs::read_to_string(self.log).ok()?;
        // A line is there when its end is.
        let lines = text.get(self.from..)?.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let answers: Vec<Drops> = lines.filter_map(counted).collect();
        (answers.len() >= self.workers).then(|| answers.into_iter().fold(Drops::default(), sum))
    }
}

/// How many workers the last start has told of.
fn workers(log: &str) -> Option<usize> {
    let start = log.lines().rev().find(|line| line.contains(" starting with "))?;
    start.split_once(" starting with ")?.1.split(' ').next()?.parse().ok()
}

/// What a worker has dropped, if the line is one of those.
fn counted(line: &str) -> Option<Drops> {
    let (_, said) = line.split_once(" Worker ")?;
    let (_, counters) = said.split_once(": connections=")?;
    let mut drops = Drops::default();
    for (name, value) in counters.split_whitespace().filter_map(|word| word.split_once('=')) {
        let Some(reason) = name.strip_prefix("dropped_") else { continue };
        let sum = match reason {
            "expired" => &mut drops.expired,
            "session_ended" => &mut drops.session_ended,
            "store_refused" | "queue_full_refused" => &mut drops.refused,
            _ => &mut drops.other,
        };
        *sum = sum.saturating_add(value.parse().ok()?);
    }
    Some(drops)
}

fn sum(one: Drops, other: Drops) -> Drops {
    Drops {
        expired: one.expired + other.expired,
        session_ended: one.session_ended + other.session_ended,
        refused: one.refused + other.refused,
        other: one.other + other.other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_from_the_log() {
        let start = "2026-01-01T00:00:00.000Z: Pantala 0.1.0 starting with 2 workers.\n";
        assert_eq!(workers(&format!("{start}x\n{}y\n", start.replace('2', "3"))), Some(3));
        assert_eq!(workers("x\n"), None);
        let line = "2026-01-01T00:00:00.000Z: Worker 1: connections=3 sessions=9 bytes_sent=7 dropped_expired=2 \
                    dropped_store_refused=3 dropped_queue_full_refused=1 dropped_outgoing_full=5 dropped_anew=1\n";
        assert_eq!(counted(line), Some(Drops { expired: 2, session_ended: 0, refused: 4, other: 6 }));
        assert_eq!(
            counted("2026-01-01T00:00:00.000Z: Worker 1: sessions=9 filter_entries=3, of which 2 follow.\n"),
            None
        );
    }

    #[test]
    fn an_answer_has_all_workers() {
        let folder = std::env::temp_dir().join(format!("pantala-crashlab-drops-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let log = folder.join("broker.log");
        let said =
            "t: Pantala 0.1.0 starting with 2 workers.\nt: Worker 0: connections=0 sessions=0 dropped_expired=9\n";
        fs::write(&log, said).unwrap();
        let asked = Asked::new(&log).unwrap();
        let mut after = said.to_owned();
        for (more, expected) in [
            ("t: Worker 0: connections=0 sessions=0 dropped_expired=1\n", None),
            ("t: Worker 1: connections=0 sessions=0 dropped_exp", None),
            ("ired=2\n", Some(Drops { expired: 3, ..Drops::default() })),
        ] {
            after.push_str(more);
            fs::write(&log, &after).unwrap();
            assert_eq!(asked.answer(), expected);
        }
        fs::remove_dir_all(&folder).unwrap();
    }
}
