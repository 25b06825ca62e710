//! Help, man pages and completions of `pub`, `sub` and `rr`, all from the table of flags.

use clap::{Arg, ArgAction, Command};

use super::flags::{Flag, Heading, Program, Value, flags_under};

/// Columns of the help.
const COLUMNS: usize = 100;
/// Where the text begins that stands beside a flag.
const INDENT: usize = 8;

/// What `-F` understands, line by line; for help and man page.
const FORMAT: &[(&str, &str)] = &[
    ("%t %p", "Topic Name; payload"),
    ("%x %X", "payload in hexadecimal; %.2:x in groups of two digits with : between them"),
    ("%j %J", "all in one JSON object, the payload as a string; as the JSON it is"),
    ("%d %f", "payload of 8 bytes as a double, of 4 as a float, both little-endian; %.3d with three decimals"),
    ("%q %r %m %l", "QoS; retain flag; Packet Identifier, 0 for QoS 0; bytes of the payload"),
    ("%C %D %R %P", "Content Type; Correlation Data; Response Topic; User Properties as name:value"),
    ("%A %E %F %S", "Topic Alias; Message Expiry Interval; Payload Format Indicator; Subscription Identifier"),
    ("%I %U", "local time as 2016-08-10T09:47:38+0100; seconds since 1970 with nanoseconds"),
    ("@X", "what strftime makes of %X; @N is the nanoseconds of the second"),
    ("%% @@ \\\\", "the characters themselves"),
    ("\\0 \\a \\e \\n \\r \\t \\v", "a zero byte, bell, escape, line feed, carriage return, tabs"),
];

const FORMAT_SPACE: &str = "Between % and letter may stand a minus (at the left of its field), a zero (padded with zeros), the least \
    width, and behind a point the largest width: %-20.20t.";

const STATUS: &[(&str, &str)] = &[
    ("0", "all went well; also when a signal ended sub"),
    (
        "1",
        "something was wrong with the flags, with a message, or with standard output, or the broker could not be reached",
    ),
    (
        "2 4 7 19",
        "the broker broke the protocol; sent DISCONNECT; the connection was lost; the broker did not answer in time",
    ),
    ("27", "the time of -W was over"),
    ("130 143", "SIGINT, SIGTERM came before pub or rr had done all"),
    ("others", "the broker refused the connection, with this code in its CONNACK: 1 to 5, in MQTT 5 from 128 on"),
];

/// The help. `called` is how the program was called.
pub fn help(program: Program, called: &str) -> String {
    let mut text = format!("{}.\n\nUsage: {called} {}\n", program.about(), program.usage());
    for heading in Heading::ALL {
        let mut flags = flags_under(program, heading).peekable();
        if flags.peek().is_none() {
            continue;
        }
        text.push_str(&format!("\n{}:\n", heading.title()));
        for flag in flags {
            let called = format!("  {} {}", flag.names(), flag.value.name());
            text.push_str(&format!("{}\n", called.trim_end()));
            wrap(flag.help, INDENT, &mut text);
        }
    }
    if program != Program::Publish {
        text.push_str("\nFORMAT:\n");
        put_list(FORMAT, &mut text);
        wrap(FORMAT_SPACE, 2, &mut text);
    }
    text.push_str("\nStatus at the end:\n");
    put_list(STATUS, &mut text);
    text
}

fn put_list(list: &[(&str, &str)], text: &mut String) {
    let width = list.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, meaning) in list {
        let mut lines = String::new();
        wrap(meaning, width + 4, &mut lines);
        text.push_str(&format!("  {name:width$}  {}", lines.trim_start()));
    }
}

fn wrap(paragraph: &str, indent: usize, text: &mut String) {
    let mut column = 0;
    for word in paragraph.split_whitespace() {
        if column > 0 && column + 1 + word.chars().count() > COLUMNS {
            text.push('\n');
            column = 0;
        }
        if column == 0 {
            text.extend(std::iter::repeat_n(' ', indent));
            column = indent;
        } else {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += word.chars().count();
    }
    text.push('\n');
}

/// The program as clap describes programs: for man pages and completions, not to parse with.
pub fn command(program: Program) -> Command {
    let mut command = Command::new(program.name())
        .about(program.about())
        .override_usage(format!("pantala {} {}", program.name(), program.usage()))
        .disable_help_flag(true)
        .disable_version_flag(true);
    for heading in Heading::ALL {
        for flag in flags_under(program, heading) {
            command = command.arg(argument(flag).help_heading(heading.title()));
        }
    }
    command
}

fn argument(flag: &'static Flag) -> Arg {
    let id = flag.long.map_or_else(|| flag.short.unwrap_or(' ').to_string(), str::to_owned);
    let mut argument = Arg::new(id).help(flag.help);
    if let Some(short) = flag.short {
        argument = argument.short(short);
    }
    if let Some(long) = flag.long {
        argument = argument.long(long);
    }
    match flag.value {
        Value::None => argument.action(ArgAction::SetTrue),
        Value::One(name) => argument.action(ArgAction::Append).value_name(name).value_hint(match name {
            "FILE" | "SOCKET" => clap::ValueHint::FilePath,
            "FOLDER" => clap::ValueHint::DirPath,
            "HOST" => clap::ValueHint::Hostname,
            "URL" => clap::ValueHint::Url,
            _ => clap::ValueHint::Other,
        }),
        Value::Property => argument.action(ArgAction::Append).value_names(["PACKET", "NAME", "VALUE"]).num_args(3..=4),
    }
}

/// What a man page has behind its options, in roff.
pub fn man_sections(program: Program) -> String {
    let mut text = String::new();
    if program != Program::Publish {
        put_section("FORMAT", FORMAT, &mut text);
        text.push_str(&format!(".PP\n{}\n", roff(FORMAT_SPACE)));
    }
    put_section("EXIT STATUS", STATUS, &mut text);
    let files = format!("$XDG_CONFIG_HOME/{}, $XDG_CONFIG_HOME/pantala_{}", program.mosquitto_name(), program.name());
    let files = [(files.as_str(), "Flags, one with its value on a line; without $XDG_CONFIG_HOME in ~/.config.")];
    put_section("FILES", &files, &mut text);
    text
}

fn put_section(title: &str, list: &[(&str, &str)], text: &mut String) {
    text.push_str(&format!(".SH {title}\n"));
    for (name, meaning) in list {
        text.push_str(&format!(".TP\n\\fB{}\\fR\n{}\n", roff(name), roff(meaning)));
    }
}

/// Text with what roff would read as its own escaped.
fn roff(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-").replace('~', "\\(ti");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}
