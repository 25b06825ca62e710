//! Carrying out a plan: what `pub`, `sub` and `rr` do with the network.
//!
//! All three run on one thread. Whatever ends them ends here as a failure in words, with the status that Mosquitto's programs have.

mod connect;
mod publish;
mod request;
mod subscribe;

use std::future::Future;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::task::Poll;

use pantala_client::error::ConnectionError;
use pantala_client::{Ended, Received, Subscription};
use pantala_proto::{Delivery, PacketId, ProtocolVersion, PublishProperties, QoS};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::output::{self, Moment};
use super::{EXIT_FAILURE, EXIT_TIMEOUT, Prepared};

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

    /// The status of a refusal is its code, as the version of the protocol has it.
    fn connection(error: &ConnectionError, version: ProtocolVersion) -> Self {
        let status = match error {
            ConnectionError::Refused { refusal, .. } if version.is_v5() => refusal.reason_code as u8,
            ConnectionError::Refused { refusal, .. } => {
                refusal.reason_code.v3_connect_return_code().unwrap_or(EXIT_FAILURE)
            }
            _ => EXIT_FAILURE,
        };
        Self { words: format!("Error: {error}"), status }
    }
}

/// SIGINT and SIGTERM, which end a program well.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(|error| Failure::other(error.to_string()));
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    async fn come(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
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
