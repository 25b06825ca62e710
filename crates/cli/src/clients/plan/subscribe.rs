//! What `sub` does.

use std::path::PathBuf;
use std::time::Duration;

use pantala_proto::{QoS, RetainHandling};

use super::properties::UserProperties;
use super::{Connection, Properties, SubscribeProperties, checked_filter};
use crate::clients::decision::{Retained, Wanted};
use crate::clients::flags::{FlagError, Program, Surroundings, Written};
use crate::clients::output::{Escaping, Layout, LocalTime, Printer, Style};

/// What `sub` does.
#[derive(Debug, Clone, PartialEq)]
pub struct SubscribePlan {
    /// How to connect.
    pub connection: Connection,
    /// Topic Filters to subscribe to; empty only if there are some to unsubscribe from.
    pub filters: Vec<String>,
    /// Topic Filters to unsubscribe from, after that.
    pub unsubscribe: Vec<String>,
    /// QoS of the subscriptions.
    pub qos: QoS,
    /// Retain As Published; false before MQTT 5.
    pub retain_as_published: bool,
    /// Retain Handling; `Send` before MQTT 5.
    pub retain_handling: RetainHandling,
    /// Properties of SUBSCRIBE; empty before MQTT 5.
    pub subscribe_properties: SubscribeProperties,
    /// User Properties of UNSUBSCRIBE; empty before MQTT 5.
    pub unsubscribe_properties: UserProperties,
    /// What is done with messages.
    pub wanted: Wanted,
    /// End when all subscriptions are acknowledged.
    pub exit_after_subscribe: bool,
    /// End after this time, with status 27.
    pub timeout: Option<Duration>,
    /// What is printed of messages.
    pub output: Output,
    /// Payloads are written into files of this folder, and nothing is printed.
    pub output_folder: Option<PathBuf>,
    /// A screen with a line for each topic.
    pub watch: bool,
    /// Messages per second are printed, not messages.
    pub message_rate: bool,
}

/// What is printed of messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// What of a message.
    pub style: Style,
    /// A line feed behind each.
    pub ends_lines: bool,
    /// Layout of JSON.
    pub layout: Layout,
    /// As it is on a terminal too.
    pub raw: bool,
}

impl Output {
    pub(super) fn new(written: &Written) -> Result<Self, FlagError> {
        let style = match (&written.format, written.json) {
            (Some(_), true) => {
                let why = "each is the whole output";
                return Err(FlagError::Conflict { one: "-F", other: "--json", why });
            }
            (Some(format), false) => Style::Format(format.clone()),
            (None, true) => Style::Json,
            (None, false) if written.verbose => Style::Verbose,
            (None, false) => Style::Payload,
        };
        // A line is the unit of --json.
        let layout = if written.pretty && !written.json { Layout::Pretty } else { Layout::Compact };
        Ok(Self { style, ends_lines: !written.no_newline, layout, raw: written.raw })
    }

    /// What prints it, to a terminal or not.
    pub fn printer(&self, is_terminal: bool, zone: LocalTime) -> Printer {
        Printer {
            style: self.style.clone(),
            ends_lines: self.ends_lines,
            layout: self.layout,
            escaping: if is_terminal && !self.raw { Escaping::Terminal } else { Escaping::Raw },
            zone,
        }
    }
}

impl SubscribePlan {
    /// What prints messages, to a terminal or not. With `watch` each message is one line, whatever is in it.
    pub fn printer(&self, is_terminal: bool, zone: LocalTime) -> Printer {
        let printer = self.output.printer(is_terminal, zone);
        if self.watch {
            return Printer { escaping: Escaping::OneLine, layout: Layout::Compact, ..printer };
        }
        printer
    }

    /// Checks what was written.
    ///
    /// # Errors
    /// The first contradiction or gap.
    pub fn new(written: &Written, surroundings: &Surroundings<'_>) -> Result<Self, FlagError> {
        let properties = Properties::new(&written.properties)?;
        let checked = |flag, filters: &[String]| {
            filters.iter().map(|filter| checked_filter(flag, filter.clone())).collect::<Result<Vec<_>, _>>()
        };
        // Those of a file and those of the command line add up.
        let filters = written.topics.iter().map(|(_, filter)| filter.clone()).collect::<Vec<_>>();
        let filters = checked("-t", &filters)?;
        let unsubscribe = checked("-U", &written.unsubscribe)?;
        if filters.is_empty() && unsubscribe.is_empty() {
            return Err(FlagError::Missing { flag: "-t", why: "there is no topic to subscribe to" });
        }
        if written.watch && written.message_rate {
            let why = "each has the screen for itself";
            return Err(FlagError::Conflict { one: "-w", other: "--message-rate", why });
        }
        if written.output_folder.is_some() {
            let printing = [
                ("-F", written.format.is_some()),
                ("--json", written.json),
                ("-v", written.verbose),
                ("-N", written.no_newline),
                ("--pretty", written.pretty),
                ("-w", written.watch),
                ("--message-rate", written.message_rate),
            ];
            if let Some((other, _)) = printing.into_iter().find(|(_, given)| *given) {
                let why = "what goes into files is not printed";
                return Err(FlagError::Conflict { one: "--output-dir", other, why });
            }
        }
        let connection = Connection::new(Program::Subscribe, written, &properties, surroundings)?;
        let is_v5 = connection.version.is_v5();
        Ok(Self {
            filters,
            unsubscribe,
            qos: written.qos.unwrap_or_default(),
            retain_as_published: written.retain_as_published && is_v5,
            retain_handling: written.retain_handling.filter(|_| is_v5).unwrap_or_default(),
            subscribe_properties: properties.subscribe,
            unsubscribe_properties: properties.unsubscribe,
            wanted: Wanted {
                filter_out: checked("-T", &written.filter_out)?,
                retained: retained(written)?,
                remove_retained: written.remove_retained,
                print_percent: written.random_filter,
                count: written.count,
            },
            exit_after_subscribe: written.exit_after_subscribe,
            timeout: written.timeout,
            output: Output::new(written)?,
            output_folder: written.output_folder.clone(),
            watch: written.watch,
            message_rate: written.message_rate,
            connection,
        })
    }
}

pub(super) fn retained(written: &Written) -> Result<Retained, FlagError> {
    let has = |wanted| written.retained.contains(&wanted);
    if has(Retained::Hidden) && has(Retained::Only) {
        let why = "nothing would be left";
        return Err(FlagError::Conflict { one: "-R", other: "--retained-only", why });
    }
    Ok(written.retained.first().copied().unwrap_or_default())
}
