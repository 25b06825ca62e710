//! `pantala record` and `pantala replay`: messages as lines of JSON, with the times between them.
//!
//! The first line says what the file is; each other line is a message:
//!
//! ```json
//! {"pantala_recording":1}
//! {"ms":0,"topic":"a/b","qos":1,"retain":false,"payload":"21.5","properties":{"content_type":"text/plain"}}
//! ```

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, IsTerminal as _, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use pantala_cli::clients::run::{shown, tell_losses};
use pantala_client::{Client, Message, Overflow, QoS, Received, Status, Subscribe};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::connection::Spoken;

/// The version of the format.
const FORMAT: u32 = 1;
/// Publishes that wait for their acknowledgement at once.
const WINDOW: usize = 100;
/// Messages that were refused and are told one by one; the others are counted.
const REFUSALS_TOLD: u64 = 10;

#[derive(Debug, Args)]
pub struct Record {
    /// Where to write; - is standard output. A file that exists is not overwritten, unless --force says so.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    connection: Spoken,
    /// Topic Filters to subscribe to.
    #[arg(short, long = "topic", value_name = "FILTER", default_value = "#")]
    topics: Vec<String>,
    /// Highest QoS, 0 to 2.
    #[arg(short, long, value_name = "QOS", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
    qos: u8,
    /// End after so many messages.
    #[arg(short = 'C', long, value_name = "N")]
    count: Option<u64>,
    /// End after so many seconds.
    #[arg(short = 'W', long, value_name = "SECONDS")]
    seconds: Option<u64>,
    /// Overwrite a file that exists.
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Args)]
pub struct Replay {
    /// What `pantala record` has written; - is standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    connection: Spoken,
    /// How many times as fast as recorded, or `max` for no waiting at all.
    #[arg(long, value_name = "FACTOR", default_value = "1", value_parser = parse_speed)]
    speed: Speed,
    /// Put this before each Topic Name.
    #[arg(long, value_name = "PREFIX", default_value = "")]
    prefix: String,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Speed {
    Factor(f64),
    Max,
}

fn parse_speed(text: &str) -> Result<Speed, String> {
    if text == "max" {
        return Ok(Speed::Max);
    }
    match text.parse::<f64>() {
        Ok(factor) if factor.is_finite() && factor > 0.0 => Ok(Speed::Factor(factor)),
        _ => Err("a number above 0, or max".to_owned()),
    }
}

/// The first line.
#[derive(Serialize, Deserialize)]
struct Header {
    pantala_recording: u32,
}

/// A message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    /// Milliseconds since the first message.
    ms: u64,
    topic: String,
    qos: u8,
    retain: bool,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    payload: Option<String>,
    /// Where the payload is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    payload_base64: Option<String>,
    #[serde(skip_serializing_if = "PropertiesLine::is_empty", default)]
    properties: PropertiesLine,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PropertiesLine {
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    payload_is_utf8: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_expiry_interval: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_topic: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_data_base64: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    user_properties: Vec<(String, String)>,
}

impl PropertiesLine {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Line {
    fn of(received: &Received, ms: u64) -> Self {
        let properties = received.properties();
        let text = std::str::from_utf8(received.payload()).ok();
        Self {
            ms,
            topic: received.topic_name().to_owned(),
            qos: received.qos() as u8,
            retain: received.retain(),
            payload: text.map(str::to_owned),
            payload_base64: text.is_none().then(|| STANDARD.encode(received.payload())),
            properties: PropertiesLine {
                payload_is_utf8: properties.payload_is_utf8(),
                message_expiry_interval: properties.message_expiry_interval(),
                content_type: properties.content_type().map(str::to_owned),
                response_topic: properties.response_topic().map(str::to_owned),
                correlation_data_base64: properties.correlation_data().map(|data| STANDARD.encode(data)),
                user_properties: properties
                    .user_properties()
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .collect(),
            },
        }
    }

    fn message(&self, prefix: &str) -> Result<Message, String> {
        let payload = match (&self.payload, &self.payload_base64) {
            (Some(text), None) => text.clone().into_bytes(),
            (None, Some(base64)) => STANDARD.decode(base64).map_err(|error| format!("payload_base64: {error}"))?,
            (None, None) => Vec::new(),
            (Some(_), Some(_)) => return Err("payload and payload_base64 are both there".to_owned()),
        };
        let qos = QoS::from_bits(self.qos).ok_or("qos must be 0, 1 or 2")?;
        let mut message = Message::new(format!("{prefix}{}", self.topic), payload).qos(qos);
        if self.retain {
            message = message.retain();
        }
        let properties = &self.properties;
        if properties.payload_is_utf8 {
            message = message.payload_is_utf8();
        }
        if let Some(seconds) = properties.message_expiry_interval {
            message = message.message_expiry_interval(Duration::from_secs(u64::from(seconds)));
        }
        if let Some(content_type) = &properties.content_type {
            message = message.content_type(content_type);
        }
        if let Some(topic) = &properties.response_topic {
            message = message.response_topic(topic);
        }
        if let Some(base64) = &properties.correlation_data_base64 {
            let data = STANDARD.decode(base64).map_err(|error| format!("correlation_data_base64: {error}"))?;
            message = message.correlation_data(&data);
        }
        for (key, value) in &properties.user_properties {
            message = message.user_property(key, value);
        }
        Ok(message)
    }
}

fn is_standard(path: &std::path::Path) -> bool {
    path.as_os_str() == "-"
}

fn run<F: Future<Output = Result<ExitCode, String>>>(work: F) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    match runtime.block_on(work) {
        Ok(code) => code,
        Err(error) => failed(&error),
    }
}

fn failed(error: &dyn std::fmt::Display) -> ExitCode {
    // Nothing can be said about a terminal that is gone.
    drop(writeln!(io::stderr(), "pantala: {error}"));
    ExitCode::FAILURE
}

/// A bar, or a counter where the end is not known, if somebody looks.
fn progress(length: Option<u64>) -> ProgressBar {
    let (bar, template) = match length {
        Some(length) => (ProgressBar::new(length), "{wide_bar} {pos}/{len} messages, {per_sec}, {eta} to go"),
        None => (ProgressBar::no_length(), "{spinner} {pos} messages, {per_sec}"),
    };
    bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(5));
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    if !io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    bar
}

/// `pantala record`.
pub fn record(arguments: &Record) -> ExitCode {
    run(async { record_messages(arguments).await.map(|()| ExitCode::SUCCESS) })
}

async fn record_messages(arguments: &Record) -> Result<(), String> {
    let path = arguments.file.display();
    let exists = || format!("{path} exists; --force overwrites it");
    if !arguments.force && !is_standard(&arguments.file) && arguments.file.exists() {
        return Err(exists());
    }
    let unwritten = |error: io::Error| format!("cannot write {path}: {error}");
    let client = Client::connect(arguments.connection.options()?).await;
    let client = client.map_err(|error| arguments.connection.failure(&error))?;
    let qos = QoS::from_bits(arguments.qos).unwrap_or_default();
    // Nothing else is done with this connection, so the broker may hold what does not fit here.
    let subscribe = Subscribe::default().overflow(Overflow::Wait).acknowledge_by_hand();
    let subscribe = arguments.topics.iter().fold(subscribe, |subscribe, filter| subscribe.filter(filter, qos));
    // Before MQTT 5 only what comes as a Retained Message has the flag.
    let is_v5 = arguments.connection.version().is_v5();
    let subscribe = if is_v5 { subscribe.retain_as_published() } else { subscribe };
    let mut stream = client.subscribe(subscribe).await.map_err(|error| error.to_string())?;
    for (filter, code) in arguments.topics.iter().zip(stream.granted()) {
        if code.is_error() {
            return Err(format!("the broker refused {filter}: {code:?}"));
        }
    }
    // Only now, so that nothing is left behind, or lost, where there is nothing to record.
    let out: Box<dyn Write> = if is_standard(&arguments.file) {
        Box::new(io::stdout())
    } else {
        let mut open = File::options();
        open.write(true);
        if arguments.force {
            open.create(true).truncate(true);
        } else {
            open.create_new(true);
        }
        Box::new(open.open(&arguments.file).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => exists(),
            _ => format!("cannot write {path}: {error}"),
        })?)
    };
    let mut out = BufWriter::new(out);
    write_line(&mut out, &Header { pantala_recording: FORMAT }).map_err(unwritten)?;
    let bar = progress(arguments.count);
    let told = bar.clone();
    tokio::spawn(tell_losses(client.changes(), move |words| {
        told.suspend(|| drop(writeln!(io::stderr(), "pantala: {words}")));
    }));
    let end = arguments.seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let mut first = None;
    let mut count = 0;
    while arguments.count.is_none_or(|maximum| count < maximum) {
        let received = tokio::select! {
            biased;
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            () = sleep_until(end) => break,
            received = stream.recv() => received,
        };
        let mut received = received.map_err(|error| error.to_string())?;
        let now = Instant::now();
        let began = *first.get_or_insert(now);
        let ms = u64::try_from((now - began).as_millis()).unwrap_or(u64::MAX);
        write_line(&mut out, &Line::of(&received, ms)).map_err(unwritten)?;
        if received.qos() != QoS::AtMostOnce {
            // What is acknowledged is out of our hands, and in the file.
            out.flush().map_err(unwritten)?;
        }
        received.acknowledge();
        count += 1;
        bar.inc(1);
    }
    out.flush().map_err(unwritten)?;
    client.disconnect().await;
    bar.finish_and_clear();
    drop(writeln!(io::stderr(), "{count} messages recorded"));
    Ok(())
}

async fn sleep_until(end: Option<Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}

fn write_line(out: &mut impl Write, line: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    out.write_all(b"\n")
}

/// `pantala replay`.
pub fn replay(arguments: &Replay) -> ExitCode {
    run(replay_messages(arguments))
}

async fn replay_messages(arguments: &Replay) -> Result<ExitCode, String> {
    let path = arguments.file.display();
    let unread = |error: io::Error| format!("cannot read {path}: {error}");
    let (input, length): (Box<dyn BufRead>, Option<u64>) = if is_standard(&arguments.file) {
        (Box::new(BufReader::new(io::stdin())), None)
    } else {
        let open = || File::open(&arguments.file);
        // Read twice, so not what can be read once only.
        let is_file = open().and_then(|file| file.metadata()).map_err(unread)?.is_file();
        let length = is_file.then(|| open().and_then(|file| count_lines(BufReader::new(file))).map_err(unread));
        (Box::new(BufReader::new(open().map_err(unread)?)), length.transpose()?.map(|lines| lines.saturating_sub(1)))
    };
    let mut lines = input.lines();
    let header = lines.next().transpose().map_err(unread)?.unwrap_or_default();
    match serde_json::from_str::<Header>(&header) {
        Ok(Header { pantala_recording: FORMAT }) => {}
        Ok(Header { pantala_recording: other }) => {
            return Err(format!("{path} is a recording of format {other}; this program knows format {FORMAT}"));
        }
        Err(_) => {
            return Err(format!("{path} is not a recording: its first line is not {{\"pantala_recording\":{FORMAT}}}"));
        }
    }
    let client = Client::connect(arguments.connection.options()?).await;
    let client = client.map_err(|error| arguments.connection.failure(&error))?;
    let bar = progress(length);
    let told = bar.clone();
    tokio::spawn(tell_losses(client.changes(), move |words| {
        told.suspend(|| drop(writeln!(io::stderr(), "pantala: {words}")));
    }));
    let mut outcome = Outcome::default();
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let result = tokio::select! {
        result = publish_lines(arguments, lines, &client, &bar, &mut outcome) => result,
        _ = interrupt.recv() => Err("SIGINT came before all was published".to_owned()),
        _ = terminate.recv() => Err("SIGTERM came before all was published".to_owned()),
    };
    // However it ends, it ends with a goodbye.
    client.disconnect().await;
    bar.finish_and_clear();
    drop(writeln!(io::stderr(), "{} messages published, {} failed", outcome.published, outcome.failed));
    result?;
    Ok(if outcome.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Publishes the messages, up to a line that is wrong; those before it are waited for all the same.
async fn publish_lines(
    arguments: &Replay,
    lines: impl Iterator<Item = io::Result<String>>,
    client: &Client,
    bar: &ProgressBar,
    outcome: &mut Outcome,
) -> Result<(), String> {
    let began = Instant::now();
    let mut flying = JoinSet::new();
    let mut result = Ok(());
    for (number, line) in lines.enumerate() {
        let (due, topic, message) = match next_message(arguments, began, number, line) {
            Ok(next) => next,
            Err(error) => {
                result = Err(error);
                break;
            }
        };
        if let Some(due) = due {
            tokio::time::sleep_until(due).await;
        }
        if let Status::Ended(Some(error)) = client.status() {
            result = Err(error.to_string());
            break;
        }
        let publisher = client.clone();
        flying.spawn(async move { publisher.publish(message).await.map(|_| ()).map_err(|error| (topic, error)) });
        while flying.len() >= WINDOW {
            outcome.count(flying.join_next().await, bar);
        }
        while let Some(done) = flying.try_join_next() {
            outcome.count(Some(done), bar);
        }
    }
    while let Some(done) = flying.join_next().await {
        outcome.count(Some(done), bar);
    }
    // Of QoS 0, what a slow broker has not taken yet.
    let flushed = client.flushed().await.map_err(|error| error.to_string());
    result.and(flushed)
}

/// When a message is due, its Topic Name in the recording, and the message.
fn next_message(
    arguments: &Replay,
    began: Instant,
    number: usize,
    line: io::Result<String>,
) -> Result<(Option<Instant>, String, Message), String> {
    let path = arguments.file.display();
    let line = line.map_err(|error| format!("cannot read {path}: {error}"))?;
    let wrong = |error: &dyn std::fmt::Display| format!("{path}, line {}: {error}", number + 2);
    let line: Line = serde_json::from_str(&line).map_err(|error| wrong(&error))?;
    let message = line.message(&arguments.prefix).map_err(|error| wrong(&error))?;
    let due = match arguments.speed {
        Speed::Max => None,
        Speed::Factor(factor) => {
            let due = Duration::try_from_secs_f64(line.ms as f64 / 1_000.0 / factor).unwrap_or(Duration::MAX);
            // A recording may be longer than a clock can count.
            Some(began.checked_add(due).ok_or_else(|| wrong(&"its time is too far away"))?)
        }
    };
    Ok((due, line.topic, message))
}

/// Lines to their end; what cannot be read is an error, not another line.
fn count_lines(mut input: impl BufRead) -> io::Result<u64> {
    let (mut lines, mut is_open) = (0, false);
    loop {
        let bytes = input.fill_buf()?;
        let Some(last) = bytes.last() else { return Ok(lines + u64::from(is_open)) };
        lines += memchr::memchr_iter(b'\n', bytes).count() as u64;
        is_open = *last != b'\n';
        let used = bytes.len();
        input.consume(used);
    }
}

#[derive(Default)]
struct Outcome {
    published: u64,
    failed: u64,
}

impl Outcome {
    #[allow(clippy::type_complexity, reason = "what a set of tasks gives")]
    fn count(
        &mut self,
        done: Option<Result<Result<(), (String, pantala_client::error::PublishError)>, tokio::task::JoinError>>,
        bar: &ProgressBar,
    ) {
        match done {
            Some(Ok(Ok(()))) => self.published += 1,
            Some(Ok(Err((topic, error)))) => {
                self.failed += 1;
                if self.failed <= REFUSALS_TOLD {
                    bar.suspend(|| drop(writeln!(io::stderr(), "{}: {error}", shown(&topic))));
                }
            }
            Some(Err(_)) => self.failed += 1,
            None => return,
        }
        bar.inc(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_the_message_it_was() {
        let message = Message::new("a/b", vec![0xff, 0])
            .qos(QoS::ExactlyOnce)
            .retain()
            .message_expiry_interval(Duration::from_secs(9))
            .payload_is_utf8()
            .content_type("x")
            .response_topic("r")
            .correlation_data(&[1, 2])
            .user_property("k", "v")
            .user_property("k", "w");
        let line = r#"{"ms":7,"topic":"b","qos":2,"retain":true,"payload_base64":"/wA=","properties":{"payload_is_utf8":true,
            "message_expiry_interval":9,"content_type":"x","response_topic":"r","correlation_data_base64":"AQI=",
            "user_properties":[["k","v"],["k","w"]]}}"#;
        let line: Line = serde_json::from_str(line).unwrap();
        let again = line.message("a/").unwrap();
        assert_eq!((again.topic_name(), again.payload()), (message.topic_name(), message.payload()));
        let properties = again.properties();
        assert_eq!(properties.iter().count(), 7);
        assert_eq!(properties.correlation_data(), Some(&[1, 2][..]));
        assert_eq!(serde_json::from_str::<Line>(&serde_json::to_string(&line).unwrap()).unwrap(), line);
    }

    #[test]
    fn what_is_no_message_is_named() {
        let cases = [
            (r#"{"ms":0,"topic":"a","qos":3,"retain":false}"#, "qos"),
            (r#"{"ms":0,"topic":"a","qos":0,"retain":false,"payload_base64":"?"}"#, "payload_base64"),
            (r#"{"ms":0,"topic":"a","qos":0,"retain":false,"payload":"","payload_base64":""}"#, "both"),
        ];
        for (line, words) in cases {
            let error = serde_json::from_str::<Line>(line).unwrap().message("").unwrap_err();
            assert!(error.contains(words), "{error}");
        }
        assert!(serde_json::from_str::<Line>(r#"{"ms":0,"topic":"a","qos":0,"retain":false,"x":1}"#).is_err());
    }

    #[test]
    fn speeds() {
        assert_eq!(parse_speed("2.5"), Ok(Speed::Factor(2.5)));
        assert_eq!(parse_speed("max"), Ok(Speed::Max));
        for wrong in ["0", "-1", "NaN", "inf", "fast", ""] {
            assert!(parse_speed(wrong).is_err(), "{wrong}");
        }
    }
}
