//! Rules of the workspace that no lint can say.
//!
//! Each rule is one check. What it finds wrong is printed with the place and the reason, so that whoever trips over it
//! need not look the rule up.

mod crates;
mod licence;
mod text;

use crate::step::{Counts, Failure};
use crate::workspace::Workspace;

/// What a rule finds wrong, a line each.
type Findings = Vec<String>;

/// Checks every rule.
pub fn run(workspace: &Workspace) -> Result<Counts, Failure> {
    let metadata = &workspace.metadata;
    let files = text::Files::of(workspace)?;
    let rules: [(&str, Findings); 9] = [
        ("every dependency has a licence that we accept", licence::check(metadata)),
        ("no banned crate", crates::check_bans(metadata)),
        ("crates know only those below them", crates::check_order(metadata)),
        ("the core knows no network and no runtime", crates::check_core(metadata)),
        (
            "every crate has the workspace's lints, and unsafe code only where it is listed",
            crates::check_lints(metadata),
        ),
        ("every crate's first page says what it is for", crates::check_documentation(metadata)),
        ("no test is ignored, nothing is left to do", text::check_unfinished(&files)),
        ("no path of somebody's machine", text::check_paths(&files, workspace)),
        ("lock files name versions and checksums, not where to download", text::check_locks(&files)),
    ];
    let mut counts = Counts::default();
    for (rule, findings) in &rules {
        println!("{rule} ... {}", if findings.is_empty() { "ok" } else { "FAILED" });
        for finding in findings {
            println!("    {finding}");
        }
        counts += Counts::of(findings.is_empty());
    }
    Ok(counts)
}
