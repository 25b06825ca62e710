//! Medians, the table for people, the JSON lines for programs.

use std::fmt::Write;

use serde::Serialize;

use crate::broker::{Kind, Program};
use crate::floor::Floor;
use crate::machine::Machine;
use crate::scenario::{Aim, Figure, Measure};

/// One repetition of one figure with one broker.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Sample {
    /// In the figure's unit.
    pub value: f64,
    /// Part of `value` that was spent in user mode, 0 to 1, where that is known.
    pub user_share: Option<f64>,
    /// Deliveries per second, where there were any.
    pub rate: Option<f64>,
    /// Share of its core the generator used, 0 to 1.
    pub generator_share: Option<f64>,
    /// Share of its core the broker used, 0 to 1.
    pub broker_share: Option<f64>,
}

impl Sample {
    /// A value without a load behind it.
    pub fn plain(value: f64) -> Self {
        Self { value, user_share: None, rate: None, generator_share: None, broker_share: None }
    }
}

/// All repetitions of one figure with one broker.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The figure.
    pub figure: &'static Figure,
    /// The broker.
    pub program: Program,
    /// The repetitions that succeeded.
    pub samples: Vec<Sample>,
    /// Why the others did not. One of them makes the whole invalid.
    pub faults: Vec<String>,
}

/// Above this share of its core the generator, not the broker, sets the pace.
pub const GENERATOR_BOUND_FROM: f64 = 0.9;

impl Outcome {
    /// True when every repetition delivered every message once and in order.
    pub fn is_valid(&self) -> bool {
        self.faults.is_empty() && !self.samples.is_empty()
    }

    /// Median of the values.
    pub fn median(&self) -> Option<f64> {
        median(self.samples.iter().map(|sample| sample.value))
    }

    fn bounds(&self) -> Option<(f64, f64)> {
        let values = || self.samples.iter().map(|sample| sample.value);
        Some((values().min_by(f64::total_cmp)?, values().max_by(f64::total_cmp)?))
    }

    fn generator_share(&self) -> Option<f64> {
        median(self.samples.iter().filter_map(|sample| sample.generator_share))
    }

    fn broker_share(&self) -> Option<f64> {
        median(self.samples.iter().filter_map(|sample| sample.broker_share))
    }

    fn rate(&self) -> Option<f64> {
        median(self.samples.iter().filter_map(|sample| sample.rate))
    }

    fn is_generator_bound(&self) -> bool {
        self.generator_share().is_some_and(|share| share > GENERATOR_BOUND_FROM)
    }

    fn cell(&self) -> String {
        match (self.is_valid(), self.median(), self.bounds()) {
            (false, _, _) => "INVALID".to_owned(),
            (true, Some(median), Some((min, max))) if self.samples.len() > 1 => {
                format!("{} ({}–{})", number(median), number(min), number(max))
            }
            (true, median, _) => median.map(number).unwrap_or_default(),
        }
    }
}

/// What all results of a run have in common.
#[derive(Clone, Debug)]
pub struct Circumstances {
    /// The machine.
    pub machine: Machine,
    /// Its prices.
    pub floor: Floor,
    /// Which core runs what.
    pub pinning: String,
}

/// The result of one figure with one broker as one line of JSON.
pub fn json_line(outcome: &Outcome, circumstances: &Circumstances) -> String {
    #[derive(Serialize)]
    struct Line<'a> {
        tool: &'static str,
        tool_version: &'static str,
        scenario: &'a str,
        title: &'a str,
        unit: &'a str,
        parameters: String,
        broker: &'a str,
        broker_version: &'a str,
        configuration: String,
        valid: bool,
        faults: &'a [String],
        median: Option<f64>,
        min: Option<f64>,
        max: Option<f64>,
        median_rate_per_second: Option<f64>,
        median_generator_share: Option<f64>,
        median_broker_share: Option<f64>,
        throughput_is_the_generators: bool,
        samples: &'a [Sample],
        pinning: &'a str,
        floor: Floor,
        machine: &'a Machine,
    }
    let line = Line {
        tool: env!("CARGO_PKG_NAME"),
        tool_version: env!("CARGO_PKG_VERSION"),
        scenario: outcome.figure.id,
        title: outcome.figure.title,
        unit: outcome.figure.unit,
        parameters: format!("{:?}", outcome.figure.measure),
        broker: outcome.program.name(),
        broker_version: &outcome.program.version,
        configuration: outcome.program.configuration(),
        valid: outcome.is_valid(),
        faults: &outcome.faults,
        median: outcome.median(),
        min: outcome.bounds().map(|(min, _)| min),
        max: outcome.bounds().map(|(_, max)| max),
        median_rate_per_second: outcome.rate(),
        median_generator_share: outcome.generator_share(),
        median_broker_share: outcome.broker_share(),
        throughput_is_the_generators: outcome.is_generator_bound(),
        samples: &outcome.samples,
        pinning: &circumstances.pinning,
        floor: circumstances.floor,
        machine: &circumstances.machine,
    };
    serde_json::to_string(&line).expect("numbers and strings always serialize")
}

/// A Markdown table of all outcomes, with notes below it.
pub fn table(outcomes: &[Outcome], circumstances: &Circumstances) -> String {
    let find = |figure: &Figure, kind| {
        outcomes.iter().find(|outcome| outcome.figure.id == figure.id && outcome.program.kind == kind)
    };
    let mut rows = vec![["id", "figure", "unit", "pantala", "mosquitto", "ratio", "aim"].map(str::to_owned)];
    let mut notes = String::new();
    let mut shown: Vec<&str> = Vec::new();
    for Outcome { figure, .. } in outcomes {
        if shown.contains(&figure.id) {
            continue;
        }
        shown.push(figure.id);
        let pantala = find(figure, Kind::Pantala);
        let mosquitto = find(figure, Kind::Mosquitto);
        let value = |outcome: Option<&Outcome>| outcome.filter(|outcome| outcome.is_valid()).and_then(Outcome::median);
        let (ours, theirs) = (value(pantala), value(mosquitto));
        let aim = match (figure.aim.limit(theirs), ours) {
            (Some(limit), Some(ours)) if ours <= limit => format!("≤ {}: met", number(limit)),
            (Some(limit), Some(_)) => format!("≤ {}: not met", number(limit)),
            (Some(limit), None) => format!("≤ {}", number(limit)),
            (None, _) if figure.aim == Aim::Nothing => String::new(),
            (None, _) => "needs mosquitto".to_owned(),
        };
        rows.push([
            figure.id.to_owned(),
            figure.title.to_owned(),
            figure.unit.to_owned(),
            pantala.map(Outcome::cell).unwrap_or_default(),
            mosquitto.map(Outcome::cell).unwrap_or_default(),
            ours.zip(theirs).map(|(ours, theirs)| number(ours / theirs)).unwrap_or_default(),
            aim,
        ]);
        for outcome in [pantala, mosquitto].into_iter().flatten() {
            note(&mut notes, outcome, circumstances);
        }
    }
    let widths: Vec<usize> = (0..rows[0].len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    let mut table = String::new();
    for (index, row) in rows.iter().enumerate() {
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(table, "| {cell:<width$} ");
        }
        table.push_str("|\n");
        if index == 0 {
            for width in &widths {
                let _ = write!(table, "|{:-<1$}", "", width + 2);
            }
            table.push_str("|\n");
        }
    }
    let Circumstances { machine, floor, pinning } = circumstances;
    let _ = write!(
        table,
        "\nMedian (min–max). Floor of this machine: null system call {} ns, 64-byte TCP write and read in one thread \
         {} µs.\nPinning: {pinning}. Kernel {}, {}, congestion control {}, load before {}.\n",
        number(floor.null_syscall_ns),
        number(floor.tcp_write_read_64_ns / 1000.0),
        machine.kernel,
        machine.cpu,
        machine.congestion_control,
        machine.load_before,
    );
    if !notes.is_empty() {
        table.push('\n');
        table.push_str(&notes);
    }
    table
}

fn note(notes: &mut String, outcome: &Outcome, circumstances: &Circumstances) {
    let name = format!("{} {}", outcome.figure.id, outcome.program.name());
    for fault in &outcome.faults {
        let _ = writeln!(notes, "- {name}: INVALID: {fault}");
    }
    if let Some((rate, share)) = outcome.rate().zip(outcome.generator_share()) {
        let _ =
            write!(notes, "- {name}: {} deliveries/s, generator at {:.0} % of its core", number(rate), share * 100.0);
        if let Some(share) = outcome.broker_share() {
            let _ = write!(notes, ", broker at {:.0} %", share * 100.0);
        }
        if outcome.is_generator_bound() {
            let _ = write!(notes, ", so the throughput is a lower bound; CPU per message stands");
        }
        let user = median(outcome.samples.iter().filter_map(|sample| sample.user_share));
        if let Some(user) = user {
            let _ = write!(notes, "; user share {:.0} %", user * 100.0);
        }
        // One read and one write per message is what the probe does, so only this shape compares to it.
        let one_at_a_time = matches!(&outcome.figure.measure, Measure::CpuPerDelivery { plan } if plan.window == 1);
        if let (true, Some(median)) = (one_at_a_time, outcome.median()) {
            let floor = circumstances.floor.tcp_write_read_64_ns / 1000.0;
            let _ = write!(notes, "; {} × the floor of one write and one read", number(median / floor));
        }
        notes.push_str(".\n");
    }
}

pub(crate) fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

/// Three significant digits or so, thousands apart.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        below if below < 10.0 => format!("{value:.2}"),
        below if below < 100.0 => format!("{value:.1}"),
        _ => {
            let digits = format!("{:.0}", value.abs());
            let mut text = String::from(if value < 0.0 { "-" } else { "" });
            for (index, digit) in digits.chars().enumerate() {
                if index > 0 && (digits.len() - index).is_multiple_of(3) {
                    text.push(' ');
                }
                text.push(digit);
            }
            text
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(id: &str, kind: Kind, values: &[f64], faults: &[&str]) -> Outcome {
        Outcome {
            figure: Figure::find(id).unwrap(),
            program: Program { kind, path: "x".into(), version: "1".into() },
            samples: values
                .iter()
                .map(|&value| Sample { rate: Some(1e6), generator_share: Some(0.95), ..Sample::plain(value) })
                .collect(),
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
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        assert_eq!(median([4.0, 1.0, 3.0, 2.0].into_iter()), Some(2.5));
        assert_eq!(median([9.0, 1.0, 3.0].into_iter()), Some(3.0));
        assert_eq!(median(std::iter::empty()), None);
    }

    #[test]
    fn numbers_are_as_long_as_they_are_worth() {
        assert_eq!([0.344, 56.78, 7091.4, 1_234_567.0].map(number), ["0.34", "56.8", "7 091", "1 234 567"]);
    }

    #[test]
    fn the_aim_of_a_tenth_is_met_at_a_tenth_and_not_above() {
        let mosquitto = outcome("R7", Kind::Mosquitto, &[8.0, 8.0, 9.0], &[]);
        let met = [outcome("R7", Kind::Pantala, &[0.7, 0.8, 0.9], &[]), mosquitto.clone()];
        assert!(table(&met, &circumstances()).contains("≤ 0.80: met"));
        let not_met = [outcome("R7", Kind::Pantala, &[0.7, 0.81, 0.9], &[]), mosquitto];
        assert!(table(&not_met, &circumstances()).contains("≤ 0.80: not met"));
    }

    #[test]
    fn one_fault_hides_the_value_and_shows_the_reason() {
        let outcomes = [outcome("R2", Kind::Pantala, &[5.5, 5.6], &["3 messages of publisher 1 lost"])];
        let text = table(&outcomes, &circumstances());
        assert!(text.contains("| INVALID"), "{text}");
        assert!(text.contains("R2 pantala: INVALID: 3 messages of publisher 1 lost"), "{text}");
        assert!(!text.contains(": met"), "{text}");
        let line: serde_json::Value = serde_json::from_str(&json_line(&outcomes[0], &circumstances())).unwrap();
        assert_eq!(line["valid"], false);
        assert_eq!(line["scenario"], "R2");
    }

    #[test]
    fn a_busy_generator_is_named() {
        let outcomes = [outcome("R2", Kind::Pantala, &[5.5], &[])];
        let text = table(&outcomes, &circumstances());
        assert!(text.contains("lower bound") && text.contains("1.10 × the floor"), "{text}");
    }
}
