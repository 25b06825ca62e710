//! Tests that fail instead of waiting for ever.

use std::panic::resume_unwind;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use tokio::runtime::Builder;

/// Real time that a test may take: many times what the slowest one needs.
const BOUND: Duration = Duration::from_secs(120);

/// Runs a test on a runtime of one thread. Panics if it has not ended in time.
pub(crate) fn bounded(test: impl AsyncFnOnce() + Send + 'static) {
    run(false, BOUND, test);
}

/// As [`bounded`], with tokio's clock paused: it stands still, or jumps to the next timer when every task waits. The bound is one
/// of real time all the same.
pub(crate) fn bounded_paused(test: impl AsyncFnOnce() + Send + 'static) {
    run(true, BOUND, test);
}

fn run(start_paused: bool, bound: Duration, test: impl AsyncFnOnce() + Send + 'static) {
    let (running, over) = mpsc::channel::<()>();
    let work = move || {
        let _running = running;
        let runtime = Builder::new_current_thread().enable_all().start_paused(start_paused).build().unwrap();
        runtime.block_on(test());
    };
    // Not a timer of the runtime: the test may hold up its thread.
    let name = thread::current().name().unwrap_or_default().to_owned();
    let thread = thread::Builder::new().name(name).spawn(work).unwrap();
    if over.recv_timeout(bound) == Err(RecvTimeoutError::Timeout) {
        panic!("the test has not ended within {bound:?}: something that it waits for does not come");
    }
    if let Err(panic) = thread.join() {
        resume_unwind(panic);
    }
}

/// What would wait for ever fails, also if it holds up its thread or stops tokio's clock; what ends in time is what it is.
#[test]
fn a_test_that_waits_for_ever_fails() {
    let short = Duration::from_millis(50);
    let fails = |test: fn(Duration)| std::panic::catch_unwind(move || test(short)).unwrap_err();
    let words = |panic: Box<dyn std::any::Any + Send>| *panic.downcast::<String>().unwrap();
    for waits in [
        |bound| run(false, bound, async || std::future::pending().await),
        |bound| run(true, bound, async || std::future::pending().await),
        |bound| run(false, bound, async || thread::park()),
    ] as [fn(Duration); 3]
    {
        assert!(words(fails(waits)).contains("has not ended within"));
    }
    let panics: fn(Duration) = |_| run(true, BOUND, async || panic!("{}", "of its own"));
    assert_eq!(words(fails(panics)), "of its own");
    run(true, BOUND, async || tokio::time::sleep(BOUND * 2).await);
}
