//! The table of flags.

use std::ffi::{OsStr, OsString};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use pantala_proto::{ProtocolVersion, QoS, RetainHandling};

use super::written::{PayloadWritten, PropertyWritten, SecretWritten, Stage, Written};
use super::{FlagError, Program, Programs};
use crate::clients::decision::Retained;
use crate::clients::output::Format;
use crate::clients::plan::{Proxy, Url};

/// The longest time a flag can ask for, in seconds: ten years.
const SECONDS_MAX: u64 = 315_360_000;

const DNS_PORT: u16 = 53;
/// Name servers that are asked.
const NAME_SERVERS_MAX: usize = 3;

/// A flag.
pub struct Flag {
    /// `h` of `-h`.
    pub short: Option<char>,
    /// `host` of `--host`.
    pub long: Option<&'static str>,
    /// The programs that have it.
    pub programs: Programs,
    /// What follows it.
    pub value: Value,
    /// Under which heading it stands.
    pub heading: Heading,
    /// What it is for, with bounds and default. Empty if it is taken only to be refused with a reason.
    pub help: &'static str,
    /// Its parser.
    pub(super) set: fn(&mut Written, &Argument<'_>) -> Result<(), FlagError>,
}

/// What follows a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    /// Nothing.
    None,
    /// An argument with this name.
    One(&'static str),
    /// The three or four arguments of `-D`.
    Property,
}

impl Value {
    /// Its name in messages and help.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "",
            Self::One(name) => name,
            Self::Property => "PACKET NAME VALUE",
        }
    }
}

/// The headings of the help, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the titles are below")]
pub enum Heading {
    Message,
    Subscription,
    Output,
    Connection,
    Session,
    Tls,
    Will,
    Program,
}

impl Heading {
    /// All of them, in their order.
    pub const ALL: [Self; 8] = [
        Self::Message,
        Self::Subscription,
        Self::Output,
        Self::Connection,
        Self::Session,
        Self::Tls,
        Self::Will,
        Self::Program,
    ];

    /// Its title.
    pub fn title(self) -> &'static str {
        match self {
            Self::Message => "Topic and message",
            Self::Subscription => "Subscription",
            Self::Output => "Output",
            Self::Connection => "Connection",
            Self::Session => "Client and session",
            Self::Tls => "TLS",
            Self::Will => "Will message",
            Self::Program => "This program",
        }
    }
}

impl Flag {
    /// Whether this is one of its names.
    pub fn is_called(&self, name: &str) -> bool {
        match name.strip_prefix("--") {
            Some(long) => self.long == Some(long),
            None => name.strip_prefix('-').is_some_and(|short| {
                let mut letters = short.chars();
                letters.next() == self.short && self.short.is_some() && letters.next().is_none()
            }),
        }
    }

    /// Its names: `-h, --host`.
    pub fn names(&self) -> String {
        match (self.short, self.long) {
            (Some(short), Some(long)) => format!("-{short}, --{long}"),
            (Some(short), None) => format!("-{short}"),
            (None, Some(long)) => format!("--{long}"),
            (None, None) => String::new(),
        }
    }

    /// Whether it is of use: the others are refused with a reason.
    pub fn is_supported(&self) -> bool {
        !self.help.is_empty()
    }

    pub(super) fn is_options_file(&self) -> bool {
        self.short == Some('o')
    }
}

/// A flag's values, and where it was written.
pub(super) struct Argument<'a> {
    pub flag: &'a str,
    pub values: &'a [OsString],
    pub stage: Stage,
}

impl Argument<'_> {
    fn raw(&self) -> OsString {
        self.values.first().cloned().unwrap_or_default()
    }

    fn path(&self) -> PathBuf {
        self.raw().into()
    }

    fn given(&self) -> String {
        self.values.first().map(|value| value.to_string_lossy().into_owned()).unwrap_or_default()
    }

    fn wrong(&self, expected: &'static str) -> FlagError {
        FlagError::Value { flag: self.flag.to_owned(), given: self.given(), expected }
    }

    /// Text that can stand in a packet (v5 MQTT-1.5.4-1, MQTT-1.5.4-2).
    fn text(&self) -> Result<String, FlagError> {
        self.checked_text(&self.raw())
    }

    fn checked_text(&self, value: &OsStr) -> Result<String, FlagError> {
        match value.to_str() {
            Some(text) if !text.contains('\0') => Ok(text.to_owned()),
            _ => Err(self.wrong("expected text in UTF-8")),
        }
    }

    /// Text with at least one character.
    fn filled(&self) -> Result<String, FlagError> {
        let text = self.text()?;
        if text.is_empty() { Err(self.wrong("expected at least one character")) } else { Ok(text) }
    }

    fn number(&self, minimum: u64, maximum: u64) -> Result<u64, FlagError> {
        let given = self.given();
        match given.parse() {
            Ok(number) if (minimum..=maximum).contains(&number) => Ok(number),
            _ => Err(FlagError::Number { flag: self.flag.to_owned(), given, minimum, maximum }),
        }
    }

    fn small(&self, minimum: u16, maximum: u16) -> Result<u16, FlagError> {
        let number = self.number(minimum.into(), maximum.into())?;
        // Within its bounds by now.
        Ok(u16::try_from(number).unwrap_or(maximum))
    }

    /// Seconds, with a fraction.
    fn seconds(&self, minimum: f64) -> Result<Duration, FlagError> {
        match self.given().parse() {
            Ok(seconds) if (minimum..=SECONDS_MAX as f64).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
            _ => Err(self.wrong("expected seconds, such as 0.5")),
        }
    }

    fn qos(&self) -> Result<QoS, FlagError> {
        Ok(QoS::from_bits(self.small(0, 2)? as u8).unwrap_or_default())
    }

    fn unsupported(&self, why: &'static str) -> Result<(), FlagError> {
        Err(FlagError::Unsupported { flag: self.flag.to_owned(), why })
    }
}

const NO_ENGINES: &str = "TLS is rustls here, which has no OpenSSL engines; give a PEM file with --key";
const NO_PSK: &str = "rustls has no pre-shared keys; use certificates, with --cafile";

/// All flags, in the order of the help: by heading, and under it by how often they are needed.
pub static TABLE: &[Flag] = &[
    Flag {
        short: Some('t'),
        long: Some("topic"),
        programs: Programs::ALL,
        value: Value::One("TOPIC"),
        heading: Heading::Message,
        help: "Topic Name to publish to (`pub`: may be repeated, the message then goes to each), or Topic Filter to subscribe \
               to (`sub`: may be repeated).",
        set: |written, argument| {
            written.topics.push((argument.stage, argument.filled()?));
            Ok(())
        },
    },
    Flag {
        short: Some('e'),
        long: None,
        programs: Programs::R,
        value: Value::One("TOPIC"),
        heading: Heading::Message,
        help: "Topic Name for the response. It is subscribed to, and in MQTT 5 sent as Response Topic.",
        set: |written, argument| {
            written.response_topic = Some(argument.filled()?);
            Ok(())
        },
    },
    Flag {
        short: Some('m'),
        long: Some("message"),
        programs: Programs::PR,
        value: Value::One("TEXT"),
        heading: Heading::Message,
        help: "The payload.",
        set: |written, argument| {
            written.payloads.push(PayloadWritten::Given(argument.raw()));
            Ok(())
        },
    },
    Flag {
        short: None,
        long: Some("payload-env"),
        programs: Programs::PR,
        value: Value::One("VARIABLE"),
        heading: Heading::Message,
        help: "Take the payload from an environment variable, where no list of processes shows it.",
        set: |written, argument| {
            written.payloads.push(PayloadWritten::Variable(argument.filled()?));
            Ok(())
        },
    },
    Flag {
        short: Some('f'),
        long: Some("file"),
        programs: Programs::PR,
        value: Value::One("FILE"),
        heading: Heading::Message,
        help: "Take the payload from a file.",
        set: |written, argument| {
            written.payloads.push(PayloadWritten::File(argument.path()));
            Ok(())
        },
    },
    Flag {
        short: Some('n'),
        long: Some("null-message"),
        programs: Programs::PR,
        value: Value::None,
        heading: Heading::Message,
        help: "An empty payload. With -r it clears the Retained Message.",
        set: |written, _| {
            written.payloads.push(PayloadWritten::Null);
            Ok(())
        },
    },
    Flag {
        short: Some('s'),
        long: Some("stdin-file"),
        programs: Programs::PR,
        value: Value::None,
        heading: Heading::Message,
        help: "Take the payload from standard input, all of it.",
        set: |written, _| {
            written.payloads.push(PayloadWritten::Stdin);
            Ok(())
        },
    },
    Flag {
        short: Some('l'),
        long: Some("stdin-line"),
        programs: Programs::P,
        value: Value::None,
        heading: Heading::Message,
        help: "Publish each line of standard input as a message of its own.",
        set: |written, _| {
            written.payloads.push(PayloadWritten::StdinLines);
            Ok(())
        },
    },
    Flag {
        short: None,
        long: Some("json"),
        programs: Programs::P,
        value: Value::None,
        heading: Heading::Message,
        help: "Publish each line of standard input, a JSON object as `pantala sub --json` prints it: topic, payload, qos, \
               retain. What a line leaves out is taken from -t, -q and -r.",
        set: |written, _| {
            written.payloads.push(PayloadWritten::StdinJson);
            Ok(())
        },
    },
    Flag {
        short: Some('q'),
        long: Some("qos"),
        programs: Programs::ALL,
        value: Value::One("QOS"),
        heading: Heading::Message,
        help: "QoS: 0, 1 or 2. Default: 0.",
        set: |written, argument| {
            written.qos = Some(argument.qos()?);
            Ok(())
        },
    },
    Flag {
        short: Some('r'),
        long: Some("retain"),
        programs: Programs::P,
        value: Value::None,
        heading: Heading::Message,
        help: "The broker keeps the message for those who subscribe later.",
        set: |written, _| {
            written.retain = true;
            Ok(())
        },
    },
    Flag {
        short: None,
        long: Some("repeat"),
        programs: Programs::P,
        value: Value::One("N"),
        heading: Heading::Message,
        help: "Publish so many times, from 1 on; with -m, -f, -n and -s. Default: 1.",
        set: |written, argument| {
            let count = argument.number(1, u32::MAX.into())?;
            written.repeat = Some(u32::try_from(count).unwrap_or(u32::MAX));
            Ok(())
        },
    },
    Flag {
        short: None,
        long: Some("repeat-delay"),
        programs: Programs::P,
        value: Value::One("SECONDS"),
        heading: Heading::Message,
        help: "Wait between two of --repeat; 0.5 is half a second. Default: 0.",
        set: |written, argument| {
            written.repeat_delay = Some(argument.seconds(0.0)?);
            Ok(())
        },
    },
    Flag {
        short: Some('M'),
        long: None,
        programs: Programs::ALL,
        value: Value::One("N"),
        heading: Heading::Message,
        help: "Messages of QoS 1 and 2 under way at once to the broker, 1 to 65535; it may allow fewer. Default: 20.",
        set: |written, argument| {
            written.inflight_max = Some(argument.small(1, u16::MAX)?);
            Ok(())
        },
    },
    Flag {
        short: Some('D'),
        long: Some("property"),
        programs: Programs::ALL,
        value: Value::Property,
        heading: Heading::Message,
        help: "A property of MQTT 5, which it switches to. PACKET is connect, publish, subscribe, unsubscribe, disconnect or \
               will; NAME is the standard's with hyphens. `user-property` has two values. May be repeated.",
        set: |written, argument| {
            let value = |index: usize| argument.values.get(index).map(|value| argument.checked_text(value)).transpose();
            written.properties.push(PropertyWritten {
                command: value(0)?.unwrap_or_default(),
                name: value(1)?.unwrap_or_default(),
                value: value(2)?.unwrap_or_default(),
                second: value(3)?,
            });
            Ok(())
        },
    },
    Flag {
        short: Some('U'),
        long: Some("unsubscribe"),
        programs: Programs::S,
        value: Value::One("FILTER"),
        heading: Heading::Subscription,
        help: "Unsubscribe from a Topic Filter, after subscribing to those of -t. May be repeated.",
        set: |written, argument| {
            written.unsubscribe.push(argument.filled()?);
            Ok(())
        },
    },
    Flag {
        short: Some('T'),
        long: Some("filter-out"),
        programs: Programs::S,
        value: Value::One("FILTER"),
        heading: Heading::Subscription,
        help: "Pass over messages whose topic matches. May be repeated.",
        set: |written, argument| {
            written.filter_out.push(argument.filled()?);
            Ok(())
        },
    },
    Flag {
        short: Some('R'),
        long: None,
        programs: Programs::SR,
        value: Value::None,
        heading: Heading::Subscription,
        help: "Do not print Retained Messages that were there before.",
        set: |written, _| {
            written.retained.push(Retained::Hidden);
            Ok(())
        },
    },
    Flag {
        short: None,
        long: Some("retained-only"),
        programs: Programs::S,
        value: Value::None,
        heading: Heading::Subscription,
        help: "Print Retained Messages, and end at the first message that is none.",
        set: |written, _| {
            written.retained.push(Retained::Only);
            Ok(())
        },
    },
    Flag {
        short: None,
        long: Some("remove-retained"),
        programs: Programs::S,
        value: Value::None,
        heading: Heading::Subscription,
        help: "Clear each Retained Message that comes and is not passed over by -T.",
        set: |written, _| {
            written.remove_retained = true;
            Ok(())
        },
    },
    Flag {
        short: None,
        long: Some("retain-as-published"),
        programs: Programs::SR,
        value: Value::None,
        heading: Heading::Subscription,
        help: "Leave the retain flag as the publisher set it (MQTT 5).",
        set: |written, _| {
            written.retain_as_published = true;
            Ok(())
        },
    },
    Flag {
        short: None,
        long: Some("retain-handling"),
        programs: Programs::SR,
        value: Value::One("WHEN"),
        heading: Heading::Subscription,
        help: "When Retained Messages are sent: always, new (with a new subscription only) or never (MQTT 5). Default: always.",
        set: |written, argument| {
            written.retain_handling = Some(match argument.given().as_str() {
                "always" => RetainHandling::Send,
                "new" => RetainHandling::SendIfNew,
                "never" => RetainHandling::DoNotSend,
                _ => return Err(argument.wrong("expected always, new or never")),
            });
            Ok(())
        },
    },
    Flag {
        short: Some('C'),
        long: None,
        programs: Programs::S,
        value: Value::One("N"),
        heading: Heading::Subscription,
        help: "End after so many messages, from 1 on.",
        set: |written, argument| {
            written.count = Some(argument.number(1, u64::MAX)?);
            Ok(())
        },
    },
    Flag {
        short: Some('E'),
        long: None,
        programs: Programs::S,
        value: Value::None,
        heading: Heading::Subscription,
        help: "End as soon as the broker has acknowledged the subscriptions.",
        set: |written, _| {
            written.exit_after_subscribe = true;
            Ok(())
        },
    },
    Flag {
        short: Some('W'),
        long: None,
        programs: Programs::SR,
        value: Value::One("SECONDS"),
        heading: Heading::Subscription,
        help: "End after so many seconds, from 1 on, with status 27.",
        set: |written, argument| {
            written.timeout = Some(Duration::from_secs(argument.number(1, SECONDS_MAX)?));
            Ok(())
        },
    },
    Flag {
        short: Some('v'),
        long: Some("verbose"),
        programs: Programs::SR,
        value: Value::None,
        heading: Heading::Output,
        help: "Print the topic before the payload.",
        set: |written, _| {
            written.verbose = true;
            Ok(())
        },
    },
    Flag {
        short: Some('F'),
        long: None,
        programs: Programs::SR,
        value: Value::One("FORMAT"),
        heading: Heading::Output,
        help: "Print what a format says, such as '%I %t %p'; see FORMAT below.",
        set: |written, argument| {
            written.format = Some(Format::parse(&argument.text()?)?);
            Ok(())
        },
    },
    Flag {
        short: None,
        long: Some("json"),
        programs: Programs::SR,
        value: Value::None,
        heading: Heading::Output,
        help: "Print each message as a JSON object on one line, which `pantala pub --json` can publish. Like -F %j, but a payload \
               that is not text stands in `payload-base64`.",
        set: |written, _| {
            written.json = true;
            Ok(())
        },
    },
    Flag {
        short: None,
        long: Some("pretty"),
        programs: Programs::SR,
        value: Value::None,
        heading: Heading::Output,
        help: "Lay out the JSON of %j and %J for reading.",
        set: |written, _| {
            written.pretty = true;
            Ok(())
        },
    },
    Flag {
        short: Some('N'),
        long: None,
        programs: Programs::SR,
        value: Value::None,
        heading: Heading::Output,
        help: "No line feed behind a message.",
        set: |written, _| {
            written.no_newline = true;
            Ok(())
        },
    },
    Flag {
        short: None,
        long: Some("raw"),
        programs: Programs::SR,
        value: Value::None,
        heading: Heading::Output,
        help: "Print bytes as they come on a terminal too. Without it control characters are escaped there, since a message \
               could give the terminal orders; pipes and files always get the bytes.",
        set: |written, _| {
            written.raw = true;
            Ok(())
        },
    },
    Flag {
        short: None,
        long: Some("output-dir"),
        programs: Programs::S,
        value: Value::One("FOLDER"),
        heading: Heading::Output,
        help: "Write payloads into files of this folder, which has to be there, in place of printing them. Each topic has a file with \
               its last payload; + stands for / in its name, and % with two digits for other bytes. At most 10000 files.",
        set: |written, argument| {
            written.output_folder = Some(argument.path());
            Ok(())
        },
    },
    Flag {
        short: Some('w'),
        long: Some("watch"),
        programs: Programs::S,
        value: Value::None,
        heading: Heading::Output,
        help: "A screen on which each topic has a line with its last message.",
        set: |written, _| {
            written.watch = true;
            Ok(())
        },
    },
    Flag {
        short: None,
        long: Some("random-filter"),
        programs: Programs::S,
        value: Value::One("PERCENT"),
        heading: Heading::Output,
        help: "Print so many of a hundred messages, 0.1 to 100, by chance.",
        set: |written, argument| {
            written.random_filter = Some(match argument.given().parse() {
                Ok(percent) if (0.1..=100.0).contains(&percent) => percent,
                _ => return Err(argument.wrong("expected a percentage, 0.1 to 100")),
            });
            Ok(())
        },
    },
    Flag {
        short: None,
        long: Some("message-rate"),
        programs: Programs::S,
        value: Value::None,
        heading: Heading::Output,
        help: "Print how many messages came in each second, in place of the messages.",
        set: |written, _| {
            written.message_rate = true;
            Ok(())
        },
    },
    Flag {
        short: None,
        long: Some("latency"),
        programs: Programs::R,
        value: Value::None,
        heading: Heading::Output,
        help: "Print the time from request to response.",
        set: |written, _| {
            written.latency = true;
            Ok(())
        },
    },
    Flag {
        short: Some('h'),
        long: Some("host"),
        programs: Programs::ALL,
        value: Value::One("HOST"),
        heading: Heading::Connection,
        help: "Host of the broker, a name or an address. Default: localhost.",
        set: |written, argument| {
            written.host = Some(argument.filled()?);
            Ok(())
        },
    },
    Flag {
        short: Some('p'),
        long: Some("port"),
        programs: Programs::ALL,
        value: Value::One("PORT"),
        heading: Heading::Connection,
        help: "Port, 1 to 65535. Default: 1883, with TLS 8883. Port 8883 turns on TLS with the system's certificates.",
        set: |written, argument| {
            written.port = Some(argument.small(0, u16::MAX)?);
            Ok(())
        },
    },
    Flag {
        short: Some('L'),
        long: Some("url"),
        programs: Programs::ALL,
        value: Value::One("URL"),
        heading: Heading::Connection,
        help: "All in one: mqtt://[user[:password]@]host[:port]/topic, and mqtts, ws or wss in place of mqtt. Replaces -h, -p, -u, \
               -P and -t.",
        set: |written, argument| {
            let url = Url::parse(&argument.text()?).map_err(|expected| argument.wrong(expected))?;
            // As if its parts had been written here: what comes later goes before.
            written.host = Some(url.host);
            written.port = url.port;
            written.unix = None;
            written.tls.by_scheme = url.secure;
            written.websocket = url.websocket;
            written.user_name = url.user_name.or(written.user_name.take());
            written.password =
                url.password.map(|password| SecretWritten::Given(password.into())).or(written.password.take());
            written.topics.extend(url.topic.map(|topic| (argument.stage, topic)));
            Ok(())
        },
    },
    Flag {
        short: None,
        long: Some("unix"),
        programs: Programs::ALL,
        value: Value::One("SOCKET"),
        heading: Heading::Connection,
        help: "Connect to a Unix socket in place of a host.",
        set: |written, argument| {
            written.unix = Some(argument.path());
            Ok(())
        },
    },
    Flag {
        short: None,
        long: Some("ws"),
        programs: Programs::ALL,
        value: Value::None,
        heading: Heading::Connection,
        help: "Speak MQTT over WebSocket, at the path /mqtt.",
        set: |written, _| {
            written.websocket = true;
            Ok(())
        },
    },
    Flag {
        short: Some('A'),
        long: None,
        programs: Programs::ALL,
        value: Value::One("ADDRESS"),
        heading: Heading::Connection,
        help: "Connect from this local address.",
        set: |written, argument| {
            written.bind_address = Some(argument.filled()?);
            Ok(())
        },
    },
    Flag {
        short: None,
        long: Some("proxy"),
        programs: Programs::ALL,
        value: Value::One("URL"),
        heading: Heading::Connection,
        help: "Connect through a proxy: socks5h://[user[:password]@]host[:port]. Default port: 1080.",
        set: |written, argument| {
            written.proxy = Some(Proxy::parse(&argument.text()?).map_err(|expected| argument.wrong(expected))?);
            Ok(())
        },
    },
    Flag {
        short: None,
        long: Some("nodelay"),
        programs: Programs::ALL,
        value: Value::None,
        heading: Heading::Connection,
        help: "Send small packets at once (TCP_NODELAY).",
        set: |written, _| {
            written.no_delay = true;
            Ok(())
        },
    },
    Flag {
        short: None,
        long: Some("no-reconnect"),
        programs: Programs::ALL,
        value: Value::None,
        heading: Heading::Connection,
        help: "End when the connection is lost, in place of connecting again. Default of rr, and of pub but with -l and --json.",
        set: |written, _| {
            written.no_reconnect = true;
            Ok(())
        },
    },
    Flag {
        short: None,
        long: Some("reconnect-delay"),
        programs: Programs::ALL,
        value: Value::One("SECONDS"),
        heading: Heading::Connection,
        help: "The longest wait before the first attempt to connect again; it doubles with each, and a random part of it is waited. With \
               it rr and any pub connect again. Default: 1.",
        set: |written, argument| {
            written.reconnect_delay = Some(argument.seconds(0.0)?);
            Ok(())
        },
    },
    Flag {
        short: None,
        long: Some("reconnect-delay-max"),
        programs: Programs::ALL,
        value: Value::One("SECONDS"),
        heading: Heading::Connection,
        help: "The bound that the wait is doubled up to. Default: 30.",
        set: |written, argument| {
            written.reconnect_delay_max = Some(argument.seconds(0.0)?);
            Ok(())
        },
    },
    Flag {
        short: Some('S'),
        long: None,
        programs: Programs::ALL,
        value: Value::None,
        heading: Heading::Connection,
        help: "Have the DNS name the broker: -h is a domain, whose SRV records _mqtt._tcp, with TLS _secure-mqtt._tcp, name hosts and \
               ports. They are tried in the order that the records say.",
        set: |written, _| {
            written.service = true;
            Ok(())
        },
    },
    Flag {
        short: None,
        long: Some("name-server"),
        programs: Programs::ALL,
        value: Value::One("ADDRESS[:PORT]"),
        heading: Heading::Connection,
        help: "Ask this name server for -S. May be repeated, up to three. Default: those of the system, in /etc/resolv.conf; port 53.",
        set: |written, argument| {
            let given = argument.given();
            let address = given.parse::<IpAddr>().map(|address| SocketAddr::new(address, DNS_PORT));
            match address.or_else(|_| given.parse()) {
                Ok(address) if written.name_servers.len() < NAME_SERVERS_MAX => written.name_servers.push(address),
                Ok(_) => return Err(argument.wrong("three are enough")),
                Err(_) => {
                    return Err(
                        argument.wrong("expected an address such as 192.0.2.1, 192.0.2.1:53 or [2001:db8::1]:53")
                    );
                }
            }
            Ok(())
        },
    },
    Flag {
        short: Some('i'),
        long: Some("id"),
        programs: Programs::ALL,
        value: Value::One("ID"),
        heading: Heading::Session,
        help: "Client Identifier. Default: the broker chooses one.",
        set: |written, argument| {
            written.client_id = Some(argument.text()?);
            Ok(())
        },
    },
    Flag {
        short: Some('I'),
        long: Some("id-prefix"),
        programs: Programs::ALL,
        value: Value::One("PREFIX"),
        heading: Heading::Session,
        help: "Client Identifier: the prefix and the number of this process.",
        set: |written, argument| {
            written.client_id_prefix = Some(argument.text()?);
            Ok(())
        },
    },
    Flag {
        short: Some('u'),
        long: Some("username"),
        programs: Programs::ALL,
        value: Value::One("NAME"),
        heading: Heading::Session,
        help: "User name.",
        set: |written, argument| {
            written.user_name = Some(argument.text()?);
            Ok(())
        },
    },
    Flag {
        short: Some('P'),
        long: Some("pw"),
        programs: Programs::ALL,
        value: Value::One("PASSWORD"),
        heading: Heading::Session,
        help: "Password. Everybody on this machine can see it in the list of processes; the next three flags hide it.",
        set: |written, argument| {
            written.password = Some(SecretWritten::Given(argument.raw()));
            Ok(())
        },
    },
    Flag {
        short: None,
        long: Some("pw-env"),
        programs: Programs::ALL,
        value: Value::One("VARIABLE"),
        heading: Heading::Session,
        help: "Take the password from an environment variable.",
        set: |written, argument| {
            written.password = Some(SecretWritten::Variable(argument.filled()?));
            Ok(())
        },
    },
    Flag {
        short: None,
        long: Some("pw-file"),
        programs: Programs::ALL,
        value: Value::One("FILE"),
        heading: Heading::Session,
        help: "Take the password from a file, without its last line feed.",
        set: |written, argument| {
            written.password = Some(SecretWritten::File(argument.path()));
            Ok(())
        },
    },
    Flag {
        short: None,
        long: Some("pw-prompt"),
        programs: Programs::ALL,
        value: Value::None,
        heading: Heading::Session,
        help: "Ask for the password.",
        set: |written, _| {
            written.password = Some(SecretWritten::Prompt);
            Ok(())
        },
    },
    Flag {
        short: Some('k'),
        long: Some("keepalive"),
        programs: Programs::ALL,
        value: Value::One("SECONDS"),
        heading: Heading::Session,
        help: "Keep Alive, 5 to 65535 seconds. Default: 60.",
        set: |written, argument| {
            written.keep_alive = Some(argument.small(5, u16::MAX)?);
            Ok(())
        },
    },
    Flag {
        short: Some('c'),
        long: Some("disable-clean-session"),
        programs: Programs::ALL,
        value: Value::None,
        heading: Heading::Session,
        help: "Take up the session the broker has of this client, and leave it there at the end. Needs -i.",
        set: |written, _| {
            written.keep_session = true;
            Ok(())
        },
    },
    Flag {
        short: Some('x'),
        long: None,
        programs: Programs::ALL,
        value: Value::One("SECONDS"),
        heading: Heading::Session,
        help: "How long the broker keeps the session after the end, in MQTT 5, which it switches to: 0 to 4294967294, or -1 for \
               ever. Default: -1 with -c, else 0.",
        set: |written, argument| {
            written.session_expiry_interval = Some(match argument.given().as_str() {
                "-1" | "∞" => u32::MAX,
                _ => u32::try_from(argument.number(0, u32::MAX.into())?).unwrap_or(u32::MAX),
            });
            Ok(())
        },
    },
    Flag {
        short: Some('V'),
        long: Some("protocol-version"),
        programs: Programs::ALL,
        value: Value::One("VERSION"),
        heading: Heading::Session,
        help: "Version of MQTT: 5, 311 or 31, or mqttv5, mqttv311, mqttv31. Default: 311, of `rr` 5.",
        set: |written, argument| {
            written.version = Some(match argument.given().as_str() {
                "5" | "mqttv5" => ProtocolVersion::V5,
                "311" | "mqttv311" => ProtocolVersion::V311,
                "31" | "mqttv31" => ProtocolVersion::V31,
                _ => return Err(argument.wrong("expected 5, 311 or 31")),
            });
            Ok(())
        },
    },
    Flag {
        short: None,
        long: Some("cafile"),
        programs: Programs::ALL,
        value: Value::One("FILE"),
        heading: Heading::Tls,
        help: "Turn on TLS and trust the certificates of this PEM file.",
        set: |written, argument| {
            written.tls.ca_file = Some(argument.path());
            Ok(())
        },
    },
    Flag {
        short: None,
        long: Some("capath"),
        programs: Programs::ALL,
        value: Value::One("FOLDER"),
        heading: Heading::Tls,
        help: "Turn on TLS and trust the certificates of the PEM files in this folder.",
        set: |written, argument| {
            written.tls.ca_folder = Some(argument.path());
            Ok(())
        },
    },
    Flag {
        short: None,
        long: Some("tls-use-os-certs"),
        programs: Programs::ALL,
        value: Value::None,
        heading: Heading::Tls,
        help: "Turn on TLS and trust the certificates that the system trusts. The default with port 8883 and with mqtts.",
        set: |written, _| {
            written.tls.system_roots = true;
            Ok(())
        },
    },
    Flag {
        short: None,
        long: Some("cert"),
        programs: Programs::ALL,
        value: Value::One("FILE"),
        heading: Heading::Tls,
        help: "This client's certificate, PEM. Needs --key.",
        set: |written, argument| {
            written.tls.certificate = Some(argument.path());
            Ok(())
        },
    },
    Flag {
        short: None,
        long: Some("key"),
        programs: Programs::ALL,
        value: Value::One("FILE"),
        heading: Heading::Tls,
        help: "The private key of --cert, PEM without a passphrase.",
        set: |written, argument| {
            written.tls.key = Some(argument.path());
            Ok(())
        },
    },
    Flag {
        short: None,
        long: Some("insecure"),
        programs: Programs::ALL,
        value: Value::None,
        heading: Heading::Tls,
        help: "Do not compare the host's name with the broker's certificate. For tests: whoever has any certificate of a trusted \
               authority can pass for the broker.",
        set: |written, _| {
            written.tls.insecure = true;
            Ok(())
        },
    },
    Flag {
        short: None,
        long: Some("tls-version"),
        programs: Programs::ALL,
        value: Value::One("VERSION"),
        heading: Heading::Tls,
        help: "tlsv1.2 (or newer) or tlsv1.3 (only). Default: tlsv1.2.",
        set: |written, argument| {
            written.tls.only_version_13 = Some(match argument.given().as_str() {
                "tlsv1.2" => false,
                "tlsv1.3" => true,
                "tlsv1.1" | "tlsv1" => return Err(argument.wrong("it can be broken; the least is tlsv1.2")),
                _ => return Err(argument.wrong("expected tlsv1.2 or tlsv1.3")),
            });
            Ok(())
        },
    },
    Flag {
        short: None,
        long: Some("tls-alpn"),
        programs: Programs::ALL,
        value: Value::One("NAME"),
        heading: Heading::Tls,
        help: "Ask for this protocol by ALPN, where one port has several.",
        set: |written, argument| {
            written.tls.alpn = Some(argument.filled()?);
            Ok(())
        },
    },
    Flag {
        short: None,
        long: Some("tls-keylog"),
        programs: Programs::ALL,
        value: Value::One("FILE"),
        heading: Heading::Tls,
        help: "Write the session's secrets into a file, as Wireshark reads them; a new one is for its owner only.",
        set: |written, argument| {
            written.tls.key_log = Some(argument.path());
            Ok(())
        },
    },
    Flag {
        short: None,
        long: Some("no-tls"),
        programs: Programs::ALL,
        value: Value::None,
        heading: Heading::Tls,
        help: "No TLS, even on port 8883.",
        set: |written, _| {
            written.tls.off = true;
            Ok(())
        },
    },
    Flag {
        short: None,
        long: Some("keyform"),
        programs: Programs::ALL,
        value: Value::One("FORM"),
        heading: Heading::Tls,
        help: "",
        set: |_, argument| match argument.given().as_str() {
            // What keys are anyway.
            "pem" => Ok(()),
            _ => argument.unsupported(NO_ENGINES),
        },
    },
    Flag {
        short: None,
        long: Some("tls-engine"),
        programs: Programs::ALL,
        value: Value::One("ENGINE"),
        heading: Heading::Tls,
        help: "",
        set: |_, argument| argument.unsupported(NO_ENGINES),
    },
    Flag {
        short: None,
        long: Some("tls-engine-kpass-sha1"),
        programs: Programs::ALL,
        value: Value::One("HASH"),
        heading: Heading::Tls,
        help: "",
        set: |_, argument| argument.unsupported(NO_ENGINES),
    },
    Flag {
        short: None,
        long: Some("ciphers"),
        programs: Programs::ALL,
        value: Value::One("LIST"),
        heading: Heading::Tls,
        help: "",
        set: |_, argument| argument.unsupported("rustls offers only suites without known weakness; leave it out"),
    },
    Flag {
        short: None,
        long: Some("psk"),
        programs: Programs::ALL,
        value: Value::One("KEY"),
        heading: Heading::Tls,
        help: "",
        set: |_, argument| argument.unsupported(NO_PSK),
    },
    Flag {
        short: None,
        long: Some("psk-identity"),
        programs: Programs::ALL,
        value: Value::One("NAME"),
        heading: Heading::Tls,
        help: "",
        set: |_, argument| argument.unsupported(NO_PSK),
    },
    Flag {
        short: None,
        long: Some("will-topic"),
        programs: Programs::ALL,
        value: Value::One("TOPIC"),
        heading: Heading::Will,
        help: "Topic Name of a Will Message, which the broker publishes should this client vanish.",
        set: |written, argument| {
            written.will.topic = Some(argument.filled()?);
            Ok(())
        },
    },
    Flag {
        short: None,
        long: Some("will-payload"),
        programs: Programs::ALL,
        value: Value::One("TEXT"),
        heading: Heading::Will,
        help: "Its payload. Default: empty.",
        set: |written, argument| {
            written.will.payload = Some(argument.raw());
            Ok(())
        },
    },
    Flag {
        short: None,
        long: Some("will-qos"),
        programs: Programs::ALL,
        value: Value::One("QOS"),
        heading: Heading::Will,
        help: "Its QoS: 0, 1 or 2. Default: 0.",
        set: |written, argument| {
            written.will.qos = Some(argument.qos()?);
            Ok(())
        },
    },
    Flag {
        short: None,
        long: Some("will-retain"),
        programs: Programs::ALL,
        value: Value::None,
        heading: Heading::Will,
        help: "The broker keeps it for those who subscribe later.",
        set: |written, _| {
            written.will.retain = true;
            Ok(())
        },
    },
    Flag {
        short: Some('o'),
        long: None,
        programs: Programs::ALL,
        value: Value::One("FILE"),
        heading: Heading::Program,
        help: "Take flags from a file, one with its value on a line; the command line goes before. May be repeated. Default: \
               mosquitto_NAME and pantala_NAME in $XDG_CONFIG_HOME, else in ~/.config.",
        // Read before all others.
        set: |_, _| Ok(()),
    },
    Flag {
        short: Some('d'),
        long: Some("debug"),
        programs: Programs::ALL,
        value: Value::None,
        heading: Heading::Program,
        help: "Tell of each packet.",
        set: |written, _| {
            written.debug = true;
            Ok(())
        },
    },
    Flag {
        short: None,
        long: Some("quiet"),
        programs: Programs::ALL,
        value: Value::None,
        heading: Heading::Program,
        help: "Print no errors but those in the flags.",
        set: |written, _| {
            written.quiet = true;
            Ok(())
        },
    },
    Flag {
        short: None,
        long: Some("help"),
        programs: Programs::ALL,
        value: Value::None,
        heading: Heading::Program,
        help: "Print this help.",
        // The parser looks for it first.
        set: |_, _| Ok(()),
    },
    Flag {
        short: None,
        long: Some("version"),
        programs: Programs::ALL,
        value: Value::None,
        heading: Heading::Program,
        help: "Print the version.",
        set: |_, _| Ok(()),
    },
];

/// The flags of a program that are of use, under a heading.
pub fn flags_under(program: Program, heading: Heading) -> impl Iterator<Item = &'static Flag> {
    TABLE.iter().filter(move |flag| flag.programs.has(program) && flag.heading == heading && flag.is_supported())
}
