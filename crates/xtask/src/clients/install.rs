//! What the drivers need: programs from the system's packages, libraries at the versions that `clients/` pins.
//!
//! Everything is done once and found done the next time. The libraries go to the target folder and to
//! `clients/mqttjs/node_modules`, which no version control sees; only missing programs are installed into the system,
//! and only where that is allowed: on a Debian system, as root.

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::clients::{Client, Driver};
use crate::process::Guarded;
use crate::workspace::Workspace;

/// The programs a client needs, each with the Debian package that has it.
fn programs(client: Client) -> &'static [(&'static str, &'static str)] {
    match client {
        Client::MosquittoClients => {
            &[("mosquitto_sub", "mosquitto-clients"), ("python3", "python3"), ("stdbuf", "coreutils")]
        }
        // haproxy is looked for where it is.
        Client::Haproxy => &[("python3", "python3"), ("openssl", "openssl")],
        Client::PahoMqtt | Client::Aiomqtt => &[("python3", "python3")],
        Client::Mqttjs | Client::MqttjsWebsocket => &[("node", "nodejs"), ("npm", "npm")],
        Client::MqttjsWebsocketTls => &[("node", "nodejs"), ("npm", "npm"), ("openssl", "openssl")],
        Client::Chromium => &[("node", "nodejs"), ("npm", "npm"), ("chromium", "chromium")],
        Client::ChromiumTls => &[("node", "nodejs"), ("npm", "npm"), ("chromium", "chromium"), ("openssl", "openssl")],
    }
}

/// What the drivers are written for: `asyncio` as of this version.
const PYTHON_VERSION_MIN: (u32, u32) = (3, 11);

/// Each client with its driver, or why it cannot be run here and what would help.
pub fn prepare(workspace: &Workspace, wanted: &[Client]) -> Vec<(Client, Result<Driver, String>)> {
    let needed: BTreeSet<_> = wanted.iter().flat_map(|&client| programs(client)).copied().collect();
    let missing: BTreeSet<_> =
        needed.into_iter().filter(|(program, _)| find(program).is_none()).map(|(_, package)| package).collect();
    let could_not_install = if missing.is_empty() { None } else { install_packages(&missing).err() };

    let mut libraries: Option<Result<PathBuf, String>> = None;
    let mut prepared = Vec::new();
    for &client in wanted {
        let driver = (|| {
            if let Some((program, package)) = programs(client).iter().find(|(program, _)| find(program).is_none()) {
                let why = could_not_install.as_deref().unwrap_or("the package was installed, but does not have it");
                return Err(format!("there is no {program}: {why}. Install it (Debian's package is {package})"));
            }
            let scripts = workspace.root.join("clients");
            match client {
                Client::MosquittoClients => {
                    let script = scripts.join("python/mosquitto_driver.py");
                    Ok(Driver { client, program: python()?, script, certificate: None })
                }
                Client::PahoMqtt | Client::Aiomqtt | Client::Haproxy => {
                    if client == Client::Haproxy {
                        haproxy()?;
                    }
                    let program = libraries.get_or_insert_with(|| python_libraries(workspace)).clone()?;
                    let name = if client == Client::Aiomqtt { "aiomqtt_driver.py" } else { "paho_driver.py" };
                    Ok(Driver { client, program, script: scripts.join("python").join(name), certificate: None })
                }
                Client::Mqttjs => node_driver(workspace, client, "driver.mjs"),
                Client::MqttjsWebsocket => node_driver(workspace, client, "websocket_driver.mjs"),
                Client::MqttjsWebsocketTls => node_driver(workspace, client, "websocket_tls_driver.mjs"),
                Client::Chromium => node_driver(workspace, client, "chromium_driver.mjs"),
                Client::ChromiumTls => node_driver(workspace, client, "chromium_tls_driver.mjs"),
            }
        })();
        prepared.push((client, driver));
    }
    prepared
}

fn node_driver(workspace: &Workspace, client: Client, name: &str) -> Result<Driver, String> {
    node_libraries(workspace)?;
    let script = workspace.root.join("clients/mqttjs").join(name);
    Ok(Driver { client, program: found("node")?, script, certificate: None })
}

/// Sees to it that programs are there, each with the Debian package that has it. What cannot be installed is told, and left
/// to those who miss it.
pub fn provide(programs: &[(&'static str, &'static str)]) {
    let missing: BTreeSet<_> =
        programs.iter().filter(|(program, _)| find(program).is_none()).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return;
    }
    if let Err(why) = install_packages(&missing) {
        println!("Missing: {} ({why})", missing.iter().copied().collect::<Vec<_>>().join(", "));
    }
}

/// The broker mosquitto, or why there is none.
pub fn mosquitto() -> Result<PathBuf, String> {
    server("mosquitto")
}

/// The load balancer haproxy, or why there is none.
pub fn haproxy() -> Result<PathBuf, String> {
    server("haproxy")
}

/// Debian has servers where only administrators look for programs.
fn server(name: &'static str) -> Result<PathBuf, String> {
    let look = || find(name).or_else(|| Some(Path::new("/usr/sbin").join(name)).filter(|file| file.is_file()));
    if let Some(file) = look() {
        return Ok(file);
    }
    install_packages(&BTreeSet::from([name]))?;
    look().ok_or_else(|| format!("the package {name} was installed, but does not have it"))
}

fn install_packages(packages: &BTreeSet<&str>) -> Result<(), String> {
    if find("apt-get").is_none() {
        return Err("it can be installed here only by hand, since there is no apt-get".into());
    }
    if !rustix::process::geteuid().is_root() {
        return Err("it can be installed here only by hand, since this is not run as root".into());
    }
    println!("Installing {}", packages.iter().copied().collect::<Vec<_>>().join(", "));
    // Another installation may be under way on the machine.
    let options = ["-qq", "-o", "DPkg::Lock::Timeout=300"];
    run("apt-get", options.iter().chain(&["update"]))?;
    let arguments = ["install", "-y", "--no-install-recommends"];
    run("apt-get", options.iter().chain(&arguments).chain(packages))
}

fn python() -> Result<PathBuf, String> {
    let python = found("python3")?;
    let (major, minor) = PYTHON_VERSION_MIN;
    let enough = format!("import sys; sys.exit(sys.version_info < ({major}, {minor}))");
    run(&python, ["-c", &enough])
        .map_err(|_| format!("{} is older than {major}.{minor}; install a newer one", python.display()))?;
    Ok(python)
}

/// A virtual environment with the pinned libraries; its interpreter.
fn python_libraries(workspace: &Workspace) -> Result<PathBuf, String> {
    let folder = workspace.target.join("clients/venv");
    let interpreter = folder.join("bin/python");
    let requirements = workspace.root.join("clients/python/requirements.txt");
    let pinned = read(&requirements)?;
    let done = folder.join("installed-requirements.txt");
    if interpreter.exists() && fs::read_to_string(&done).is_ok_and(|installed| installed == pinned) {
        return Ok(interpreter);
    }
    println!("Installing {} into {}", requirements.display(), folder.display());
    let python = python()?;
    let create = || run(&python, [OsStr::new("-m"), OsStr::new("venv"), OsStr::new("--clear"), folder.as_os_str()]);
    if let Err(why) = create() {
        // Debian's python3 makes virtual environments only with this package.
        install_packages(&BTreeSet::from(["python3-venv"])).map_err(|hint| format!("{why} ({hint})"))?;
        create()?;
    }
    let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"];
    run(&interpreter, install.iter().map(OsStr::new).chain([requirements.as_os_str()]))?;
    write(&done, &pinned)?;
    Ok(interpreter)
}

/// `clients/mqttjs/node_modules` as the lock file has it.
fn node_libraries(workspace: &Workspace) -> Result<(), String> {
    let folder = workspace.root.join("clients/mqttjs");
    let pinned = read(&folder.join("package-lock.json"))?;
    let done = folder.join("node_modules/.installed-package-lock.json");
    if fs::read_to_string(&done).is_ok_and(|installed| installed == pinned) {
        return Ok(());
    }
    println!("Installing what {} names into its node_modules", folder.join("package-lock.json").display());
    let arguments = ["ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error", "--prefix"];
    run(found("npm")?, arguments.iter().map(OsStr::new).chain([folder.as_os_str()]))?;
    write(&done, &pinned)
}

/// Runs a program to its end; the error has what it printed.
pub fn run<A: AsRef<OsStr>>(program: impl AsRef<OsStr>, arguments: impl IntoIterator<Item = A>) -> Result<(), String> {
    let program = program.as_ref();
    let name = Path::new(program).display();
    let child = Command::new(program)
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{name}: {error}"))?;
    let mut child = Guarded::new(child);
    let mut errors = Vec::new();
    if let Some(mut stderr) = child.child().stderr.take() {
        std::io::Read::read_to_end(&mut stderr, &mut errors).map_err(|error| format!("{name}: {error}"))?;
    }
    let status = child.child().wait().map_err(|error| format!("{name}: {error}"))?;
    if status.success() {
        return Ok(());
    }
    Err(format!("{name} ended with {status}: {}", String::from_utf8_lossy(&errors).trim()))
}

fn found(program: &str) -> Result<PathBuf, String> {
    find(program).ok_or_else(|| format!("there is no {program}"))
}

fn find(program: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|folder| folder.join(program)).find(|file| file.is_file())
}

fn read(file: &Path) -> Result<String, String> {
    fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))
}

fn write(file: &Path, text: &str) -> Result<(), String> {
    fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_on_the_path() {
        assert!(find("sh").is_some_and(|file| file.is_absolute()));
        assert_eq!(find("no-such-program-as-this"), None);
    }

    #[test]
    fn a_program_that_fails_tells_why() {
        assert_eq!(run("sh", ["-c", "exit 0"]), Ok(()));
        let why = run("sh", ["-c", "echo out; echo broken >&2; exit 3"]).expect_err("it fails");
        assert!(why.contains("broken") && why.contains('3') && !why.contains("out"), "{why}");
    }
}
