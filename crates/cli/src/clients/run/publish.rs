//! `pub`.

use std::io::{self, BufRead as _, BufReader, Read as _};

use pantala_client::error::{ConnectionError, PublishError};
use pantala_client::{Client, Message, Status};
use pantala_proto::{ProtocolVersion, QoS};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::connect::{connect, message, say_goodbye};
use super::farewell::Farewell;
use super::{Failure, Signals, complain, shown};
use crate::clients::json_lines::JsonMessage;
use crate::clients::plan::{PayloadSource, PublishPlan};

/// Bytes of standard input that are read at once.
const INPUT_BYTES: usize = 64 << 10;
/// Batches of lines that wait to be published; then reading waits.
const BATCHES: usize = 4;
/// Bytes of a batch of lines, from which on it is passed on.
const BATCH_BYTES: usize = 64 << 10;
/// The longest line. Bytes: what MQTT can carry.
const LINE_BYTES_MAX: u64 = 268_435_455;
/// Messages of QoS 1 and 2 that wait for their acknowledgement, beyond those in flight.
const FLYING_MAX: usize = 1_000;

pub(super) async fn run(plan: &PublishPlan) -> Result<(), Failure> {
    // What cannot be read is known before anybody is called.
    let single = single(&plan.payload)?;
    let mut signals = Signals::new()?;
    let farewell = Farewell::default();
    let client = tokio::select! {
        client = connect(&plan.connection, Some(&farewell)) => client?,
        signal = signals.come() => return Err(Failure::interrupted(signal)),
    };
    let mut publisher = Publisher {
        client: &client,
        plan,
        farewell: &farewell,
        flying: JoinSet::new(),
        at_most_once: false,
        first_failure: None,
    };
    let result = tokio::select! {
        result = publish(plan, single, &mut publisher) => result,
        signal = signals.come() => Err(Failure::interrupted(signal)),
    };
    let failure = publisher.first_failure.take();
    // However it ends, it ends with a goodbye: else the broker would publish the Will Message.
    say_goodbye(&client, &plan.connection, &mut signals).await;
    let thrown_out = || {
        let reset = ConnectionError::Network("the broker threw away what it was sent".to_owned());
        Failure::connection(&reset, plan.connection.version)
    };
    let result = result.and_then(|()| if farewell.is_reset() { Err(thrown_out()) } else { Ok(()) });
    match (result, failure) {
        (Ok(()), failure) => failure.map_or(Ok(()), Err),
        (Err(failure), None) => Err(failure),
        (Err(failure), Some(first)) => {
            if !plan.connection.quiet {
                complain(&first.words);
            }
            Err(failure)
        }
    }
}

async fn publish(plan: &PublishPlan, single: Option<Vec<u8>>, publisher: &mut Publisher<'_>) -> Result<(), Failure> {
    match single {
        Some(payload) => {
            for round in 0..plan.repeat {
                if round > 0 && !plan.repeat_delay.is_zero() {
                    tokio::time::sleep(plan.repeat_delay).await;
                }
                for topic_name in &plan.topic_names {
                    let message = message(topic_name, payload.clone(), plan.qos, plan.retain, &plan.properties);
                    publisher.publish(message, plan.qos).await?;
                }
            }
        }
        None => {
            // What was read before a line that is wrong was meant to be published.
            let read = lines(plan, publisher).await;
            let finished = publisher.finish().await;
            return read.and(finished);
        }
    }
    publisher.finish().await
}

/// The payload, where there is one only.
pub(super) fn single(source: &PayloadSource) -> Result<Option<Vec<u8>>, Failure> {
    match source {
        PayloadSource::Given(payload) => Ok(Some(payload.clone())),
        PayloadSource::File(path) => {
            let unread = |error| Failure::other(format!("cannot read {}: {error}", path.display()));
            std::fs::read(path).map(Some).map_err(unread)
        }
        PayloadSource::Stdin => {
            let mut payload = Vec::new();
            let read = io::stdin().lock().read_to_end(&mut payload);
            read.map_err(|error| Failure::other(format!("cannot read standard input: {error}")))?;
            if payload.is_empty() {
                // As with Mosquitto: what should have written it has failed, and a Retained Message would be removed.
                return Err(Failure::other("standard input is empty; -n publishes an empty message"));
            }
            Ok(Some(payload))
        }
        PayloadSource::StdinLines | PayloadSource::StdinJson => Ok(None),
    }
}

/// Lines as they come: read by a thread, since reading blocks.
async fn lines(plan: &PublishPlan, publisher: &mut Publisher<'_>) -> Result<(), Failure> {
    let (sender, mut batches) = mpsc::channel::<io::Result<Vec<Vec<u8>>>>(BATCHES);
    tokio::task::spawn_blocking(move || read_lines(&sender));
    let mut number: u64 = 0;
    while let Some(batch) = batches.recv().await {
        let batch = batch.map_err(|error| Failure::other(format!("cannot read standard input: {error}")))?;
        for line in batch {
            number += 1;
            if plan.payload == PayloadSource::StdinLines {
                for topic_name in &plan.topic_names {
                    // The last topic could have the line itself; a line is short.
                    let message = message(topic_name, line.clone(), plan.qos, plan.retain, &plan.properties);
                    publisher.publish(message, plan.qos).await?;
                }
                continue;
            }
            if line.trim_ascii().is_empty() {
                continue;
            }
            let json = match JsonMessage::parse(&line) {
                Ok(json) => json,
                Err(error) => return Err(Failure::other(format!("standard input, line {number}: {error}"))),
            };
            let qos = json.qos.unwrap_or(plan.qos);
            let properties = json.properties.as_ref().unwrap_or(&plan.properties);
            let own = json.topic_name.as_slice();
            let topic_names = if own.is_empty() { &plan.topic_names } else { own };
            if topic_names.is_empty() {
                let words = "it has no `topic`, and there is no -t";
                return Err(Failure::other(format!("standard input, line {number}: {words}")));
            }
            for topic_name in topic_names {
                let retain = json.retain.unwrap_or(plan.retain);
                let message = message(topic_name, json.payload.clone(), qos, retain, properties);
                publisher.publish(message, qos).await?;
            }
        }
    }
    Ok(())
}

/// Reads standard input to its end, or until nobody listens any more. What is there is passed on before more is waited for.
fn read_lines(sender: &mpsc::Sender<io::Result<Vec<Vec<u8>>>>) {
    let mut input = BufReader::with_capacity(INPUT_BYTES, io::stdin().lock());
    let mut batch = Vec::new();
    let mut bytes = 0;
    loop {
        let mut line = Vec::new();
        match (&mut input).take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
            Ok(0) => break,
            Ok(_) => {
                line.pop_if(|last| *last == b'\n');
                bytes += line.len();
                batch.push(line);
            }
            Err(error) => {
                drop(sender.blocking_send(Err(error)));
                return;
            }
        }
        let more = memchr::memchr(b'\n', input.buffer()).is_some();
        if !more || bytes >= BATCH_BYTES {
            bytes = 0;
            if sender.blocking_send(Ok(std::mem::take(&mut batch))).is_err() {
                return;
            }
        }
    }
    if !batch.is_empty() {
        drop(sender.blocking_send(Ok(batch)));
    }
}

/// Publishes one message after another, and hears of their ends later.
struct Publisher<'a> {
    client: &'a Client,
    plan: &'a PublishPlan,
    farewell: &'a Farewell,
    flying: JoinSet<Result<(), (String, PublishError)>>,
    /// Whether there were messages of QoS 0, which nobody acknowledges.
    at_most_once: bool,
    /// What the status will be.
    first_failure: Option<Failure>,
}

impl Publisher<'_> {
    async fn publish(&mut self, message: Message, qos: QoS) -> Result<(), Failure> {
        if qos == QoS::AtMostOnce {
            self.at_most_once = true;
            self.farewell.sends(message.payload().len());
            let topic_name = message.topic_name().to_owned();
            let published = self.client.publish(message).await;
            return self.done(published.map(|_| ()).map_err(|error| (topic_name, error)));
        }
        let client = self.client.clone();
        self.flying.spawn(async move {
            let topic_name = message.topic_name().to_owned();
            client.publish(message).await.map(|_| ()).map_err(|error| (topic_name, error))
        });
        while let Some(done) = self.flying.try_join_next() {
            self.done(done.unwrap_or(Ok(())))?;
        }
        while self.flying.len() >= FLYING_MAX {
            if let Some(done) = self.flying.join_next().await {
                self.done(done.unwrap_or(Ok(())))?;
            }
        }
        Ok(())
    }

    async fn finish(&mut self) -> Result<(), Failure> {
        while let Some(done) = self.flying.join_next().await {
            self.done(done.unwrap_or(Ok(())))?;
        }
        // Of QoS 0, what waits for a connection that was lost, or for a broker that is slow.
        let out = match self.at_most_once {
            true => self.client.flushed().await.map_err(|error| Failure::connection(&error, self.version())),
            false => self.client.settled().await.map_err(|_| self.ended()),
        };
        match self.client.status() {
            Status::Ended(Some(_)) => Err(self.ended()),
            _ => out,
        }
    }

    fn version(&self) -> ProtocolVersion {
        self.plan.connection.version
    }

    /// A message that was refused does not keep the others; a connection that is over does.
    fn done(&mut self, result: Result<(), (String, PublishError)>) -> Result<(), Failure> {
        match result {
            Ok(()) => Ok(()),
            Err((_, PublishError::Ended)) => Err(self.ended()),
            Err((topic_name, error)) => {
                if !self.plan.connection.quiet && self.first_failure.is_some() {
                    complain(&format!("Warning: {}: {error}", shown(&topic_name)));
                }
                let words = format!("{}: {error}", shown(&topic_name));
                self.first_failure.get_or_insert_with(|| Failure::other(words));
                Ok(())
            }
        }
    }

    fn ended(&self) -> Failure {
        match self.client.status() {
            Status::Ended(Some(error)) => Failure::connection(&error, self.version()),
            _ => Failure::other("the connection is over"),
        }
    }
}
