//! How far something has got, for who waits at a terminal.

use std::io::{IsTerminal as _, Write as _};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

const WIDTH: u64 = 40;
/// What is done before this needs no bar.
const PATIENCE: Duration = Duration::from_millis(500);
const INTERVAL: Duration = Duration::from_millis(100);

/// Does the work; meanwhile, if it takes a while and standard error is a terminal, draws a bar there and takes it away again.
pub(super) fn watch<T>(
    label: &str,
    done: impl Fn() -> u64 + Send,
    total: impl Fn() -> u64 + Send,
    work: impl FnOnce() -> T,
) -> T {
    if !std::io::stderr().is_terminal() {
        return work();
    }
    thread::scope(|scope| {
        // Dropped at the end of the work, by a panic too.
        let (working, ended) = channel::<()>();
        scope.spawn(move || {
            let mut wait = PATIENCE;
            let mut is_drawn = false;
            while ended.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                show(&format!("\r{}\x1b[K", bar(label, done(), total())));
                is_drawn = true;
                wait = INTERVAL;
            }
            if is_drawn {
                show("\r\x1b[K");
            }
        });
        let result = work();
        drop(working);
        result
    })
}

/// A terminal that is gone needs no bar.
fn show(text: &str) {
    let mut terminal = std::io::stderr().lock();
    drop(terminal.write_all(text.as_bytes()).and_then(|()| terminal.flush()));
}

fn bar(label: &str, done: u64, total: u64) -> String {
    let part = |of: u64| (u128::from(done.min(total)) * u128::from(of) / u128::from(total.max(1))) as usize;
    let filled = part(WIDTH);
    format!("{label} [{}{}] {:3} %", "#".repeat(filled), " ".repeat(WIDTH as usize - filled), part(100))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_never_more_than_full() {
        assert!(bar("Reading", 0, 0).ends_with("[                                        ]   0 %"));
        assert!(bar("Reading", 1, 2).ends_with("[####################                    ]  50 %"));
        assert!(bar("Reading", 9, 2).ends_with("[########################################] 100 %"));
        assert!(bar("Reading", u64::MAX, u64::MAX).ends_with("100 %"));
    }

    #[test]
    fn the_work_is_done() {
        assert_eq!(watch("Working", || 0, || 0, || 7), 7);
    }
}
