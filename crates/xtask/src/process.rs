//! Child processes that do not outlive us, whichever way we end.

use std::collections::BTreeSet;
use std::process::{Child, ExitStatus};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// How often a condition is looked at again while it is waited for.
pub const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Children that run now, by process identifier.
static RUNNING: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// From here on a signal that ends us ends our children first.
pub fn end_children_on_signals() {
    // Without handlers all still works, except that a broker may be left behind when we are interrupted.
    let Ok(mut signals) = Signals::new([SIGHUP, SIGINT, SIGTERM]) else { return };
    thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            for pid in running().iter().filter_map(|&pid| Pid::from_raw(pid)) {
                // It may have ended meanwhile, which is what was wanted.
                let _ = kill_process(pid, Signal::KILL);
            }
            std::process::exit(128 + signal);
        }
    });
}

fn running() -> std::sync::MutexGuard<'static, BTreeSet<i32>> {
    // A panic while holding the lock leaves the set as good as it was.
    RUNNING.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A child that is killed when this is dropped.
pub struct Guarded {
    child: Child,
    pid: i32,
}

impl Guarded {
    /// Takes charge of a child just spawned.
    pub fn new(child: Child) -> Guarded {
        // Process identifiers fit: the system's maximum is 2^22.
        let pid = i32::try_from(child.id()).unwrap_or(0);
        running().insert(pid);
        Guarded { child, pid }
    }

    /// Its process identifier.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The child itself, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Its status if it has ended.
    pub fn status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Asks it to end, by SIGTERM.
    pub fn terminate(&mut self) {
        if let (None, Some(pid)) = (self.status(), Pid::from_raw(self.pid)) {
            // Not reaped, so the identifier is still its own; an error could only be that it has ended.
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    /// Waits for the end; `None` if it does not come before the deadline.
    pub fn wait_until(&mut self, deadline: Instant) -> Option<ExitStatus> {
        loop {
            if let Some(status) = self.status() {
                return Some(status);
            }
            if Instant::now() >= deadline {
                return None;
            }
            thread::sleep(POLL_INTERVAL);
        }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if self.status().is_none() {
            // Both fail only if it is gone already.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        running().remove(&self.pid);
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn sleeper() -> Guarded {
        Guarded::new(Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().expect("sleep runs"))
    }

    fn is_alive(pid: i32) -> bool {
        rustix::process::test_kill_process(Pid::from_raw(pid).expect("not zero")).is_ok()
    }

    #[test]
    fn a_dropped_child_is_gone() {
        let child = sleeper();
        let pid = child.pid;
        assert!(is_alive(pid));
        assert!(running().contains(&pid));
        drop(child);
        assert!(!is_alive(pid));
        assert!(!running().contains(&pid));
    }

    #[test]
    fn a_terminated_child_ends_before_the_deadline() {
        let mut child = sleeper();
        assert_eq!(child.wait_until(Instant::now()), None);
        child.terminate();
        let status = child.wait_until(Instant::now() + Duration::from_secs(10)).expect("ends on SIGTERM");
        assert!(!status.success());
    }
}
