//! Carrying out a plan: what `pub`, `sub` and `rr` do with the network.
//!
//! All three run on one thread. Whatever ends them ends here as a failure in words, with the status that Mosquitto's programs have.

mod connect;
mod farewell;
mod publish;
mod request;
mod subscribe;

pub use connect::tell_losses;

use std::future::Future;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::task::Poll;

use pantala_client::error::ConnectionError;
use pantala_client::{Ended, Received, Subscription};
use pantala_proto::{Delivery, PacketId, ProtocolVersion, PublishProperties, QoS, ReasonCode};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::output::{self, Moment};
use super::prompt::leave_signals_to_others;
use super::{EXIT_FAILURE, EXIT_TIMEOUT, Prepared};

/// What Mosquitto's programs end with when the broker broke the protocol, when it sent DISCONNECT, when the connection was lost, and
/// when it did not answer in time.
const EXIT_PROTOCOL: u8 = 2;
const EXIT_DISCONNECTED: u8 = 4;
const EXIT_CONNECTION_LOST: u8 = 7;
const EXIT_KEEP_ALIVE: u8 = 19;
/// What a shell makes of the end by a signal: this and its number.
const EXIT_SIGNAL: u8 = 128;

/// Carries out what was prepared.
pub fn run(prepared: Prepared) -> ExitCode {
    match prepared {
        Prepared::Text(text) => match io::stdout().write_all(text.as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            // Whoever reads it has seen enough.
            Err(_) => ExitCode::FAILURE,
        },
        Prepared::Publish(plan) => on_one_thread(plan.connection.quiet, publish::run(&plan)),
        Prepared::Subscribe(plan) => on_one_thread(plan.connection.quiet, subscribe::run(&plan)),
        Prepared::Request(plan) => on_one_thread(plan.connection.quiet, request::run(&plan)),
    }
}

fn on_one_thread(quiet: bool, work: impl Future<Output = Result<(), Failure>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => {
            let result = runtime.block_on(work);
            // Whoever still reads standard input is not waited for.
            runtime.shutdown_background();
            result
        }
        Err(error) => Err(Failure::other(error.to_string())),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !quiet {
                complain(&failure.words);
            }
            ExitCode::from(failure.status)
        }
    }
}

/// Says something to the person at standard error.
fn complain(words: &str) {
    // Nothing can be said about a terminal that is gone.
    drop(writeln!(io::stderr(), "{words}"));
}

/// Characters of a name that are shown in a line of text.
const NAME_CHARACTERS_MAX: usize = 200;

/// A name that others have chosen, for a line of text: it moves no cursor, and of one that is long the beginning stands for it.
pub fn shown(name: &str) -> String {
    let mut characters = name.chars();
    let beginning: String = characters.by_ref().take(NAME_CHARACTERS_MAX).collect();
    match characters.next() {
        None => beginning.escape_debug().to_string(),
        Some(_) => format!("{}… ({} bytes)", beginning.escape_debug(), name.len()),
    }
}

/// Why a program ended, in words, with its exit status.
#[derive(Debug)]
struct Failure {
    words: String,
    status: u8,
}

impl Failure {
    fn other(words: impl Into<String>) -> Self {
        Self { words: format!("Error: {}", words.into()), status: EXIT_FAILURE }
    }

    fn timed_out() -> Self {
        Self { words: "Timed out".to_owned(), status: EXIT_TIMEOUT }
    }

    /// A signal came before the work was done.
    fn interrupted(signal: SignalKind) -> Self {
        let number = u8::try_from(signal.as_raw_value()).unwrap_or_default();
        let name = if signal == SignalKind::interrupt() { "SIGINT" } else { "SIGTERM" };
        Self { words: format!("Error: {name} came before all was done"), status: EXIT_SIGNAL.saturating_add(number) }
    }

    /// The status of a refusal is its code, as the version of the protocol has it.
    fn connection(error: &ConnectionError, version: ProtocolVersion) -> Self {
        let status = match error {
            ConnectionError::Refused { refusal, .. } if version.is_v5() => refusal.reason_code as u8,
            ConnectionError::Refused { refusal, .. } => {
                refusal.reason_code.v3_connect_return_code().unwrap_or(EXIT_FAILURE)
            }
            ConnectionError::Closed | ConnectionError::Network(_) => EXIT_CONNECTION_LOST,
            ConnectionError::Disconnected { .. } => EXIT_DISCONNECTED,
            ConnectionError::Protocol(_) | ConnectionError::Malformed(_) => EXIT_PROTOCOL,
            ConnectionError::TimedOut => EXIT_KEEP_ALIVE,
            _ => EXIT_FAILURE,
        };
        let hint = match error {
            ConnectionError::Refused { refusal, .. }
                if version.is_v5() && refusal.reason_code == ReasonCode::UnsupportedProtocolVersion =>
            {
                "; it may know MQTT 3.1.1: -V 311"
            }
            _ => "",
        };
        Self { words: format!("Error: {error}{hint}"), status }
    }
}

/// SIGINT and SIGTERM, which end a program well.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        leave_signals_to_others();
        let listen = |kind| signal(kind).map_err(|error| Failure::other(error.to_string()));
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// Which has come.
    async fn come(&mut self) -> SignalKind {
        tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = self.terminate.recv() => SignalKind::terminate(),
        }
    }
}

/// A message as it is printed.
fn printable(message: &Received, received_at: Moment) -> output::Received<'_> {
    let packet_id = PacketId::new(message.packet_id());
    let dup = message.dup();
    output::Received {
        topic_name: message.topic_name(),
        payload: message.payload(),
        delivery: match (message.qos(), packet_id) {
            (QoS::AtLeastOnce, Some(packet_id)) => Delivery::AtLeastOnce { packet_id, dup },
            (QoS::ExactlyOnce, Some(packet_id)) => Delivery::ExactlyOnce { packet_id, dup },
            _ => Delivery::AtMostOnce,
        },
        retain: message.retain(),
        properties: PublishProperties::new(message.properties().section()).unwrap_or_default(),
        received_at,
    }
}

/// The next message, if there is one already.
async fn ready(stream: &mut Subscription) -> Option<Result<Received, Ended>> {
    std::future::poll_fn(|context| match stream.poll_recv(context) {
        Poll::Ready(received) => Poll::Ready(Some(received)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_long_name_the_beginning_is_shown() {
        assert_eq!(shown("a/\u{1b}"), "a/\\u{1b}");
        assert_eq!(shown(&"é".repeat(NAME_CHARACTERS_MAX)), "é".repeat(NAME_CHARACTERS_MAX));
        let expected = format!("{}… (600 bytes)", "é".repeat(NAME_CHARACTERS_MAX));
        assert_eq!(shown(&"é".repeat(300)), expected);
    }
}
