//! What the broker says of itself by command: `$CONTROL/broker/v1`, as Mosquitto 2.1 has it.
//!
//! It changes nothing. Who may publish to that topic by a rule that names it may ask.

use serde::Serialize;
use serde_json::Value;

use crate::config::{Config, ListenAddress, Protocol};

/// Where commands are published to; the answer comes by the same with `/response`.
pub(super) const COMMANDS: &str = "$CONTROL/broker/v1";
pub(super) const RESPONSES: &str = "$CONTROL/broker/v1/response";
/// The most bytes of a request.
const REQUEST_BYTES_MAX: usize = 65_536;
/// The most commands of a request.
const COMMANDS_MAX: usize = 100;

/// What there is to be told, made anew with each configuration.
#[derive(Debug, Serialize)]
pub(crate) struct Described {
    listeners: Vec<Listener>,
    plugins: Vec<Plugin>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Listener {
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    protocol: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    bind_address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    socket_path: Option<String>,
    tls: bool,
}

/// What is a plugin of Mosquitto's, and built in here.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Plugin {
    name: &'static str,
    version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    control_endpoints: Option<[&'static str; 1]>,
}

#[derive(Serialize)]
struct Responses<'a> {
    responses: Vec<Response<'a>>,
}

#[derive(Serialize)]
struct Response<'a> {
    command: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Data<'a>>,
    #[serde(rename = "correlationData", skip_serializing_if = "Option::is_none")]
    correlation_data: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Data<'a> {
    Listeners(&'a [Listener]),
    Plugins(&'a [Plugin]),
}

impl Described {
    pub(crate) fn of(config: &Config) -> Self {
        let listener = |listener: &crate::config::Listener| {
            let (port, bind_address, socket_path) = match &listener.address {
                ListenAddress::Unix(path) => (None, None, Some(path.display().to_string())),
                ListenAddress::Tcp { host, port } => (Some(*port), host.clone(), None),
            };
            let protocol = match listener.transport.protocol {
                Protocol::Mqtt => "mqtt",
                Protocol::WebSocket => "websockets",
                Protocol::Any => "any",
            };
            Listener { port, protocol, bind_address, socket_path, tls: listener.tls.is_some() }
        };
        let has_dynamic = config.security.iter().any(|domain| domain.dynamic_security_file.is_some());
        let version = env!("CARGO_PKG_VERSION");
        let dynamic = Plugin { name: "dynamic-security", version, control_endpoints: Some([super::dynamic::COMMANDS]) };
        let sparkplug = Plugin { name: "sparkplug-aware", version, control_endpoints: None };
        let is_aware = config.settings.sparkplug_aware;
        Self {
            listeners: config.listeners.iter().map(listener).collect(),
            plugins: has_dynamic.then_some(dynamic).into_iter().chain(is_aware.then_some(sparkplug)).collect(),
        }
    }

    /// The answer to a request.
    pub(super) fn answer(&self, request: &[u8]) -> String {
        let parsed =
            if request.len() > REQUEST_BYTES_MAX { None } else { serde_json::from_slice::<Value>(request).ok() };
        let failed =
            |error| Response { command: "Unknown command", error: Some(error), data: None, correlation_data: None };
        let commands = parsed.as_ref().map(|request| request.get("commands").and_then(Value::as_array));
        let responses = match commands {
            None => vec![failed("Payload not valid JSON")],
            Some(None) => vec![failed("Invalid/missing commands")],
            Some(Some(commands)) if commands.len() > COMMANDS_MAX => vec![failed("Too many commands")],
            Some(Some(commands)) => commands.iter().map(|command| self.respond(command)).collect(),
        };
        serde_json::to_string(&Responses { responses }).expect("strings and numbers can be written to memory")
    }

    fn respond<'a>(&'a self, command: &'a Value) -> Response<'a> {
        let text = |key: &str| command.get(key).and_then(Value::as_str);
        let correlation_data = text("correlationData");
        let (command, data) = match text("command") {
            Some(name @ "listListeners") => (name, Ok(Data::Listeners(&self.listeners))),
            Some(name @ "listPlugins") => (name, Ok(Data::Plugins(&self.plugins))),
            Some(name) => (name, Err("Unknown command")),
            None if command.is_object() => ("Unknown command", Err("Missing command")),
            None => ("Unknown command", Err("Command not an object")),
        };
        Response { command, error: data.as_ref().err().copied(), data: data.ok(), correlation_data }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_that_are_wrong_are_told_so() {
        let described = Described { listeners: Vec::new(), plugins: Vec::new() };
        let many = format!("{{\"commands\":[{}]}}", vec!["{}"; COMMANDS_MAX + 1].join(","));
        for (request, error) in [
            (&b"{"[..], "Payload not valid JSON"),
            (&vec![b' '; REQUEST_BYTES_MAX + 1], "Payload not valid JSON"),
            (b"[]", "Invalid/missing commands"),
            (br#"{"commands":{}}"#, "Invalid/missing commands"),
            (many.as_bytes(), "Too many commands"),
            (br#"{"commands":[1]}"#, "Command not an object"),
            (br#"{"commands":[{}]}"#, "Missing command"),
        ] {
            let expected = format!(r#"{{"responses":[{{"command":"Unknown command","error":"{error}"}}]}}"#);
            assert_eq!(described.answer(request), expected);
        }
        let answer =
            described.answer(br#"{"commands":[{"command":"listPlugins","correlationData":"x"},{"command":"no"}]}"#);
        let expected = r#"{"responses":[{"command":"listPlugins","data":{"plugins":[]},"correlationData":"x"},{"command":"no","error":"Unknown command"}]}"#;
        assert_eq!(answer, expected);
    }
}
