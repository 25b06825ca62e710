//! The numbered statements of both standards, and what the suite does about each.

use std::fmt;

use crate::tests;
use crate::wire::Version;

/// Whom a statement binds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    /// The client alone.
    Client,
    /// The server alone.
    Server,
    /// Both.
    Both,
}

/// One numbered statement, in our words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statement {
    /// The version; the same id means different statements in the two.
    pub version: Version,
    /// `MQTT-chapter-number`.
    pub id: &'static str,
    /// Section of the standard.
    pub section: &'static str,
    /// Whom it binds.
    pub actor: Actor,
    /// What it demands.
    pub paraphrase: &'static str,
}

const MQTT5: &str = include_str!("../statements/mqtt5-normative.tsv");
const MQTT311: &str = include_str!("../statements/mqtt311-normative.tsv");

/// All statements, 5.0 first.
pub fn all() -> Vec<Statement> {
    let table = |version, text: &'static str| {
        text.lines().skip(1).filter_map(move |line| {
            let mut fields = line.split('\t');
            let (id, section, actor, paraphrase) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
            let actor = match actor {
                "client" => Actor::Client,
                "server" => Actor::Server,
                _ => Actor::Both,
            };
            Some(Statement { version, id, section, actor, paraphrase })
        })
    };
    table(Version::V5, MQTT5).chain(table(Version::V311, MQTT311)).collect()
}

const CLIENT: &str = "client statement: tested with the client library";
const WEBSOCKET: &str = "transport not part of the broker yet";

/// Server statements without a test, each with its reason.
const EXCEPTIONS: &[(Version, &str, &str)] = &[
    (Version::V5, "MQTT-6.0.0-1", WEBSOCKET),
    (Version::V5, "MQTT-6.0.0-2", WEBSOCKET),
    (Version::V5, "MQTT-6.0.0-4", WEBSOCKET),
    (Version::V311, "MQTT-6.0.0-1", WEBSOCKET),
    (Version::V311, "MQTT-6.0.0-2", WEBSOCKET),
    (Version::V311, "MQTT-6.0.0-4", WEBSOCKET),
    (
        Version::V311,
        "MQTT-4.8.0-2",
        "a transient error inside the broker cannot be brought about from outside; tested with a failing store",
    ),
    (
        Version::V311,
        "MQTT-7.0.0-1",
        "only a server that also connects out is bound; as a client it is tested with the client library",
    ),
];

/// What the suite does about a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cover {
    /// The tests that show it.
    Tests(Vec<&'static str>),
    /// No test, for this reason.
    Exception(&'static str),
    /// Neither.
    Missing,
}

/// Each statement with what the suite does about it.
pub struct Coverage {
    /// In the order of the standards.
    pub entries: Vec<(Statement, Cover)>,
}

impl Coverage {
    /// Statements that bind a server and have neither a test nor an exception.
    pub fn missing(&self) -> usize {
        self.entries.iter().filter(|(_, cover)| *cover == Cover::Missing).count()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut tested, mut excepted) = (0, 0);
        for (statement, cover) in &self.entries {
            let what = match cover {
                Cover::Tests(names) => {
                    tested += 1;
                    names.join(", ")
                }
                Cover::Exception(reason) => {
                    excepted += 1;
                    format!("exception: {reason}")
                }
                Cover::Missing => "MISSING".to_owned(),
            };
            writeln!(f, "{:<6} {:<14} {what}", statement.version, statement.id)?;
        }
        write!(f, "{tested} tested, {excepted} excepted, {} missing", self.missing())
    }
}

/// What the suite does about each statement.
pub fn coverage() -> Coverage {
    let tests = tests();
    let entries = all()
        .into_iter()
        .map(|s| {
            let names: Vec<_> =
                tests.iter().filter(|t| t.version == s.version && t.ids.contains(&s.id)).map(|t| t.name).collect();
            let exception = EXCEPTIONS.iter().find(|(v, id, _)| *v == s.version && *id == s.id).map(|(_, _, r)| *r);
            let cover = match (names.is_empty(), exception, s.actor) {
                (false, _, _) => Cover::Tests(names),
                (true, Some(reason), _) => Cover::Exception(reason),
                (true, None, Actor::Client) => Cover::Exception(CLIENT),
                (true, None, _) => Cover::Missing,
            };
            (s, cover)
        })
        .collect();
    Coverage { entries }
}

#[cfg(test)]
mod checks {
    use super::*;

    #[test]
    fn the_lists_are_whole() {
        let count = |version| all().iter().filter(|s| s.version == version).count();
        assert_eq!((count(Version::V5), count(Version::V311)), (251, 141));
    }

    #[test]
    fn every_server_statement_has_a_test_or_a_reason() {
        let missing: Vec<_> = coverage()
            .entries
            .into_iter()
            .filter(|(_, cover)| *cover == Cover::Missing)
            .map(|(s, _)| (s.version, s.id, s.paraphrase))
            .collect();
        assert!(missing.is_empty(), "{missing:#?}");
    }

    #[test]
    fn tests_and_exceptions_name_statements_that_exist() {
        let all = all();
        let known = |version, id: &str| all.iter().any(|s| s.version == version && s.id == id);
        for test in tests() {
            for id in test.ids {
                assert!(known(test.version, id), "{} names {} {id}", test.name, test.version);
            }
        }
        for (version, id, _) in EXCEPTIONS {
            assert!(known(*version, id), "exception for {version} {id}");
        }
    }

    #[test]
    fn no_statement_has_both_a_test_and_an_exception() {
        for (version, id, _) in EXCEPTIONS {
            let tested = tests().iter().any(|t| t.version == *version && t.ids.contains(id));
            assert!(!tested, "{version} {id}");
        }
    }
}
