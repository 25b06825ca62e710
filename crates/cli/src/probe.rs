//! `pantala probe`: what a broker supports, and how it behaves, by trying it out.

use std::io::{self, Write as _};
use std::num::NonZeroU16;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use pantala_cli::clients::run::shown;
use pantala_client::machine::Connected;
use pantala_client::{
    BoxedStream, Client, Connector, Message, Options, ProtocolVersion, QoS, Reconnect, Subscribe, Subscription,
};
use serde::Serialize;

use crate::connection::Connection;

/// How long is waited for what may not come.
const WAIT: Duration = Duration::from_millis(700);
/// The longest that may be waited for an answer.
const PATIENCE_MAX: Duration = Duration::from_secs(3_600);

#[derive(Debug, Args)]
pub struct Probe {
    #[command(flatten)]
    connection: Connection,
    /// Write JSON instead of a table.
    #[arg(long)]
    json: bool,
    /// How long is waited for each acknowledgement and each message that has to come, in seconds, up to 3600; then it is "no answer".
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = parse_patience)]
    answer_timeout: Duration,
}

fn parse_patience(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let wanted = "a number of seconds above 0, up to 3600";
    seconds.filter(|seconds| !seconds.is_zero() && *seconds <= PATIENCE_MAX).ok_or_else(|| wanted.to_owned())
}

/// What was found out.
#[derive(Debug, Serialize)]
struct Finding {
    /// What was asked.
    question: &'static str,
    /// What came out.
    answer: String,
}

#[derive(Debug, Serialize)]
struct Report {
    broker: String,
    findings: Vec<Finding>,
}

impl Report {
    fn add(&mut self, question: &'static str, answer: impl Into<String>) {
        self.findings.push(Finding { question, answer: answer.into() });
    }

    fn add_or_error(&mut self, question: &'static str, answer: Result<String, String>) {
        self.add(question, answer.unwrap_or_else(|error| format!("? ({error})")));
    }
}

/// `pantala probe`.
pub fn run(arguments: &Probe) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.to_string()),
    };
    let prober = Prober { connection: &arguments.connection, base: base(), patience: arguments.answer_timeout };
    let report = match runtime.block_on(prober.probe()) {
        Ok(report) => report,
        Err(error) => return failed(&error),
    };
    let text = if arguments.json { json(&report) } else { table(&report) };
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn failed(error: &str) -> ExitCode {
    // Nothing can be said about a terminal that is gone.
    drop(writeln!(io::stderr(), "pantala: {error}"));
    ExitCode::FAILURE
}

fn json(report: &Report) -> String {
    serde_json::to_string_pretty(report).unwrap_or_default() + "\n"
}

fn table(report: &Report) -> String {
    let width = report.findings.iter().map(|finding| finding.question.len()).max().unwrap_or_default();
    let mut text = format!("{}\n\n", report.broker);
    for Finding { question, answer } in &report.findings {
        // What a broker says is not to move the cursor.
        text += &format!("{question:width$}  {}\n", shown(answer));
    }
    text
}

/// A place for our topics that nobody else has.
fn base() -> String {
    let mut random = [0; 8];
    // Without randomness the process keeps it apart well enough.
    let _ = getrandom::fill(&mut random);
    format!("pantala/probe/{}-{:016x}", std::process::id(), u64::from_le_bytes(random))
}

struct Prober<'a> {
    connection: &'a Connection,
    base: String,
    /// How long is waited for what has to come.
    patience: Duration,
}

impl Prober<'_> {
    /// The answer of the broker, or that there is none.
    async fn soon<T, E: std::fmt::Display>(&self, work: impl Future<Output = Result<T, E>>) -> Result<T, String> {
        match tokio::time::timeout(self.patience, work).await {
            Ok(result) => result.map_err(|error| error.to_string()),
            Err(_) => Err("no answer".to_owned()),
        }
    }

    fn options(&self, version: ProtocolVersion, name: &str) -> Result<Options, String> {
        let client_id = format!("{}-{name}", self.base.replace('/', "-"));
        Ok(self.connection.options(version)?.client_id(client_id).reconnect(Reconnect::NEVER))
    }

    async fn connect(&self, version: ProtocolVersion, name: &str) -> Result<Client, String> {
        Client::connect(self.options(version, name)?).await.map_err(|error| error.to_string())
    }

    fn topic(&self, name: &str) -> String {
        format!("{}/{name}", self.base)
    }

    async fn probe(&self) -> Result<Report, String> {
        let mut report = Report { broker: self.connection.url().to_string(), findings: Vec::new() };
        let mut best = None;
        let mut last = String::new();
        for (version, question) in [
            (ProtocolVersion::V31, "MQTT 3.1"),
            (ProtocolVersion::V311, "MQTT 3.1.1"),
            (ProtocolVersion::V5, "MQTT 5.0"),
        ] {
            match self.connect(version, "version").await {
                Ok(client) => {
                    report.add(question, "yes");
                    client.disconnect().await;
                    best = Some(version);
                }
                Err(error) => {
                    report.add(question, format!("no: {error}"));
                    last = error;
                }
            }
        }
        let version = best.ok_or(format!("{}: {last}", self.connection.url()))?;
        let client = self.connect(version, "main").await?;
        let connected = client.connected().await.map_err(|error| error.to_string())?;
        if version.is_v5() {
            limits(&mut report, &connected);
            report.add_or_error("assigned Client Identifier", self.assigned().await);
        }
        report.add_or_error("wildcards", self.granted(&client, &self.topic("#")).await);
        let shared = format!("$share/probe/{}", self.topic("shared"));
        report.add_or_error("Shared Subscriptions", self.granted(&client, &shared).await);
        report.add_or_error("$SYS topics", self.system_topics(&client).await);
        for (qos, question) in [
            (QoS::AtMostOnce, "delivery at QoS 0"),
            (QoS::AtLeastOnce, "delivery at QoS 1"),
            (QoS::ExactlyOnce, "delivery at QoS 2"),
        ] {
            report.add_or_error(question, self.delivery(&client, qos).await);
        }
        report.add_or_error("Retained Messages", self.retained(&client).await);
        report.add_or_error("overlapping subscriptions", self.overlapping(version).await);
        report.add_or_error("Will", self.will(version, &client).await);
        report.add_or_error("queue for an absent Session", self.queue(version).await);
        report.add_or_error("unacknowledged messages after a reconnect", self.redelivery(version).await);
        if version.is_v5() {
            report.add_or_error("nobody subscribed (PUBACK)", self.nobody(&client).await);
            report.add_or_error("Message Expiry Interval passed on", self.expiry(&client).await);
            report.add_or_error("No Local", self.no_local(&client).await);
            report.add_or_error("Receive Maximum obeyed", self.receive_maximum().await);
        }
        client.disconnect().await;
        Ok(report)
    }

    async fn assigned(&self) -> Result<String, String> {
        let options = self.connection.options(ProtocolVersion::V5)?.reconnect(Reconnect::NEVER);
        let client = Client::connect(options).await.map_err(|error| error.to_string())?;
        let connected = client.connected().await.map_err(|error| error.to_string())?;
        client.disconnect().await;
        Ok(format!("yes, as {}", connected.client_id))
    }

    async fn granted(&self, client: &Client, filter: &str) -> Result<String, String> {
        Ok(match self.soon(client.subscribe((filter, QoS::ExactlyOnce))).await {
            Ok(stream) => {
                let granted = format!("yes, up to QoS {}", stream.granted()[0] as u8);
                self.soon(stream.unsubscribe()).await?;
                granted
            }
            Err(error) => format!("no: {error}"),
        })
    }

    async fn system_topics(&self, client: &Client) -> Result<String, String> {
        let mut stream = match self.soon(client.subscribe("$SYS/#")).await {
            Ok(stream) => stream,
            Err(error) => return Ok(format!("no: {error}")),
        };
        let found = next(&mut stream, WAIT).await;
        self.soon(stream.unsubscribe()).await?;
        Ok(if found.is_some() { "yes".to_owned() } else { "none came".to_owned() })
    }

    async fn delivery(&self, client: &Client, qos: QoS) -> Result<String, String> {
        let topic = self.topic("delivery");
        let mut stream = self.soon(client.subscribe((topic.as_str(), qos))).await?;
        let began = std::time::Instant::now();
        let published = self.soon(client.publish(Message::new(topic, "x").qos(qos))).await;
        let acknowledged = began.elapsed();
        let received = next(&mut stream, self.patience).await;
        let delivered = began.elapsed();
        self.soon(stream.unsubscribe()).await?;
        if let Err(error) = published {
            return Ok(format!("no: {error}"));
        }
        let Some(received) = received else { return Ok("it did not come".to_owned()) };
        let at = if received.qos() == qos { String::new() } else { format!(", at QoS {}", received.qos() as u8) };
        Ok(format!("yes{at}, acknowledged after {acknowledged:.1?}, delivered after {delivered:.1?}"))
    }

    async fn retained(&self, client: &Client) -> Result<String, String> {
        let topic = self.topic("retained");
        let kept = Message::new(topic.as_str(), "kept").qos(QoS::AtLeastOnce).retain();
        if let Err(error) = self.soon(client.publish(kept)).await {
            return Ok(format!("no: {error}"));
        }
        let mut stream = self.soon(client.subscribe((topic.as_str(), QoS::AtLeastOnce))).await?;
        let received = next(&mut stream, WAIT).await;
        self.soon(stream.unsubscribe()).await?;
        self.soon(client.publish(Message::new(topic.as_str(), "").qos(QoS::AtLeastOnce).retain())).await?;
        let mut stream = self.soon(client.subscribe((topic.as_str(), QoS::AtLeastOnce))).await?;
        let left = next(&mut stream, WAIT).await;
        self.soon(stream.unsubscribe()).await?;
        Ok(match (received, left) {
            (Some(_), None) => "yes".to_owned(),
            (Some(_), Some(_)) => "yes, but an empty payload does not remove them".to_owned(),
            (None, _) => "none came".to_owned(),
        })
    }

    /// With a client of its own: streams would share what comes.
    async fn overlapping(&self, version: ProtocolVersion) -> Result<String, String> {
        let client = self.connect(version, "overlapping").await?;
        let topic = self.topic("overlapping/x");
        let both =
            Subscribe::new(topic.as_str(), QoS::AtMostOnce).filter(self.topic("overlapping/+"), QoS::AtLeastOnce);
        let mut stream = self.soon(client.subscribe(both)).await?;
        self.soon(client.publish(Message::new(topic, "x").qos(QoS::AtLeastOnce))).await?;
        let mut copies = Vec::new();
        while let Some(received) = next(&mut stream, WAIT).await {
            copies.push(format!("QoS {}", received.qos() as u8));
        }
        client.disconnect().await;
        Ok(match copies.as_slice() {
            [one] => format!("one copy, at {one}"),
            copies => format!("{} copies: {}", copies.len(), copies.join(", ")),
        })
    }

    async fn will(&self, version: ProtocolVersion, client: &Client) -> Result<String, String> {
        let topic = self.topic("will");
        let mut stream = self.soon(client.subscribe((topic.as_str(), QoS::AtLeastOnce))).await?;
        let options = self.options(version, "will")?.will(Message::new(topic, "gone").qos(QoS::AtLeastOnce));
        let (options, cut) = cuttable(options);
        let dying = Client::connect(options).await.map_err(|error| error.to_string())?;
        let began = std::time::Instant::now();
        cut.cut();
        drop(dying);
        let received = next(&mut stream, self.patience).await;
        self.soon(stream.unsubscribe()).await?;
        Ok(match received {
            Some(_) => format!("yes, {:.1?} after the connection was lost", began.elapsed()),
            None => "it did not come".to_owned(),
        })
    }

    async fn queue(&self, version: ProtocolVersion) -> Result<String, String> {
        let topic = self.topic("queue");
        let options = || Ok::<_, String>(self.options(version, "queue")?.keep_session(Duration::from_secs(60)));
        let client = Client::connect(options()?).await.map_err(|error| error.to_string())?;
        let stream = self.soon(client.subscribe((topic.as_str(), QoS::AtLeastOnce))).await?;
        client.disconnect().await;
        drop(stream);
        let publisher = self.connect(version, "queue-publisher").await?;
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
            let message = Message::new(topic.as_str(), (qos as u8).to_string()).qos(qos);
            self.soon(publisher.publish(message)).await?;
        }
        publisher.disconnect().await;
        let client = Client::connect(options()?).await.map_err(|error| error.to_string())?;
        let mut stream = client.unclaimed();
        let mut came = Vec::new();
        while let Some(received) = next(&mut stream, WAIT).await {
            came.push(format!("QoS {}", String::from_utf8_lossy(received.payload())));
        }
        self.soon(client.unsubscribe([topic])).await?;
        client.disconnect_with(pantala_client::ReasonCode::Success, Some(Duration::ZERO)).await;
        Ok(if came.is_empty() { "nothing is kept".to_owned() } else { format!("keeps {}", came.join(" and ")) })
    }

    async fn redelivery(&self, version: ProtocolVersion) -> Result<String, String> {
        let topic = self.topic("redelivery");
        let options = self.options(version, "redelivery")?.keep_session(Duration::from_secs(60));
        let (mut options, cut) = cuttable(options);
        options.reconnect = Reconnect { first_wait_max: Duration::from_millis(10), ..Reconnect::default() };
        let client = Client::connect(options).await.map_err(|error| error.to_string())?;
        let subscribe = Subscribe::new(topic.as_str(), QoS::AtLeastOnce).acknowledge_by_hand();
        let mut stream = self.soon(client.subscribe(subscribe)).await?;
        let publisher = self.connect(version, "redelivery-publisher").await?;
        let message = Message::new(topic, "x").qos(QoS::AtLeastOnce);
        self.soon(publisher.publish(message)).await?;
        publisher.disconnect().await;
        let first = next(&mut stream, self.patience).await.ok_or("the message did not come")?;
        cut.cut();
        let again = next(&mut stream, self.patience).await;
        drop(first);
        let answer = match again {
            Some(mut again) => {
                again.acknowledge();
                if again.dup() { "sent again, with DUP" } else { "sent again, without DUP" }
            }
            None => "not sent again",
        };
        self.soon(stream.unsubscribe()).await?;
        client.disconnect_with(pantala_client::ReasonCode::Success, Some(Duration::ZERO)).await;
        Ok(answer.to_owned())
    }

    async fn nobody(&self, client: &Client) -> Result<String, String> {
        let message = Message::new(self.topic("nobody"), "x").qos(QoS::AtLeastOnce);
        let published = self.soon(client.publish(message)).await?;
        Ok(format!("0x{:02x} {:?}", published.reason_code as u8, published.reason_code))
    }

    async fn expiry(&self, client: &Client) -> Result<String, String> {
        let topic = self.topic("expiry");
        let mut stream = self.soon(client.subscribe((topic.as_str(), QoS::AtMostOnce))).await?;
        let message = Message::new(topic, "x").message_expiry_interval(Duration::from_secs(100));
        self.soon(client.publish(message)).await?;
        let received = next(&mut stream, self.patience).await.ok_or("the message did not come")?;
        self.soon(stream.unsubscribe()).await?;
        Ok(match received.properties().message_expiry_interval() {
            Some(seconds) => format!("yes: {seconds} of 100 s"),
            None => "no".to_owned(),
        })
    }

    async fn no_local(&self, client: &Client) -> Result<String, String> {
        let topic = self.topic("local");
        let subscribe = Subscribe::new(topic.as_str(), QoS::AtMostOnce).no_local();
        let mut stream = self.soon(client.subscribe(subscribe)).await?;
        self.soon(client.publish(Message::new(topic, "x"))).await?;
        let received = next(&mut stream, WAIT).await;
        self.soon(stream.unsubscribe()).await?;
        Ok(if received.is_none() { "yes" } else { "no" }.to_owned())
    }

    /// Our client ends a connection on which more comes than it allows.
    async fn receive_maximum(&self) -> Result<String, String> {
        let topic = self.topic("maximum");
        let mut options = self.options(ProtocolVersion::V5, "maximum")?;
        options.session.receive_maximum = NonZeroU16::MIN;
        let client = Client::connect(options).await.map_err(|error| error.to_string())?;
        let subscribe = Subscribe::new(topic.as_str(), QoS::AtLeastOnce).acknowledge_by_hand();
        let mut stream = self.soon(client.subscribe(subscribe)).await?;
        let publisher = self.connect(ProtocolVersion::V5, "maximum-publisher").await?;
        for _ in 0..3 {
            let message = Message::new(topic.as_str(), "x").qos(QoS::AtLeastOnce);
            self.soon(publisher.publish(message)).await?;
        }
        publisher.disconnect().await;
        let first = next(&mut stream, self.patience).await;
        let second = next(&mut stream, WAIT).await;
        let connected = matches!(client.status(), pantala_client::Status::Connected(_));
        client.disconnect().await;
        Ok(match (first, second, connected) {
            (Some(_), None, true) => "yes".to_owned(),
            (None, ..) => "no message came".to_owned(),
            _ => "no: a second message came before the first was acknowledged".to_owned(),
        })
    }
}

fn limits(report: &mut Report, connected: &Connected) {
    let limits = connected.limits;
    let available = |yes| if yes { "yes" } else { "no" };
    report.add("Receive Maximum", limits.receive_maximum.to_string());
    let size = limits.maximum_packet_size.map_or("no limit".to_owned(), |bytes| format!("{bytes} bytes"));
    report.add("Maximum Packet Size", size);
    report.add("Maximum QoS", (limits.maximum_qos as u8).to_string());
    report.add("Topic Alias Maximum", limits.topic_alias_maximum.to_string());
    report.add("Retain Available", available(limits.retain_available));
    report.add("Subscription Identifiers", available(limits.subscription_identifier_available));
    report.add("Keep Alive, of 60 s", format!("{} s", connected.keep_alive));
    for (key, value) in &connected.details.user_properties {
        report.add("User Property of CONNACK", format!("{key}: {value}"));
    }
}

async fn next(stream: &mut Subscription, wait: Duration) -> Option<pantala_client::Received> {
    let received = tokio::time::timeout(wait, stream.recv()).await.ok()?.ok()?;
    stream.acknowledge();
    Some(received)
}

/// A connection that can be cut, so that the broker sees it vanish.
fn cuttable(mut options: Options) -> (Options, std::sync::Arc<Cutter>) {
    let cutter = std::sync::Arc::new(Cutter::default());
    let inner = options.connector();
    options.set_connector(Cuttable { inner, cutter: cutter.clone() });
    (options, cutter)
}

/// Counts cuts; each connection lives until the next.
#[derive(Default)]
struct Cutter {
    cuts: tokio::sync::watch::Sender<u32>,
}

impl Cutter {
    fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}

struct Cuttable {
    inner: std::sync::Arc<dyn Connector>,
    cutter: std::sync::Arc<Cutter>,
}

impl Connector for Cuttable {
    fn connect(
        self: std::sync::Arc<Self>,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<BoxedStream, pantala_client::transport::ConnectError>> + Send>>
    {
        Box::pin(async move {
            let mut stream = self.inner.clone().connect().await?;
            let (near, mut far) = tokio::io::duplex(64 << 10);
            let mut cuts = self.cutter.cuts.subscribe();
            tokio::spawn(async move {
                tokio::select! {
                    biased;
                    _ = cuts.changed() => {}
                    _ = tokio::io::copy_bidirectional(&mut far, &mut stream) => {}
                }
            });
            Ok(Box::new(near) as BoxedStream)
        })
    }
}
