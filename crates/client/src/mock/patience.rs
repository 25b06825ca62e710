//! Waiting for the other side, but not for ever, by a clock that no test can stop.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::task::{Poll, Waker};
use std::thread;
use std::time::Duration;

/// How long an expectation waits, if not told otherwise.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// The output of `future`, or None after `patience` of real time.
///
/// Not tokio's clock: a test may have paused that, and then it jumps to the next timer whenever every task waits, even
/// if bytes are on their way.
pub(super) async fn within<F: Future>(patience: Duration, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut alarm = None;
    poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        let alarm = alarm.get_or_insert_with(|| Alarm::set(patience));
        if alarm.rings(cx.waker()) { Poll::Ready(None) } else { Poll::Pending }
    })
    .await
}

/// The value of a lock. A test that panics while it holds one has failed already; the others may go on.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A thread that sleeps until the time is over or nobody waits any more.
struct Alarm {
    state: Arc<Mutex<AlarmState>>,
    /// The thread ends when this is dropped.
    _awaited: mpsc::Sender<()>,
}

#[derive(Default)]
struct AlarmState {
    over: bool,
    waker: Option<Waker>,
}

impl Alarm {
    fn set(patience: Duration) -> Self {
        let state = Arc::new(Mutex::new(AlarmState::default()));
        let (awaited, gone) = mpsc::channel::<()>();
        let of_thread = Arc::clone(&state);
        thread::spawn(move || {
            if gone.recv_timeout(patience) == Err(mpsc::RecvTimeoutError::Timeout) {
                let mut state = lock(&of_thread);
                state.over = true;
                if let Some(waker) = state.waker.take() {
                    waker.wake();
                }
            }
        });
        Self { state, _awaited: awaited }
    }

    fn rings(&self, waker: &Waker) -> bool {
        let mut state = lock(&self.state);
        if !state.over {
            state.waker = Some(waker.clone());
        }
        state.over
    }
}
