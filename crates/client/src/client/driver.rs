//! The task of a client: moves bytes between the network and the machine, and makes connections anew.

use std::cell::RefCell;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pantala_proto::ReasonCode;
use pantala_session::Instant;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::JoinHandle;
use tokio::time::Sleep;

use super::shared::{Shared, Status};
use super::{BoxedStream, Connector, Reconnect, Redirected};
use crate::error::{ConnectionError, Violation};
use crate::machine::{AuthenticationAnswer, Phase};
use crate::outbox::{OutboxError, Position};

/// Bytes that are read at once, into a buffer that all clients of a thread share.
const READ_BYTES: usize = 64 << 10;
/// Reads and writes of one turn; then others get theirs.
const STEPS_PER_TURN: usize = 32;
/// A buffer above this is given back when there is nothing to write. Bytes.
const OUTPUT_KEPT_BYTES: usize = 1 << 10;
/// While more than so many times `output_bytes_max` wait for a broker that does not read, nothing is read from it either.
const OUTPUT_OVER: usize = 4;
/// A connection that has lasted this long is a success, after which waits begin small again.
const SUCCESS_AFTER: Duration = Duration::from_secs(5);
/// Servers that send us on, one after the other; then it is an error.
const REDIRECTS_MAX: u32 = 5;
/// How long the last bytes and the end of the connection may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

thread_local! {
    static READ_BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

pub(super) struct Driver {
    pub(super) shared: Arc<Shared>,
    connector: Arc<dyn Connector>,
    reconnect: Reconnect,
    follow_redirects: bool,
    clock: Clock,
    /// The answer to an AUTH packet, which may take long.
    authenticating: Option<JoinHandle<AuthenticationAnswer>>,
}

/// Something that the task called has panicked, or its runtime is gone: who waits would wait for ever.
impl Drop for Driver {
    fn drop(&mut self) {
        self.shared.lock().abort();
    }
}

/// Milliseconds since the client began; with an outbox, since 1970, as far as the wall clock knew when the client began.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    beginning: tokio::time::Instant,
    /// What it said then. Milliseconds.
    offset: u64,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self { beginning: tokio::time::Instant::now(), offset: 0 }
    }

    pub(super) fn start_at_wall_time() -> Self {
        let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
        Self { offset: u64::try_from(since.as_millis()).unwrap_or(0), ..Self::start() }
    }

    pub(super) fn now(&self) -> Instant {
        Instant(self.offset).after(self.beginning.elapsed())
    }

    fn at(&self, instant: Instant) -> tokio::time::Instant {
        self.beginning + Duration::from_millis(instant.0.saturating_sub(self.offset))
    }
}

impl Driver {
    pub(super) fn new(
        shared: Arc<Shared>,
        connector: Arc<dyn Connector>,
        reconnect: Reconnect,
        follow_redirects: bool,
        clock: Clock,
    ) -> Self {
        Self { shared, connector, reconnect, follow_redirects, clock, authenticating: None }
    }

    pub(super) async fn run(mut self) {
        // In a row: connections that were none or did not last, and those that were none.
        let (mut failures, mut in_vain) = (0, 0);
        let mut was_connected = false;
        let home = self.connector.clone();
        let mut left_at_home = None;
        let mut redirects = 0;
        loop {
            let began = tokio::time::Instant::now();
            let error = match self.connection().await {
                Ok(()) => break self.end(None).await,
                Err(error) => error,
            };
            if self.shared.lock().stop.is_some() {
                // However the connection went: it was to end.
                break self.end(None).await;
            }
            if let Some(redirected) = self.redirected(&error).filter(|_| redirects < REDIRECTS_MAX) {
                redirects += 1;
                self.connector = redirected.connector;
                let mut state = self.shared.lock();
                if !redirected.same_host {
                    let credentials = state.machine.take_credentials();
                    left_at_home.get_or_insert(credentials);
                }
                state.set_status(Status::Connecting);
                continue;
            }
            // Whatever went wrong elsewhere, we begin at home again.
            redirects = 0;
            self.connector = home.clone();
            if let Some(credentials) = left_at_home.take() {
                self.shared.lock().machine.set_credentials(credentials);
            }
            let connected = matches!(self.shared.lock().status, Status::Connected(_));
            let first = connected && !was_connected;
            was_connected |= connected;
            failures = if connected && began.elapsed() >= SUCCESS_AFTER { 1 } else { failures + 1 };
            in_vain = if connected { 1 } else { in_vain + 1 };
            // Whoever took the Session over would be thrown out by us, and come back, and so on.
            let taken_over = matches!(&error, ConnectionError::Disconnected { refusal, .. }
                if refusal.reason_code == ReasonCode::SessionTakenOver);
            // But a program that was killed just after it had sent CONNECT, and started again, is taken over by itself if the
            // broker reads the older CONNECT last. Nobody is at the other end of that connection.
            let by_ghost = taken_over && first && began.elapsed() < SUCCESS_AFTER;
            let rivals = taken_over && !by_ghost;
            let wanted = was_connected || self.reconnect.retry_first;
            // The next connection would end like this one.
            let unkept = matches!(
                error,
                ConnectionError::Outbox(_)
                    | ConnectionError::Settings(_)
                    | ConnectionError::Protocol(Violation::UnknownSession)
            );
            let lasting = unkept || (self.reconnect.only_passing && error.is_lasting());
            let wait = self.reconnect.wait(failures, in_vain, random()).filter(|_| wanted && !lasting && !rivals);
            let error = Arc::new(error);
            let Some(wait) = wait else { break self.end(Some(error)).await };
            self.shared.lock().set_status(Status::Waiting { error, wait });
            // In a box, as is the end of a connection: a client that is connected needs the room for neither.
            if Box::pin(self.or_stop(tokio::time::sleep(wait))).await.is_none() {
                break self.end(None).await;
            }
            self.shared.lock().set_status(Status::Connecting);
        }
    }

    /// Where the broker sends us, if we are to go there.
    fn redirected(&self, error: &ConnectionError) -> Option<Redirected> {
        let (ConnectionError::Refused { refusal, server_reference }
        | ConnectionError::Disconnected { refusal, server_reference }) = error
        else {
            return None;
        };
        let moved = matches!(refusal.reason_code, ReasonCode::UseAnotherServer | ReasonCode::ServerMoved);
        let reference = server_reference.as_deref().filter(|_| moved && self.follow_redirects)?;
        self.connector.redirected(reference)
    }

    /// The client ends. What was recorded is written first, and the outbox is free afterwards.
    async fn end(&self, error: Option<Arc<ConnectionError>>) {
        {
            let mut state = self.shared.lock();
            if state.outbox.is_none() {
                return state.end(error);
            }
            // The disk may take long, and who waits for the broker waits in vain.
            state.close(error.clone());
        }
        let failure = std::future::poll_fn(|context| match &self.shared.lock().outbox {
            None => Poll::Ready(None),
            Some(outbox) => outbox.poll_finished(context),
        })
        .await;
        let failure = failure.map(|failure| Arc::new(ConnectionError::Outbox(failure)));
        self.shared.lock().end(failure.or(error));
    }

    /// The end of `future`; None if the client is to end before.
    async fn or_stop<F: Future>(&self, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        std::future::poll_fn(|context| {
            let mut state = self.shared.lock();
            if state.stop.is_some() || state.keep().and_then(|_| state.safe(context)).is_err() {
                return Poll::Ready(None);
            }
            state.driver_sleeps(context);
            drop(state);
            future.as_mut().poll(context).map(Some)
        })
        .await
    }

    /// One connection, from its beginning to its end.
    async fn connection(&mut self) -> Result<(), ConnectionError> {
        if let Some(authenticating) = self.authenticating.take() {
            // It has the authenticator, which CONNECT needs.
            if Box::pin(self.or_stop(authenticating)).await.is_none() {
                return Ok(());
            }
        }
        // In a box of its own, since making a connection needs much more memory than having one.
        let connecting = self.connector.clone().connect();
        let Some(connected) = self.or_stop(connecting).await else { return Ok(()) };
        let stream = connected.map_err(|error| ConnectionError::Connect(error.to_string()))?;
        {
            let mut state = self.shared.lock();
            state.ended = None;
            state.now = self.clock.now();
            let now = state.now;
            state.machine.connection_made(now);
        }
        let mut connection = Connection::new(&mut *self, stream);
        let result = std::future::poll_fn(|context| connection.poll(context)).await;
        Box::pin(connection.close()).await;
        let mut state = self.shared.lock();
        state.machine.connection_lost();
        state.cut(result.as_ref().err());
        state.dispatch();
        result
    }
}

fn random() -> u32 {
    // Without randomness all clients wait as long as they may.
    getrandom::u32().unwrap_or(u32::MAX)
}

struct Connection<'d> {
    driver: &'d mut Driver,
    stream: BoxedStream,
    writing: Vec<u8>,
    written: usize,
    /// Bytes of `writing` that wait for nothing: a PINGREQ before what is held back.
    free: usize,
    /// What has to be safe in the outbox before the rest of `writing` goes out.
    follows: Position,
    /// What is.
    safe: Position,
    flushed: bool,
    /// Bytes that were written since the machine was told.
    unreported: usize,
    sleep: Option<Pin<Box<Sleep>>>,
    /// When the last packet must have been written.
    last_call: Option<Instant>,
}

/// What is to be done after a look at the shared state.
struct Look {
    phase: Phase,
    late: bool,
    read: bool,
    deadline: Option<Instant>,
}

impl<'d> Connection<'d> {
    fn new(driver: &'d mut Driver, stream: BoxedStream) -> Self {
        Self {
            driver,
            stream,
            writing: Vec::new(),
            written: 0,
            free: 0,
            follows: 0,
            safe: 0,
            flushed: true,
            unreported: 0,
            sleep: None,
            last_call: None,
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ConnectionError>> {
        for _ in 0..STEPS_PER_TURN {
            let look = match self.look(context) {
                Ok(look) => look,
                Err(failure) => {
                    // What was taken meanwhile follows from records that are not kept.
                    self.forget_output();
                    return Poll::Ready(Err(ConnectionError::Outbox(failure)));
                }
            };
            if self.poll_authentication(context).is_ready() {
                continue;
            }
            let wrote = match self.poll_write(context) {
                Poll::Ready(Err(error)) => return Poll::Ready(Err(self.why(network(&error)))),
                Poll::Ready(Ok(any)) => any,
                Poll::Pending => false,
            };
            let all_out = self.is_all_out();
            if look.phase == Phase::Closing && (all_out || look.late) {
                if !all_out {
                    self.forget_output();
                }
                let mut state = self.driver.shared.lock();
                let stopped = state.stop.is_some();
                let error = state.ended.take();
                drop(state);
                return Poll::Ready(match error {
                    Some(error) => Err(error),
                    None if stopped => Ok(()),
                    None => Err(ConnectionError::Closed),
                });
            }
            let read = match look.read.then(|| self.poll_read(context)) {
                Some(Poll::Ready(Err(error))) => return Poll::Ready(Err(self.why(error))),
                Some(Poll::Ready(Ok(()))) => true,
                Some(Poll::Pending) | None => false,
            };
            if !wrote && !read {
                if self.written == self.writing.len() && self.writing.capacity() > OUTPUT_KEPT_BYTES {
                    (self.writing, self.written, self.free) = (Vec::new(), 0, 0);
                }
                if self.poll_sleep(context, look.deadline).is_pending() {
                    return Poll::Pending;
                }
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    fn forget_output(&mut self) {
        (self.writing, self.written, self.free, self.flushed) = (Vec::new(), 0, 0, true);
    }

    /// Whether packets wait for the outbox, of which nothing has been written.
    fn is_held(&self) -> bool {
        self.safe < self.follows && self.written == self.free && self.free < self.writing.len()
    }

    /// Whether there is nothing left to write; whoever waits for that is told.
    fn is_all_out(&self) -> bool {
        if self.written < self.writing.len() || !self.flushed {
            return false;
        }
        let mut state = self.driver.shared.lock();
        let all_out = state.machine.output_len() == 0;
        state.set_all_out(all_out);
        all_out
    }

    /// The cause that the machine knows comes before the one of the network.
    fn why(&self, error: ConnectionError) -> ConnectionError {
        self.driver.shared.lock().ended.take().unwrap_or(error)
    }

    fn look(&mut self, context: &Context<'_>) -> Result<Look, OutboxError> {
        let now = self.driver.clock.now();
        let mut state = self.driver.shared.lock();
        let state = &mut *state;
        state.driver_sleeps(context);
        state.now = now;
        if self.unreported > 0 {
            state.machine.output_written(now, std::mem::take(&mut self.unreported));
        }
        state.machine.handle_timeout(now);
        if let Some(stop) = &state.stop {
            state.machine.disconnect_with(stop);
        }
        // If what is recorded cannot be kept, what was taken never goes out.
        let mut follows = std::mem::replace(&mut self.follows, Position::MAX);
        let mut fresh = false;
        if self.written == self.writing.len() {
            self.writing.clear();
            (self.written, self.free, follows) = (0, 0, 0);
            if state.machine.take_ping(now, &mut self.writing) {
                self.flushed = false;
                state.set_all_out(false);
            } else if state.machine.output_len() > 0 {
                // CONNECT and AUTH, which are all that there is before CONNACK, follow from no record.
                fresh = state.machine.phase() != Phase::Connecting;
                self.writing = state.machine.swap_output(now, std::mem::take(&mut self.writing));
                self.flushed = false;
                state.set_all_out(false);
            }
        }
        if state.outbox.is_some() {
            // After the output was taken, so that nothing is missing that it follows from.
            let recorded = state.keep()?;
            follows = if fresh { recorded } else { follows };
            self.safe = state.safe(context)?;
        }
        self.follows = follows;
        let held = self.is_held();
        if held {
            let mut ping = Vec::new();
            if state.machine.take_ping(now, &mut ping) {
                // The broker must not take us for dead because our disk is slow.
                self.free = ping.len();
                self.writing.splice(..self.written, ping);
                (self.written, self.flushed) = (0, false);
            }
        }
        if let Some(step) = state.machine.take_authentication() {
            // Not here: the lock is held.
            self.driver.authenticating = Some(tokio::task::spawn_blocking(|| step.run()));
        }
        state.dispatch();
        let paused = state.reading_paused();
        let behind =
            state.machine.output_len() > state.machine.settings().output_bytes_max().saturating_mul(OUTPUT_OVER);
        // Then it is our disk that keeps us from reading.
        state.machine.set_reading_paused(now, paused || (behind && held));
        let phase = state.machine.phase();
        // A broker that does not read would keep us here for ever.
        let last_call = match phase {
            Phase::Closing => Some(*self.last_call.get_or_insert(now.after(CLOSE_TIMEOUT))),
            _ => None,
        };
        Ok(Look {
            phase,
            late: last_call.is_some_and(|last_call| last_call <= now),
            // CONNACK is for nobody's stream.
            read: (!paused || phase == Phase::Connecting) && !behind,
            deadline: last_call.or_else(|| state.machine.deadline()),
        })
    }

    /// Ready when an answer has been worked out, and is in the output.
    fn poll_authentication(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(authenticating) = &mut self.driver.authenticating else { return Poll::Pending };
        let answer = ready!(Pin::new(authenticating).poll(context));
        self.driver.authenticating = None;
        let machine = &mut self.driver.shared.lock().machine;
        match answer {
            Ok(answer) => machine.answer_authentication(answer),
            Err(_) => machine.fail(ConnectionError::Authentication("the authenticator has panicked".to_owned())),
        }
        Poll::Ready(())
    }

    /// Ready with whether anything was written or flushed.
    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<std::io::Result<bool>> {
        let end = if self.safe < self.follows { self.free } else { self.writing.len() };
        let mut any = false;
        while self.written < end {
            match Pin::new(&mut self.stream).poll_write(context, &self.writing[self.written..end]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(bytes)) => {
                    self.written += bytes;
                    self.unreported += bytes;
                    self.flushed = false;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return if any { Poll::Ready(Ok(true)) } else { Poll::Pending },
            }
            any = true;
        }
        if !self.flushed {
            match Pin::new(&mut self.stream).poll_flush(context) {
                Poll::Ready(Ok(())) => self.flushed = true,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {}
            }
        }
        Poll::Ready(Ok(any))
    }

    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ConnectionError>> {
        READ_BUFFER.with_borrow_mut(|buffer| {
            let mut read = ReadBuf::new(buffer);
            match Pin::new(&mut self.stream).poll_read(context, &mut read) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Err(error)) => Poll::Ready(Err(network(&error))),
                Poll::Ready(Ok(())) if read.filled().is_empty() => Poll::Ready(Err(ConnectionError::Closed)),
                Poll::Ready(Ok(())) => {
                    let mut state = self.driver.shared.lock();
                    let now = state.now;
                    state.machine.handle_input(now, read.filled());
                    state.dispatch();
                    Poll::Ready(Ok(()))
                }
            }
        })
    }

    /// Ready when the deadline has come.
    fn poll_sleep(&mut self, context: &mut Context<'_>, deadline: Option<Instant>) -> Poll<()> {
        let Some(deadline) = deadline else { return Poll::Pending };
        let deadline = self.driver.clock.at(deadline);
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        // One that fires too early is set again then; moving it with each packet would cost more.
        if sleep.deadline() > deadline || sleep.is_elapsed() {
            sleep.as_mut().reset(deadline);
        }
        match sleep.as_mut().poll(context) {
            Poll::Ready(()) if tokio::time::Instant::now() < deadline => {
                sleep.as_mut().reset(deadline);
                sleep.as_mut().poll(context)
            }
            poll => poll,
        }
    }

    /// Sends what is left, as far as it goes, and ends the stream.
    async fn close(mut self) {
        if self.safe < self.follows {
            // It must not go out, and goes out again on the next connection.
            self.forget_output();
        }
        let shut_down = std::future::poll_fn(|context| {
            match self.poll_write(context) {
                Poll::Ready(Ok(_)) if self.written == self.writing.len() => {}
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                _ => return Poll::Pending,
            }
            Pin::new(&mut self.stream).poll_shutdown(context).map(|_| ())
        });
        drop(tokio::time::timeout(CLOSE_TIMEOUT, shut_down).await);
    }
}

fn network(error: &std::io::Error) -> ConnectionError {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => ConnectionError::Closed,
        _ => ConnectionError::Network(error.to_string()),
    }
}

/// A stream of bytes in both directions.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}
