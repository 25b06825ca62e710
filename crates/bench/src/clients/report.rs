//! The table for people and the JSON lines for programs.

use std::fmt::Write;

use serde_json::json;

use super::under_test::Library;
use super::{LibraryFigure, Sample};
use crate::report::{Circumstances, median, number};

/// All repetitions of one figure with one library.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub(super) figure: &'static LibraryFigure,
    pub(super) client: Library,
    pub(super) samples: Vec<Sample>,
    /// Why repetitions failed. One of them makes the whole invalid.
    pub(super) faults: Vec<String>,
}

impl Outcome {
    pub(super) fn is_valid(&self) -> bool {
        self.faults.is_empty() && !self.samples.is_empty()
    }

    fn values(&self) -> Vec<f64> {
        self.samples.iter().map(|sample| sample.value).collect()
    }

    fn median(&self) -> Option<f64> {
        median(self.values().into_iter()).filter(|_| self.is_valid())
    }

    fn bounds(&self) -> Option<(f64, f64)> {
        let values = self.values();
        values.iter().copied().min_by(f64::total_cmp).zip(values.iter().copied().max_by(f64::total_cmp))
    }

    /// The user part of the CPU time, 0 to 1.
    fn user_share(&self) -> Option<f64> {
        let share =
            |sample: &Sample| sample.reply.user_seconds / (sample.reply.user_seconds + sample.reply.system_seconds);
        median(self.samples.iter().map(share).filter(|share| share.is_finite()))
    }

    fn version(&self) -> &str {
        self.samples.first().map_or("", |sample| &sample.reply.version)
    }

    fn cell(&self) -> String {
        match (self.median(), self.bounds()) {
            (None, _) => "INVALID".to_owned(),
            (Some(median), Some((min, max))) if self.samples.len() > 1 => {
                format!("{} ({}–{})", number(median), number(min), number(max))
            }
            (Some(median), _) => number(median),
        }
    }

    /// The aim, and whether it is met. There is one only for our own library.
    fn aim(&self) -> String {
        match (self.figure.aim, self.median()) {
            (None, _) => String::new(),
            (Some(limit), Some(median)) if median <= limit => format!("≤ {}: met", number(limit)),
            (Some(limit), Some(_)) => format!("≤ {}: not met", number(limit)),
            (Some(limit), None) => format!("≤ {}", number(limit)),
        }
    }
}

/// A Markdown table, with notes below it.
pub(super) fn table(outcomes: &[Outcome], circumstances: &Circumstances) -> String {
    let mut text = String::from(
        "| id | figure | unit | pantala | rumqttc | paho | pantala/rumqttc | pantala/paho | aim |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    for figure in super::LIBRARY_FIGURES {
        let of = |library| outcomes.iter().find(|it| it.figure.id == figure.id && it.client == library);
        let all = Library::ALL.map(of);
        if all.iter().all(Option::is_none) {
            continue;
        }
        let _ = write!(text, "| {} | {} | {} |", figure.id, figure.title, figure.unit());
        for outcome in all {
            let _ = write!(text, " {} |", outcome.map_or("–".to_owned(), Outcome::cell));
        }
        let [ours, peers @ ..] = all.map(|outcome| outcome.and_then(Outcome::median));
        for peer in peers {
            let ratio = ours.zip(peer).map(|(ours, theirs)| number(ours / theirs));
            let _ = write!(text, " {} |", ratio.unwrap_or_else(|| "–".to_owned()));
        }
        let _ = writeln!(text, " {} |", all[0].map(Outcome::aim).unwrap_or_default());
    }
    let Circumstances { machine, floor, pinning } = circumstances;
    let _ = writeln!(
        text,
        "\nMedian (min–max). The sink is the broker, the library the generator. Pinning: {pinning}. Null system call {} ns. \
         Kernel {}, {}, congestion control {}, load before {}.",
        number(floor.null_syscall_ns),
        machine.kernel,
        machine.cpu,
        machine.congestion_control,
        machine.load_before
    );
    for outcome in outcomes {
        let name = format!("{} {} {}", outcome.figure.id, outcome.client.name(), outcome.version());
        for fault in &outcome.faults {
            let _ = writeln!(text, "- {name}: INVALID: {fault}");
        }
        let share = outcome.user_share().filter(|_| outcome.figure.measure == super::Measure::CpuPerMillion);
        if let Some(share) = share {
            let _ = writeln!(text, "- {name}: user share {:.0} %.", share * 100.0);
        }
    }
    text
}

/// One outcome.
pub(super) fn json_line(outcome: &Outcome, scale: f64, circumstances: &Circumstances) -> String {
    let (warm_up, count) = outcome.figure.counts(scale);
    let bounds = outcome.bounds();
    json!({
        "tool": env!("CARGO_PKG_NAME"),
        "tool_version": env!("CARGO_PKG_VERSION"),
        "scenario": outcome.figure.id,
        "title": outcome.figure.title,
        "unit": outcome.figure.unit(),
        "library": outcome.client.name(),
        "library_version": outcome.version(),
        "payload_bytes": super::PAYLOAD_BYTES,
        "window": super::WINDOW,
        "warm_up": warm_up,
        "count": count,
        "valid": outcome.is_valid(),
        "faults": outcome.faults,
        "median": outcome.median(),
        "min": bounds.map(|(min, _)| min),
        "max": bounds.map(|(_, max)| max),
        "median_user_share": outcome.user_share(),
        "values": outcome.values(),
        "runs": outcome.samples.iter().map(|sample| &sample.reply).collect::<Vec<_>>(),
        "aim": outcome.figure.aim.filter(|_| outcome.client == Library::Pantala),
        "pinning": circumstances.pinning,
        "floor": circumstances.floor,
        "machine": circumstances.machine,
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::super::under_test::Reply;
    use super::*;
    use crate::floor::Floor;
    use crate::machine::Machine;

    fn outcome(library: Library, values: &[f64], faults: &[&str]) -> Outcome {
        Outcome {
            figure: LibraryFigure::find("l1-q0").unwrap(),
            client: library,
            samples: values.iter().map(|&value| Sample { value, reply: Reply::default() }).collect(),
            faults: faults.iter().map(|&fault| fault.to_owned()).collect(),
        }
    }

    fn circumstances() -> Circumstances {
        Circumstances {
            machine: Machine::observe(),
            floor: Floor { null_syscall_ns: 100.0, tcp_write_read_64_ns: 5_000.0 },
            pinning: "none".to_owned(),
        }
    }

    #[test]
    fn libraries_stand_beside_each_other_with_ratio_and_aim() {
        let outcomes =
            [outcome(Library::Pantala, &[0.1, 0.3, 0.2], &[]), outcome(Library::Rumqttc, &[0.4, 0.4, 0.8], &[])];
        let text = table(&outcomes, &circumstances());
        let row = "| 0.20 (0.10–0.30) | 0.40 (0.40–0.80) | – | 0.50 | – | ≤ 0.20: met |";
        assert!(text.contains(row), "{text}");
    }

    #[test]
    fn one_fault_hides_the_value_and_shows_the_reason() {
        let outcomes = [outcome(Library::Pantala, &[0.1], &["3 messages lost"])];
        let text = table(&outcomes, &circumstances());
        assert!(text.contains("| INVALID |") && text.contains("INVALID: 3 messages lost"), "{text}");
        assert!(!text.contains(": met"), "{text}");
        let line: serde_json::Value = serde_json::from_str(&json_line(&outcomes[0], 1.0, &circumstances())).unwrap();
        assert_eq!((&line["valid"], &line["count"]), (&json!(false), &json!(1_000_000)));
    }
}
