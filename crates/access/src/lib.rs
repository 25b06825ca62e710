//! Who may publish, receive and subscribe.
//!
//! [`Rules`] are what was written about everybody in one security domain, compiled; [`Rights`] are what one client may do
//! by them, made when it connects and again when the rules change. Rules come from the configuration ([`RulesDraft`]), from
//! Mosquitto's ACL file ([`Rules::from_mosquitto_acl`]), or from dynamic security ([`dynsec`]); [`Grants`] come with a
//! client. All become the same lists of filters that allow or deny, so a question costs the same whatever was written.
//!
//! In rules of the configuration and in grants what denies wins, and a Topic Filter may be subscribed to when everything it
//! can match may be. Mosquitto's sources keep Mosquitto's order: the first rule that fits decides.
//!
//! The crate reads no file and no clock and draws no random number: the same rules and the same client give the same
//! rights.
//!
//! ```
//! use pantala_access::{Permissions, RoleDraft, RuleDraft, RulesDraft, Subject};
//!
//! let strings = |texts: &[&str]| texts.iter().map(|text| text.to_string()).collect();
//! let sensor = Permissions { publish: strings(&["dev/%c/#"]), subscribe: strings(&["cmd/%c/+"]), ..Permissions::default() };
//! let rules = RulesDraft {
//!     roles: vec![RoleDraft { name: "sensor".into(), permissions: sensor }],
//!     rules: vec![RuleDraft { users: strings(&["*"]), roles: strings(&["sensor"]), ..RuleDraft::default() }],
//!     ..RulesDraft::default()
//! };
//! let rights = rules.compile()?.rights(&Subject { client_id: "hall", user_name: Some("eve"), ..Subject::default() });
//! assert!(rights.may_publish("dev/hall/temperature") && !rights.may_publish("dev/attic/temperature"));
//! assert!(rights.may_subscribe("cmd/hall/reboot", None) && !rights.may_subscribe("cmd/#", None));
//! assert!(rights.may_receive("cmd/hall/reboot"));
//! # Ok::<(), pantala_access::Error>(())
//! ```

mod address;
mod draft;
pub mod dynsec;
mod error;
mod filter;
mod layer;
mod matcher;
mod mosquitto;
mod rights;
mod rules;
mod subject;

pub use address::{Network, NetworkError};
pub use draft::{DefaultAccess, Permissions, RoleDraft, RuleDraft, RulesDraft};
pub use error::Error;
pub use rights::Rights;
pub use rules::Rules;
pub use subject::{Grants, Subject};

/// The most levels of a Topic Filter in a rule.
pub const FILTER_LEVELS_MAX: usize = 200;

/// The most bytes of a line of an ACL file: a keyword, an access and the longest Topic Filter.
pub const ACL_LINE_BYTES_MAX: usize = 70_000;

/// The most roles of a [`RulesDraft`].
pub const ROLES_MAX: usize = 10_000;

/// The most rules of a [`RulesDraft`].
pub const RULES_MAX: usize = 100_000;

/// The most Topic Filters that one client's credentials may carry.
pub const GRANTS_FILTERS_MAX: usize = 1_000;
