//! `sub`.

use std::collections::VecDeque;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::pin::pin;
use std::time::{Duration, SystemTime};

use pantala_client::error::PublishError;
use pantala_client::machine::{Published, SubscribeRequest, UnsubscribeRequest};
use pantala_client::{Client, Message, Overflow, Received, Status, Subscribe, Subscription};
use pantala_proto::{QoS, SubscriptionOptions};
use tokio::task::{JoinError, JoinSet};
use tokio::time::MissedTickBehavior;

use super::connect::while_connected;
use super::{Failure, complain, printable, ready, shown};
use crate::clients::decision::Decider;
use crate::clients::output::{Folder, LocalTime, Moment, NotWritten, Printer, ROWS_MIN, Watch};
use crate::clients::plan::SubscribePlan;

/// Printed bytes from which on they are written, though more messages are there.
const OUTPUT_BYTES: usize = 64 << 10;
/// QoS 0 messages that wait to be printed; then the broker's wait.
const BUFFER_MESSAGES: usize = 4_000;
/// Retained Messages that are being cleared at once.
const CLEARING_MAX: usize = 1_000;
/// Bytes of Topic Names whose Retained Messages wait to be cleared. Those beyond are left, and a warning says so.
const CLEARING_BYTES_MAX: usize = 64 << 20;

pub(super) async fn run(plan: &SubscribePlan) -> Result<(), Failure> {
    while_connected(&plan.connection, plan.timeout, async |client| take(client, plan).await).await
}

/// Everything that comes, whatever it comes for: a Session may have subscriptions of before.
pub(super) fn everything(client: &Client) -> Subscription {
    let how = Subscribe::default().buffer(BUFFER_MESSAGES).overflow(Overflow::Wait).acknowledge_by_hand();
    client.unclaimed_with(&how)
}

pub(super) fn random() -> u64 {
    // Chance is good enough by the clock, too.
    getrandom::u64().unwrap_or_else(|_| {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        since.subsec_nanos().into()
    })
}

async fn take(client: &Client, plan: &SubscribePlan) -> Result<(), Failure> {
    let screen = Screen::new(plan)?;
    // SUBSCRIBE first, and UNSUBSCRIBE without waiting for its answer, as Mosquitto's does.
    let asking = async {
        let (subscribed, ()) = tokio::join!(biased; subscribe(client, plan), unsubscribe(client, plan));
        subscribed
    };
    if plan.exit_after_subscribe || plan.filters.is_empty() {
        return asking.await;
    }
    let stream = everything(client);
    let taking = async {
        if plan.message_rate {
            count_rate(stream, client, plan).await
        } else {
            print_all(stream, screen, client, plan).await
        }
    };
    // Both at once: messages may come before SUBACK, and reading would wait for somebody to take them.
    tokio::try_join!(biased; asking, taking).map(|_| ())
}

async fn subscribe(client: &Client, plan: &SubscribePlan) -> Result<(), Failure> {
    if !plan.filters.is_empty() {
        let options = SubscriptionOptions {
            qos: plan.qos,
            no_local: false,
            retain_as_published: plan.retain_as_published,
            retain_handling: plan.retain_handling,
        };
        let request = SubscribeRequest {
            filters: plan.filters.iter().map(|filter| (filter.clone(), options)).collect(),
            identifier: plan.subscribe_properties.subscription_identifier,
            user_properties: plan.subscribe_properties.user_properties.clone(),
        };
        let answer = client.subscribe_only(request).await.map_err(|error| ended(client, plan, &error))?;
        for (filter, code) in plan.filters.iter().zip(&answer.reason_codes) {
            if code.is_error() && !plan.connection.quiet {
                let code = *code as u8;
                complain(&format!("Warning: the broker refused {} (0x{code:02x})", shown(filter)));
            }
        }
    }
    Ok(())
}

/// Each filter in a packet of its own, as Mosquitto's does.
async fn unsubscribe(client: &Client, plan: &SubscribePlan) {
    let mut answers = JoinSet::new();
    for filter in &plan.unsubscribe {
        let client = client.clone();
        let user_properties = plan.unsubscribe_properties.clone();
        let request = UnsubscribeRequest { filters: vec![filter.clone()], user_properties };
        answers.spawn(async move { client.unsubscribe_with(request).await });
    }
    while let Some(answer) = answers.join_next().await {
        if let Ok(Err(error)) = answer
            && !plan.connection.quiet
        {
            complain(&format!("Warning: {error}"));
        }
    }
}

fn ended(client: &Client, plan: &SubscribePlan, error: &dyn std::fmt::Display) -> Failure {
    match client.status() {
        Status::Ended(Some(error)) => Failure::connection(&error, plan.connection.version),
        _ => Failure::other(error.to_string()),
    }
}

/// Where messages are printed.
struct Screen {
    printer: Printer,
    watch: Option<Watch>,
    buffer: Vec<u8>,
    line: Vec<u8>,
    /// In place of all that.
    folder: Option<Folder>,
    /// It was said that there are files enough.
    is_full: bool,
    quiet: bool,
}

impl Screen {
    fn new(plan: &SubscribePlan) -> Result<Self, Failure> {
        let open = |path: &PathBuf| {
            let cannot = |error| Failure::other(format!("--output-dir {}: {error}", path.display()));
            Folder::open(path, std::process::id()).map_err(cannot)
        };
        let folder = plan.output_folder.as_ref().map(open).transpose()?;
        let stdout = io::stdout();
        let mut printer = plan.output.printer(stdout.is_terminal(), LocalTime::system());
        let watch = plan.watch.then(|| {
            printer.escaping = crate::clients::output::Escaping::OneLine;
            let rows = rustix::termios::tcgetwinsize(&stdout).map_or(24, |size| usize::from(size.ws_row));
            Watch::new(rows.max(ROWS_MIN))
        });
        let (buffer, line) = (Vec::with_capacity(OUTPUT_BYTES), Vec::new());
        Ok(Self { printer, watch, buffer, line, folder, is_full: false, quiet: plan.connection.quiet })
    }

    fn show(&mut self, message: &Received, at: Moment) -> Result<(), Failure> {
        let Some(folder) = &mut self.folder else {
            self.print(message, at);
            return Ok(());
        };
        match folder.write(message.topic_name(), message.payload()) {
            Ok(()) => Ok(()),
            Err(error @ NotWritten::System(..)) => Err(Failure::other(format!("--output-dir: {error}"))),
            Err(error) => {
                // Whoever publishes decides how many topics there are, but not how much is complained.
                let said = matches!(error, NotWritten::Full) && std::mem::replace(&mut self.is_full, true);
                if !self.quiet && !said {
                    let topic_name = shown(message.topic_name());
                    complain(&format!("Warning: {error} (topic {topic_name})"));
                }
                Ok(())
            }
        }
    }

    fn print(&mut self, message: &Received, at: Moment) {
        let printable = printable(message, at);
        let printed = match &mut self.watch {
            None => self.printer.print(&printable, &mut self.buffer),
            Some(watch) => {
                self.line.clear();
                let printed = self.printer.print(&printable, &mut self.line);
                watch.show(message.topic_name(), &self.line, &mut self.buffer);
                printed
            }
        };
        if let Err(error) = printed
            && !self.quiet
        {
            complain(&format!("Error: {error} (topic {})", shown(message.topic_name())));
        }
    }

    /// False if nobody reads any more.
    fn write(&mut self) -> Result<bool, Failure> {
        let mut out = io::stdout().lock();
        let written = out.write_all(&self.buffer).and_then(|()| out.flush());
        self.buffer.clear();
        is_read(written)
    }
}

/// However it ends, by a signal too, the terminal is left as it was found.
impl Drop for Screen {
    fn drop(&mut self) {
        if let Some(watch) = &mut self.watch {
            watch.end(&mut self.buffer);
            // A terminal that is gone needs no putting back.
            drop(self.write());
        }
    }
}

/// Whether somebody reads what was written: `sub | head` ends when it has seen enough, a disk that is full is a failure.
pub(super) fn is_read(written: io::Result<()>) -> Result<bool, Failure> {
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::other(format!("cannot write standard output: {error}"))),
    }
}

async fn print_all(
    mut stream: Subscription,
    mut screen: Screen,
    client: &Client,
    plan: &SubscribePlan,
) -> Result<(), Failure> {
    let mut decider = Decider::new(plan.wanted.clone(), random());
    let mut clearing = Clearing::new(client, plan);
    let mut cleared = Vec::new();
    let mut printed: Vec<Received> = Vec::new();
    let mut end = false;
    while !end {
        let mut next = Some(clearing.during(stream.recv()).await?);
        let now = Moment::from(SystemTime::now());
        while let Some(received) = next.take() {
            let message = match received {
                Ok(message) => message,
                Err(error) => {
                    screen.write()?;
                    return Err(ended(client, plan, &error));
                }
            };
            let decision = decider.decide(message.topic_name(), message.retain());
            if decision.clear {
                cleared.push(message.topic_name().to_owned());
            }
            if decision.print {
                screen.show(&message, now)?;
            }
            if message.qos() != QoS::AtMostOnce {
                printed.push(message);
            }
            end = decision.end;
            if !end && screen.buffer.len() < OUTPUT_BYTES {
                next = ready(&mut stream).await;
            }
        }
        if !screen.write()? {
            // As when a reader has seen enough: `sub | head`.
            break;
        }
        // Only what has been written is acknowledged.
        for mut message in printed.drain(..) {
            message.acknowledge();
        }
        cleared.drain(..).for_each(|topic_name| clearing.add(topic_name));
    }
    // Nobody takes any more, and what still comes is not to keep the acknowledgements back.
    drop(stream);
    clearing.finish().await
}

/// Clears Retained Messages, while others are taken: a broker sends its acknowledgements behind the messages that it had sent
/// before, so whoever takes these must never wait for one.
struct Clearing<'a> {
    client: &'a Client,
    plan: &'a SubscribePlan,
    backlog: Backlog,
    flying: JoinSet<Result<Published, PublishError>>,
    /// It was said that some are left.
    is_full: bool,
}

impl<'a> Clearing<'a> {
    fn new(client: &'a Client, plan: &'a SubscribePlan) -> Self {
        Self { client, plan, backlog: Backlog::default(), flying: JoinSet::new(), is_full: false }
    }

    /// Has the Retained Message of this Topic Name cleared.
    fn add(&mut self, topic_name: String) {
        if !self.backlog.push(topic_name, CLEARING_BYTES_MAX)
            && !std::mem::replace(&mut self.is_full, true)
            && !self.plan.connection.quiet
        {
            complain("Warning: more Retained Messages come than can be cleared at once; the next run clears others");
        }
        self.launch();
    }

    fn launch(&mut self) {
        while self.flying.len() < CLEARING_MAX
            && let Some(topic_name) = self.backlog.pop()
        {
            let client = self.client.clone();
            let message = Message::new(topic_name, "").qos(QoS::AtLeastOnce).retain();
            self.flying.spawn(async move { client.publish(message).await });
        }
    }

    /// Waits for `work`, and goes on with its own.
    async fn during<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Failure> {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                Some(done) = self.flying.join_next() => self.done(done)?,
                output = &mut work => return Ok(output),
            }
        }
    }

    async fn finish(&mut self) -> Result<(), Failure> {
        while let Some(done) = self.flying.join_next().await {
            self.done(done)?;
        }
        Ok(())
    }

    fn done(&mut self, done: Result<Result<Published, PublishError>, JoinError>) -> Result<(), Failure> {
        if let Ok(Err(error)) = done {
            return Err(ended(self.client, self.plan, &error));
        }
        self.launch();
        Ok(())
    }
}

/// Topic Names that wait, up to so many bytes.
#[derive(Default)]
struct Backlog {
    topic_names: VecDeque<String>,
    bytes: usize,
}

impl Backlog {
    /// False if it is full.
    fn push(&mut self, topic_name: String, bytes_max: usize) -> bool {
        let bytes = self.bytes + topic_name.len();
        if bytes > bytes_max {
            return false;
        }
        self.bytes = bytes;
        self.topic_names.push_back(topic_name);
        true
    }

    fn pop(&mut self) -> Option<String> {
        let topic_name = self.topic_names.pop_front()?;
        self.bytes -= topic_name.len();
        Some(topic_name)
    }
}

/// Prints how many messages came in each second.
async fn count_rate(mut stream: Subscription, client: &Client, plan: &SubscribePlan) -> Result<(), Failure> {
    let mut decider = Decider::new(plan.wanted.clone(), random());
    let mut clearing = Clearing::new(client, plan);
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    seconds.tick().await;
    let mut count: u64 = 0;
    loop {
        tokio::select! {
            biased;
            _ = seconds.tick() => {
                if !is_read(writeln!(io::stdout(), "{count}"))? {
                    return Ok(());
                }
                count = 0;
            }
            received = clearing.during(stream.recv()) => {
                let mut message = received?.map_err(|error| ended(client, plan, &error))?;
                let decision = decider.decide(message.topic_name(), message.retain());
                count += u64::from(decision.print);
                message.acknowledge();
                if decision.clear {
                    clearing.add(message.topic_name().to_owned());
                }
                if decision.end {
                    drop(stream);
                    return clearing.finish().await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backlog_is_bounded_by_its_bytes() {
        let mut backlog = Backlog::default();
        assert!(backlog.push("four".to_owned(), 8) && backlog.push("more".to_owned(), 8));
        assert!(!backlog.push("x".to_owned(), 8));
        assert_eq!(backlog.pop().as_deref(), Some("four"));
        assert!(backlog.push("x".to_owned(), 8));
        assert_eq!((backlog.pop().as_deref(), backlog.pop().as_deref()), (Some("more"), Some("x")));
        assert_eq!((backlog.pop(), backlog.bytes), (None, 0));
    }
}
