//! How long a run may take, and a line on standard error that says how far it has come.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::fault::Fault;

/// Between two lines where standard error is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);
/// Between two states of the bar where it is one.
const BAR_INTERVAL: Duration = Duration::from_millis(100);
/// Characters of the bar.
const BAR_WIDTH: u64 = 24;

/// How long a run waits for the broker.
#[derive(Clone, Debug)]
pub struct Patience {
    /// So long without any answer, though one is outstanding, counts as a stall.
    pub stall_after: Duration,
    /// The end of the time that all of it may take.
    until: Option<Instant>,
    progress: Option<Arc<Progress>>,
}

impl From<Duration> for Patience {
    /// With a silence that counts as a stall, and no other bound.
    fn from(stall_after: Duration) -> Self {
        Self { stall_after, until: None, progress: None }
    }
}

impl Patience {
    /// With a bound for everything from now on, of which `progress` tells.
    pub fn new(stall_after: Duration, within: Duration, progress: &Arc<Progress>) -> Self {
        Self { stall_after, until: Some(Instant::now() + within), progress: Some(Arc::clone(progress)) }
    }

    /// A step begins, of so many parts; 0 if that is not known.
    pub fn step(&self, name: &'static str, parts: u64) {
        if let Some(progress) = &self.progress {
            progress.step(name, parts);
        }
    }

    /// So many parts more of the present step are done.
    pub fn advance(&self, parts: u64) {
        if let Some(progress) = &self.progress {
            progress.state().done += parts;
        }
    }

    /// When waiting that begins now has to end: after `timeout`, or else the stall time, but within the bound.
    pub fn deadline(&self, timeout: Option<Duration>) -> Instant {
        let deadline = Instant::now() + timeout.unwrap_or(self.stall_after);
        self.until.map_or(deadline, |until| deadline.min(until))
    }

    /// To be called now and then: tells how far things are, and fails when the time is over.
    pub fn check(&self) -> Result<(), Fault> {
        let Some(until) = self.until else { return Ok(()) };
        let now = Instant::now();
        if let Some(progress) = &self.progress {
            progress.tell(now);
        }
        if now < until {
            return Ok(());
        }
        Err(Fault::OutOfTime { step: self.progress.as_ref().map_or("", |progress| progress.state().name) })
    }
}

/// What is being done, as a bar on a terminal, or as a line every few seconds elsewhere.
#[derive(Debug)]
pub struct Progress {
    title: String,
    /// Standard error is a terminal.
    is_bar: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    name: &'static str,
    parts: u64,
    done: u64,
    begun: Instant,
    told: Instant,
}

impl Progress {
    /// Of what `title` names.
    pub fn new(title: String) -> Arc<Self> {
        let now = Instant::now();
        let state = State { name: "", parts: 0, done: 0, begun: now, told: now };
        Arc::new(Self { title, is_bar: io::stderr().is_terminal(), state: Mutex::new(state) })
    }

    /// Takes the bar away, so that other lines can follow.
    pub fn clear(&self) {
        if self.is_bar {
            eprint!("\r\x1b[K");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn step(&self, name: &'static str, parts: u64) {
        let now = Instant::now();
        let mut state = self.state();
        (state.name, state.parts, state.done, state.begun) = (name, parts, 0, now);
        if self.is_bar {
            self.print(&mut state, now);
        }
    }

    fn tell(&self, now: Instant) {
        let mut state = self.state();
        let interval = if self.is_bar { BAR_INTERVAL } else { LINE_INTERVAL };
        if now.saturating_duration_since(state.told) >= interval {
            self.print(&mut state, now);
        }
    }

    fn print(&self, state: &mut State, now: Instant) {
        state.told = now;
        let line = format!("{}: {}", self.title, state.line(now, self.is_bar));
        // Whoever does not want to read it has closed it.
        let _ = match self.is_bar {
            true => write!(io::stderr(), "\r\x1b[K{line}").and_then(|()| io::stderr().flush()),
            false => writeln!(io::stderr(), "{line}"),
        };
    }
}

impl State {
    fn line(&self, now: Instant, is_bar: bool) -> String {
        let mut line = self.name.to_owned();
        if self.parts > 0 {
            let done = self.done.min(self.parts);
            if is_bar {
                let filled = (done * BAR_WIDTH / self.parts) as usize;
                let _ = write!(line, " [{:<1$}]", "#".repeat(filled), BAR_WIDTH as usize);
            }
            let _ = write!(line, " {done} of {}", self.parts);
        } else if self.done > 0 {
            let _ = write!(line, " {}", self.done);
        }
        let _ = write!(line, ", {} s", now.saturating_duration_since(self.begun).as_secs());
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_is_done_and_how_much_of_it() {
        let begun = Instant::now();
        let now = begun + Duration::from_millis(12_700);
        let state = |parts, done| State { name: "draining", parts, done, begun, told: begun };
        assert_eq!(state(1_000, 250).line(now, false), "draining 250 of 1000, 12 s");
        assert_eq!(state(1_000, 250).line(now, true), "draining [######                  ] 250 of 1000, 12 s");
        assert_eq!(state(1_000, 2_000).line(now, true), "draining [########################] 1000 of 1000, 12 s");
        assert_eq!(state(0, 7).line(now, true), "draining 7, 12 s");
        assert_eq!(state(0, 0).line(now, false), "draining, 12 s");
    }

    #[test]
    fn when_the_time_is_over_the_step_is_named() {
        let progress = Progress::new("D5".to_owned());
        let patience = Patience::new(Duration::from_secs(20), Duration::from_secs(60), &progress);
        patience.step("filling", 10);
        assert_eq!(patience.check(), Ok(()));
        let over = Patience::new(Duration::from_secs(20), Duration::ZERO, &progress);
        assert_eq!(over.check(), Err(Fault::OutOfTime { step: "filling" }));
        assert!(over.deadline(None) <= Instant::now());
    }

    #[test]
    fn without_a_bound_there_is_always_time() {
        let patience = Patience::from(Duration::from_secs(20));
        assert_eq!(patience.check(), Ok(()));
        assert!(patience.deadline(Some(Duration::from_secs(5))) > Instant::now());
    }
}
