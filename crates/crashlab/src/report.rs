//! What a run has shown: a table for people, JSON for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::checker::{Class, Promise, Violation};
use crate::fault::FaultKind;

/// Violations that are told in full; the others are counted.
const TOLD_MAX: usize = 5;

/// How often progress is said where there is no terminal.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

const BAR_WIDTH: usize = 30;

/// What one cycle had.
#[derive(Clone, Copy, Debug)]
pub struct CycleResult {
    /// Its fault.
    pub fault: FaultKind,
    /// Messages that the broker took over.
    pub accepted: usize,
    /// Deliveries, repetitions included.
    pub delivered: usize,
}

/// A violation, with where it belongs.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The fault of the cycle that it is booked to.
    pub fault: FaultKind,
    /// That cycle.
    pub cycle: u32,
    /// The first cycle of its stretch, from where it can be repeated.
    pub stretch: u32,
    /// Client Identifier of whom it concerns.
    pub client: Option<String>,
    /// The events around it.
    pub events: Vec<String>,
    /// What it is.
    pub violation: Violation,
}

/// Sums for one kind of fault.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// Cycles.
    pub cycles: usize,
    /// Cycles in which a promise was broken.
    pub cycles_broken: usize,
    /// Messages that the broker took over.
    pub accepted: usize,
    /// Deliveries.
    pub delivered: usize,
    /// Violations by class, in the order of the columns.
    pub lost: usize,
    /// See [`Class`].
    pub duplicated: usize,
    /// See [`Class`].
    pub reordered: usize,
    /// See [`Class`].
    pub resurrected: usize,
    /// All of them by promise.
    pub promises: BTreeMap<Promise, usize>,
    /// Those of no class.
    pub other: usize,
}

/// What a run has shown.
#[derive(Debug, Default)]
pub struct Report {
    /// By kind of fault.
    pub rows: BTreeMap<FaultKind, Row>,
    /// Kinds that could not be made, and why.
    pub skipped: Vec<(FaultKind, String)>,
    /// The first violations.
    pub told: Vec<Finding>,
    /// How many there were.
    pub violations: usize,
    /// Data directories that were kept.
    pub kept: Vec<PathBuf>,
    /// The run was ended before all cycles were done.
    pub interrupted: bool,
}

impl Report {
    /// Adds a cycle.
    pub fn add(&mut self, result: CycleResult, findings: Vec<Finding>) {
        let row = self.rows.entry(result.fault).or_default();
        row.cycles += 1;
        row.accepted += result.accepted;
        row.delivered += result.delivered;
        row.cycles_broken += usize::from(!findings.is_empty());
        self.violations += findings.len();
        for finding in findings {
            let row = self.rows.entry(finding.fault).or_default();
            match finding.violation.class {
                Class::Lost => row.lost += 1,
                Class::Duplicated => row.duplicated += 1,
                Class::Reordered => row.reordered += 1,
                Class::Resurrected => row.resurrected += 1,
                Class::Other => row.other += 1,
            }
            *row.promises.entry(finding.violation.promise).or_default() += 1;
            // One of each promise says more than many of the first.
            let seen = self.told.iter().filter(|told| told.violation.promise == finding.violation.promise).count();
            if seen == 0 || (seen < 2 && self.told.len() < TOLD_MAX) {
                self.told.push(finding);
            }
        }
    }

    /// Cycles done.
    pub fn cycles(&self) -> usize {
        self.rows.values().map(|row| row.cycles).sum()
    }

    /// The table, and what was found.
    pub fn text(&self, seed: u64) -> String {
        let mut text = String::new();
        let head = ["fault", "cycles", "broken", "accepted", "delivered", "lost", "duplicated", "reordered"];
        for (place, name) in head.iter().enumerate() {
            // Writing to a String does not fail.
            let _ = if place == 0 { write!(text, "{name:<7}") } else { write!(text, " {name:>10}") };
        }
        let _ = writeln!(text, " {:>11} {:>6}  by promise", "resurrected", "other");
        for (kind, row) in &self.rows {
            let _ = write!(text, "{:<7}", kind.to_string());
            for count in
                [row.cycles, row.cycles_broken, row.accepted, row.delivered, row.lost, row.duplicated, row.reordered]
            {
                let _ = write!(text, " {count:>10}");
            }
            let promises: Vec<String> =
                row.promises.iter().map(|(promise, count)| format!("{promise} {count}")).collect();
            let promises = if promises.is_empty() { "–".into() } else { promises.join(", ") };
            let _ = writeln!(text, " {:>11} {:>6}  {promises}", row.resurrected, row.other);
        }
        for (kind, why) in &self.skipped {
            let _ = writeln!(text, "{:<7} skipped: {why}", kind.to_string());
        }
        for finding in &self.told {
            let violation = &finding.violation;
            let client = finding.client.as_deref().unwrap_or("the broker");
            let _ = writeln!(
                text,
                "\n{} broken at {client}: {} (seed {seed}, cycle {}, {}; repeat with --first-cycle {})",
                violation.promise, violation.what, finding.cycle, finding.fault, finding.stretch
            );
            for line in &finding.events {
                let _ = writeln!(text, "    {line}");
            }
        }
        if self.violations > self.told.len() {
            let _ = writeln!(text, "\n{} violations in all", self.violations);
        }
        for path in &self.kept {
            let _ = writeln!(text, "kept: {}", path.display());
        }
        text
    }

    /// The same as JSON.
    pub fn json(&self, run: Value) -> Value {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|(kind, row)| {
                json!({
                    "fault": kind, "cycles": row.cycles, "cycles_broken": row.cycles_broken,
                    "accepted": row.accepted, "delivered": row.delivered, "lost": row.lost,
                    "duplicated": row.duplicated, "reordered": row.reordered, "resurrected": row.resurrected,
                    "other": row.other,
                    "promises": row.promises.iter().map(|(p, n)| (p.to_string(), json!(n))).collect::<serde_json::Map<_, _>>(),
                })
            })
            .collect();
        let told: Vec<Value> = self
            .told
            .iter()
            .map(|finding| {
                json!({
                    "promise": finding.violation.promise, "class": finding.violation.class,
                    "what": finding.violation.what, "client": finding.client, "cycle": finding.cycle,
                    "stretch": finding.stretch, "fault": finding.fault, "events": finding.events,
                })
            })
            .collect();
        let skipped: Vec<Value> =
            self.skipped.iter().map(|(kind, why)| json!({"fault": kind, "reason": why})).collect();
        json!({
            "run": run, "rows": rows, "skipped": skipped, "violations": self.violations, "examples": told,
            "kept": self.kept, "interrupted": self.interrupted,
        })
    }
}

/// One line on standard error that says how far the run is.
pub struct Progress {
    cycles: u32,
    began: Instant,
    said: Instant,
    is_terminal: bool,
}

impl Progress {
    /// For so many cycles.
    pub fn new(cycles: u32) -> Self {
        let now = Instant::now();
        Self { cycles, began: now, said: now, is_terminal: std::io::stderr().is_terminal() }
    }

    /// Says it, if it is time to.
    pub fn show(&mut self, report: &Report) {
        let done = report.cycles();
        if !self.is_terminal && self.said.elapsed() < PROGRESS_INTERVAL && done < self.cycles as usize {
            return;
        }
        self.said = Instant::now();
        let total = (self.cycles as usize).max(1);
        let accepted: usize = report.rows.values().map(|row| row.accepted).sum();
        let elapsed = self.began.elapsed();
        let rest = elapsed.mul_f64((total - done.min(total)) as f64 / done.max(1) as f64);
        let line = format!(
            "{done}/{total} cycles, {accepted} accepted, {} violations, {} s, {} s to go",
            report.violations,
            elapsed.as_secs(),
            rest.as_secs()
        );
        if self.is_terminal {
            let filled = BAR_WIDTH * done.min(total) / total;
            eprint!("\r[{}{}] {line}\x1b[K", "#".repeat(filled), " ".repeat(BAR_WIDTH - filled));
            drop(std::io::stderr().flush());
        } else {
            eprintln!("{line}");
        }
    }

    /// Leaves the line.
    pub fn end(&self) {
        if self.is_terminal {
            eprintln!();
        }
    }
}
