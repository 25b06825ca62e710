//! Rules about crates: which are banned, which may know which, and what each of ours has to have.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::Findings;

/// How far a ban reaches.
#[derive(PartialEq, Eq)]
enum Reach {
    /// Nobody may use it, dependencies neither.
    Anywhere,
    /// We may not; what others use is theirs.
    Ours,
}

const BANNED: [(&str, Reach, &str); 8] = [
    ("openssl", Reach::Anywhere, "TLS is rustls; a C library would be one more thing to build, ship and patch"),
    ("openssl-sys", Reach::Anywhere, "TLS is rustls; a C library would be one more thing to build, ship and patch"),
    ("native-tls", Reach::Anywhere, "TLS is rustls, the same on every platform"),
    ("bincode", Reach::Anywhere, "it is no longer maintained, and our formats are written down byte by byte"),
    ("dashmap", Reach::Anywhere, "a worker shares no map; where one is shared, it has one lock with a name"),
    ("ahash", Reach::Ours, "foldhash does the same for hashbrown's default; one hash is enough"),
    ("lazy_static", Reach::Ours, "std::sync::LazyLock does the same"),
    ("once_cell", Reach::Ours, "std::sync::OnceLock and LazyLock do the same"),
];

/// Which of our crates each may use, in what is shipped; tests may use more. Whoever is not in the list is not checked in
/// yet: a new crate gets its line here first.
const ORDER: &[(&str, &[&str])] = &[
    // Seeded bugs: whoever has some uses it, in builds with the feature `mutants` only.
    ("pantala-mutants", &[]),
    ("pantala-password", &[]),
    ("pantala-proto", &[]),
    ("pantala-access", &["pantala-proto"]),
    ("pantala-session", &["pantala-mutants", "pantala-proto"]),
    ("pantala-router", &[]),
    ("pantala-store", &["pantala-mutants"]),
    (
        "pantala-broker",
        &["pantala-access", "pantala-mutants", "pantala-proto", "pantala-session", "pantala-router", "pantala-store"],
    ),
    // It knows sockets' bytes, not MQTT's.
    ("pantala-transport", &[]),
    ("pantala-tls", &[]),
    ("pantala-identity", &["pantala-password", "pantala-session"]),
    (
        "pantala-server",
        &[
            "pantala-access",
            "pantala-identity",
            "pantala-password",
            "pantala-proto",
            "pantala-session",
            "pantala-store",
            "pantala-broker",
            "pantala-tls",
            "pantala-transport",
        ],
    ),
    // The store is for its outbox.
    ("pantala-client", &["pantala-proto", "pantala-session", "pantala-store"]),
    ("pantala", &["pantala-access", "pantala-password", "pantala-proto", "pantala-server", "pantala-client"]),
    // Black-box: what they shared with the broker, a bug could share too.
    ("pantala-conformance", &[]),
    // The client library is one of those it measures.
    ("pantala-bench", &["pantala-proto", "pantala-client"]),
    // It reads and writes packets as we do, knows the seeded bugs by name, and shares no state of an exchange with the
    // broker it checks.
    ("pantala-crashlab", &["pantala-mutants", "pantala-proto"]),
    ("xtask", &[]),
];

const FORBIDDEN: &str = "unsafe_code = \"forbid\"";

/// The crates that need unsafe code, each with the one module that may have it, under `src`.
const UNSAFE_MODULES: [(&str, &str); 2] = [("pantala-proto", "text.rs"), ("pantala-crashlab", "shutdown.rs")];

/// The crates without sockets, threads or clock, and what would bring such things in.
const CORE: [&str; 7] = [
    "pantala-access",
    "pantala-proto",
    "pantala-session",
    "pantala-router",
    "pantala-store",
    "pantala-broker",
    "pantala-identity",
];
const NOT_IN_CORE: [(&str, &str); 9] = [
    ("mio", "the core opens no socket"),
    ("socket2", "the core opens no socket"),
    ("rustls", "TLS is a stage between socket bytes and MQTT bytes"),
    ("tokio", "the core waits for nothing"),
    ("futures", "the core waits for nothing"),
    ("hyper", "the core speaks no HTTP"),
    ("signal-hook", "the core has no process"),
    ("getrandom", "the core has no source of randomness; seeds are given to it"),
    ("tracing", "the core is silent: what it has to say leaves it as an event"),
];

/// No crate of the list of banned ones.
pub fn check_bans(metadata: &Value) -> Findings {
    let mut findings = Findings::new();
    for (banned, reach, why) in &BANNED {
        for package in our_packages(metadata) {
            if dependencies(package).any(|dependency| dependency["name"] == *banned) {
                findings.push(format!("{} uses {banned}: {why}", name(package)));
            }
        }
        if *reach == Reach::Anywhere {
            let used = packages(metadata).any(|package| name(package) == *banned);
            if used {
                findings.push(format!("{banned} is in Cargo.lock: {why}; `cargo tree -i {banned}` tells by whom"));
            }
        }
    }
    findings
}

/// No crate uses one above it.
pub fn check_order(metadata: &Value) -> Findings {
    let ours: BTreeSet<&str> = our_packages(metadata).map(name).collect();
    let mut findings = Findings::new();
    for package in our_packages(metadata) {
        let Some((_, allowed)) = ORDER.iter().find(|(listed, _)| *listed == name(package)) else {
            findings.push(format!("{} has no line in the order of crates", name(package)));
            continue;
        };
        for used in shipped_dependencies(package).filter(|used| ours.contains(used) && !allowed.contains(used)) {
            findings.push(format!("{} uses {used}, which it must not know", name(package)));
        }
    }
    findings
}

/// The core uses nothing that knows of sockets, time, threads or chance.
pub fn check_core(metadata: &Value) -> Findings {
    let mut findings = Findings::new();
    for package in our_packages(metadata).filter(|package| CORE.contains(&name(package))) {
        for (banned, why) in NOT_IN_CORE {
            if shipped_dependencies(package).any(|used| used == banned) {
                findings.push(format!("{} uses {banned}: {why}", name(package)));
            }
        }
    }
    findings
}

/// The root manifest forbids unsafe code, and every crate says `[lints] workspace = true`.
///
/// A crate of `UNSAFE_MODULES` cannot, since what is forbidden cannot be allowed again in a module. It repeats the
/// workspace's lints, denies unsafe code, and allows it in that module alone.
pub fn check_lints(metadata: &Value) -> Findings {
    let mut findings = Findings::new();
    let root = Path::new(metadata["workspace_root"].as_str().unwrap_or_default());
    let read = |file: &Path| fs::read_to_string(file).unwrap_or_default();
    let workspace = read(&root.join("Cargo.toml"));
    if !settings(&workspace, "workspace.lints.rust").contains(&FORBIDDEN) {
        findings.push(format!("the root manifest has no `{FORBIDDEN}` under [workspace.lints.rust]"));
    }
    for package in our_packages(metadata) {
        let path = manifest(package);
        let manifest = read(&path);
        match UNSAFE_MODULES.iter().find(|(listed, _)| *listed == name(package)) {
            None if settings(&manifest, "lints").contains(&"workspace = true") => {}
            None => findings.push(format!("{} has no `workspace = true` under [lints]", path.display())),
            Some((_, module)) => {
                for missing in missing_lints(&workspace, &manifest) {
                    findings.push(format!("{} has no lint `{missing}`", path.display()));
                }
                let source = path.with_file_name("src");
                let module = source.join(module);
                for file in rust_files(&source).iter().filter(|file| **file != module) {
                    if read(file).contains("allow(unsafe_code") {
                        findings.push(format!("{} allows unsafe code; only {} may", file.display(), module.display()));
                    }
                }
            }
        }
    }
    findings
}

/// What a crate with an unsafe module lacks of the workspace's lints, and of those it needs instead.
fn missing_lints<'a>(workspace: &'a str, manifest: &str) -> Vec<&'a str> {
    let mut missing = Vec::new();
    for (tool, instead) in [("rust", "unsafe_code = \"deny\""), ("clippy", "undocumented_unsafe_blocks = \"deny\"")] {
        let required = settings(workspace, &format!("workspace.lints.{tool}"));
        let own = settings(manifest, &format!("lints.{tool}"));
        let required = required.into_iter().filter(|line| *line != FORBIDDEN).chain([instead]);
        missing.extend(required.filter(|line| !own.contains(line)));
    }
    missing
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// The root of every library and executable begins with its documentation.
pub fn check_documentation(metadata: &Value) -> Findings {
    let mut findings = Findings::new();
    for package in our_packages(metadata) {
        for target in package["targets"].as_array().into_iter().flatten() {
            let kinds: Vec<&str> = target["kind"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            let root = target["src_path"].as_str().unwrap_or_default();
            let is_shipped = kinds.contains(&"lib") || kinds.contains(&"bin");
            if is_shipped && !begins_with_documentation(&fs::read_to_string(root).unwrap_or_default()) {
                findings.push(format!("{root} does not begin with `//!`"));
            }
        }
    }
    findings
}

fn begins_with_documentation(source: &str) -> bool {
    source
        .lines()
        .map(str::trim)
        .find(|line| !line.is_empty() && !line.starts_with("#!"))
        .is_some_and(|line| line.strip_prefix("//!").is_some_and(|text| !text.trim().is_empty()))
}

/// The lines of a section of a manifest, without comments. Our manifests are formatted, so text is enough.
fn settings<'a>(manifest: &'a str, section: &str) -> Vec<&'a str> {
    let header = format!("[{section}]");
    let lines = manifest.lines().map(str::trim).skip_while(|line| *line != header).skip(1);
    lines.take_while(|line| !line.starts_with('[')).filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}

fn packages(metadata: &Value) -> impl Iterator<Item = &Value> {
    metadata["packages"].as_array().into_iter().flatten()
}

fn our_packages(metadata: &Value) -> impl Iterator<Item = &Value> {
    let members: BTreeSet<&str> =
        metadata["workspace_members"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    packages(metadata).filter(move |package| package["id"].as_str().is_some_and(|id| members.contains(id)))
}

fn name(package: &Value) -> &str {
    package["name"].as_str().unwrap_or("?")
}

fn manifest(package: &Value) -> PathBuf {
    PathBuf::from(package["manifest_path"].as_str().unwrap_or_default())
}

fn dependencies(package: &Value) -> impl Iterator<Item = &Value> {
    package["dependencies"].as_array().into_iter().flatten()
}

/// The names of all dependencies but those of tests, which cargo calls `dev`.
fn shipped_dependencies(package: &Value) -> impl Iterator<Item = &str> {
    dependencies(package).filter(|dependency| dependency["kind"] != "dev").filter_map(|used| used["name"].as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The name of a package, and its dependencies with their kinds.
    type Package<'a> = (&'a str, &'a [(&'a str, Option<&'a str>)]);

    /// A workspace of packages; one package more comes from outside.
    fn workspace(ours: &[Package<'_>], outside: &str) -> Value {
        let mut packages: Vec<Value> = ours
            .iter()
            .map(|(name, dependencies)| {
                let dependencies: Vec<Value> =
                    dependencies.iter().map(|(name, kind)| json!({"name": name, "kind": kind})).collect();
                json!({"name": name, "id": name, "dependencies": dependencies})
            })
            .collect();
        packages.push(json!({"name": outside, "id": outside, "dependencies": []}));
        let members: Vec<&str> = ours.iter().map(|(name, _)| *name).collect();
        json!({"packages": packages, "workspace_members": members})
    }

    #[test]
    fn crates_may_use_those_below_them_only() {
        let fine = workspace(
            &[
                ("pantala-proto", &[("pantala-broker", Some("dev"))]),
                ("pantala-session", &[("pantala-proto", None)]),
                ("pantala-broker", &[("pantala-session", None)]),
            ],
            "memchr",
        );
        assert_eq!(check_order(&fine), Findings::new());
        let upwards = workspace(&[("pantala-proto", &[("pantala-session", None)]), ("pantala-session", &[])], "memchr");
        assert_eq!(check_order(&upwards), ["pantala-proto uses pantala-session, which it must not know"]);
        let by_build_script =
            workspace(&[("pantala-store", &[("pantala-proto", Some("build"))]), ("pantala-proto", &[])], "m");
        assert_eq!(check_order(&by_build_script).len(), 1);
        let unknown = workspace(&[("pantala-new", &[])], "memchr");
        assert_eq!(check_order(&unknown), ["pantala-new has no line in the order of crates"]);
    }

    #[test]
    fn the_order_itself_has_no_circle() {
        // Each crate may use only what stands before it in the list.
        for (place, (name, allowed)) in ORDER.iter().enumerate() {
            for used in *allowed {
                let below = ORDER.iter().position(|(listed, _)| listed == used);
                assert!(below.is_some_and(|below| below < place), "{name} may use {used}");
            }
        }
    }

    #[test]
    fn banned_crates_are_found_directly_and_beneath_others() {
        assert_eq!(check_bans(&workspace(&[("pantala-proto", &[("memchr", None)])], "memchr")), Findings::new());
        let direct = check_bans(&workspace(&[("pantala-proto", &[("lazy_static", None)])], "lazy_static"));
        assert_eq!(direct, ["pantala-proto uses lazy_static: std::sync::LazyLock does the same"]);
        assert_eq!(check_bans(&workspace(&[("pantala-proto", &[])], "lazy_static")), Findings::new());
        let beneath = check_bans(&workspace(&[("pantala-proto", &[])], "openssl-sys"));
        assert_eq!(beneath.len(), 1);
        assert!(beneath[0].starts_with("openssl-sys is in Cargo.lock"), "{beneath:?}");
    }

    #[test]
    fn the_core_knows_no_network() {
        let fine =
            workspace(&[("pantala-broker", &[("mio", Some("dev"))]), ("pantala-server", &[("mio", None)])], "mio");
        assert_eq!(check_core(&fine), Findings::new());
        let wrong = workspace(&[("pantala-store", &[("socket2", None)])], "socket2");
        assert_eq!(check_core(&wrong), ["pantala-store uses socket2: the core opens no socket"]);
    }

    #[test]
    fn settings_are_found_in_their_section_only() {
        let manifest = "[package]\nname = \"x\"\n\n[lints]\n# Why.\nworkspace = true\n\n[dependencies]\nmio = \"1\"\n";
        assert_eq!(settings(manifest, "lints"), ["workspace = true"]);
        assert_eq!(settings(manifest, "package"), ["name = \"x\""]);
        assert_eq!(settings(manifest, "features"), [""; 0]);
    }

    #[test]
    fn a_crate_with_unsafe_code_has_all_other_lints() {
        let workspace = "[workspace.lints.rust]\nunsafe_code = \"forbid\"\nmissing_docs = \"warn\"\n\n\
                         [workspace.lints.clippy]\ndbg_macro = \"warn\"\n";
        let complete = "[lints.rust]\nunsafe_code = \"deny\"\nmissing_docs = \"warn\"\n\n\
                        [lints.clippy]\ndbg_macro = \"warn\"\nundocumented_unsafe_blocks = \"deny\"\n";
        assert_eq!(missing_lints(workspace, complete), [""; 0]);
        let lax = complete.replace("missing_docs = \"warn\"\n", "").replace("unsafe_code = \"deny\"", "");
        assert_eq!(missing_lints(workspace, &lax), ["missing_docs = \"warn\"", "unsafe_code = \"deny\""]);
    }

    #[test]
    fn documentation_stands_first() {
        assert!(begins_with_documentation("//! What it is for.\n\nmod x;"));
        assert!(begins_with_documentation("#![no_std]\n\n//! What it is for.\n"));
        assert!(!begins_with_documentation("mod x;\n//! Too late.\n"));
        assert!(!begins_with_documentation("//!\nmod x;"));
        assert!(!begins_with_documentation("// A note.\n//! Late.\n"));
        assert!(!begins_with_documentation(""));
    }
}
