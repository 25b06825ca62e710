//! mosquitto_ctrl, with Mosquitto's dynamic security and with ours: what it prints is the same.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::programs::{find, missing};

/// What is waited for has to come within this.
const PATIENCE: Duration = Duration::from_secs(20);
/// The state that both begin with: one user, admin, with the password `secret`.
const INIT: &str = include_str!("../../../access/tests/mosquitto/dynsec-init.json");

/// A broker on 127.0.0.1, ended when dropped.
struct Broker {
    child: Child,
    port: u16,
}

impl Broker {
    /// `config` is given the port.
    fn start(program: &Path, arguments: &[&str], folder: &Path, name: &str, config: impl Fn(u16) -> String) -> Self {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let file = folder.join(name);
        fs::write(&file, config(port)).unwrap();
        let log = File::create(folder.join(format!("{name}.log"))).unwrap();
        let mut command = Command::new(program);
        command.args(arguments).arg("-c").arg(&file).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let broker = Self { child: command.spawn().unwrap(), port };
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            assert!(Instant::now() < deadline, "{}", fs::read_to_string(folder.join(format!("{name}.log"))).unwrap());
            std::thread::sleep(Duration::from_millis(5));
        }
        broker
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Where Debian has the plugin.
fn plugin(test: &str) -> Option<PathBuf> {
    const FILE: &str = "mosquitto_dynamic_security.so";
    let folders = fs::read_dir("/usr/lib").unwrap().flatten().map(|entry| entry.path());
    let found = folders.map(|folder| folder.join(FILE)).find(|file| file.is_file());
    found.or_else(|| missing(test, FILE))
}

#[test]
fn mosquitto_ctrl_prints_the_same() {
    let name = "mosquitto_ctrl_prints_the_same";
    let Some([mosquitto, control, publish]) = find(name, ["mosquitto", "mosquitto_ctrl", "mosquitto_pub"]) else {
        return;
    };
    let Some(plugin) = plugin(name) else { return };
    let folder = tempfile::tempdir().unwrap();
    let (theirs, ours) = (folder.path().join("theirs.json"), folder.path().join("ours.json"));
    for file in [&theirs, &ours] {
        fs::write(file, INIT).unwrap();
    }
    let theirs = Broker::start(&mosquitto, &[], folder.path(), "mosquitto.conf", |port| {
        // Started by root it would go on as a user who cannot write here.
        let user = if rustix::process::getuid().is_root() { "user root\n" } else { "" };
        let (plugin, file) = (plugin.display(), theirs.display());
        format!(
            "{user}listener {port} 127.0.0.1\nallow_anonymous false\nplugin {plugin}\nplugin_opt_config_file {file}\n"
        )
    });
    let ours = Broker::start(
        Path::new(env!("CARGO_BIN_EXE_pantala")),
        &["broker"],
        folder.path(),
        "ours.conf",
        |port| {
            let file = ours.display();
            format!(
                "listener {port} 127.0.0.1\nallow_anonymous false\nplugin mosquitto_dynamic_security.so\nplugin_opt_config_file {file}\n"
            )
        },
    );
    let run = |program: &Path, broker: &Broker, user: &[&str], arguments: &[&str]| {
        let output = Command::new(program)
            .args(["-h", "127.0.0.1", "-p", &broker.port.to_string(), "-u", user[0], "-P", user[1]])
            .args(arguments)
            .env("XDG_CONFIG_HOME", "/nonexistent")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (text(&output.stdout), text(&output.stderr), output.status.code())
    };
    let commands = "createRole sensor|createRole sensor|addRoleACL sensor publishClientSend dev/# allow 5|\
        addRoleACL sensor subscribePattern cmd/# allow|addRoleACL sensor subscribeLiteral # deny|addRoleACL nobody publishClientSend a allow|\
        removeRoleACL sensor subscribeLiteral #|removeRoleACL sensor subscribeLiteral #|getRole sensor|getRole nothing|listRoles|listRoles 1 1|\
        createGroup plant|createGroup plant|addGroupRole plant sensor 3|addGroupRole plant nothing|getGroup plant|listGroups|\
        createClient eve -p pw|createClient eve -p pw|createClient adam -p pw -i adam-1|addClientRole eve sensor 2|addClientRole eve nothing|\
        addGroupClient plant adam 7|addGroupClient plant nobody|getClient eve|getClient adam|getClient nobody|listClients|listClients 2 1|\
        setClientPassword adam other|setClientId adam other-id|getClient adam|disableClient adam|getClient adam|enableClient adam|\
        setAnonymousGroup plant|getAnonymousGroup|getDefaultACLAccess|setDefaultACLAccess publishClientReceive deny|getDefaultACLAccess|\
        removeClientRole eve sensor|getClient eve|addClientRole eve sensor|removeGroupClient plant adam|getGroup plant|\
        deleteClient adam|deleteClient adam|listClients";
    for command in commands.split('|').map(str::trim) {
        let arguments: Vec<&str> = ["dynsec"].into_iter().chain(command.split(' ')).collect();
        let admin = ["admin", "secret"];
        assert_eq!(run(&control, &ours, &admin, &arguments), run(&control, &theirs, &admin, &arguments), "{command}");
    }
    // And what follows from it.
    for (topic, user) in
        [("dev/x", ["eve", "pw"]), ("other", ["eve", "pw"]), ("dev/x", ["eve", "wrong"]), ("dev/x", ["adam", "other"])]
    {
        let arguments = ["-V", "5", "-q", "1", "-t", topic, "-m", "x"];
        // Ours says why in a second line, the Reason String.
        let printed = |broker: &Broker| {
            let (stdout, stderr, status) = run(&publish, broker, &user, &arguments);
            (stdout, stderr.lines().next().map(str::to_owned), status)
        };
        let (ours, theirs) = (printed(&ours), printed(&theirs));
        assert_eq!(ours, theirs, "{topic} {user:?}");
    }
}

/// Keys and types of a document, and all of its texts but what comes of a password.
fn shape(value: &serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::Object(object) => {
            let shown = |(key, value): (&String, &Value)| {
                let is_secret = matches!(key.as_str(), "password" | "salt" | "iterations");
                (key.clone(), if is_secret { Value::from(value.is_string()) } else { shape(value) })
            };
            Value::Object(object.iter().map(shown).collect())
        }
        Value::Array(array) => Value::Array(array.iter().map(shape).collect()),
        other => other.clone(),
    }
}

fn init(arguments: &[&str], password: &str, variable: bool) -> std::process::Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pantala"));
    command.args(["dynsec", "init"]).args(arguments).env_clear();
    if variable {
        command.env("PANTALA_DYNSEC_PASSWORD", password);
    }
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let input = if variable { String::new() } else { password.to_owned() };
    // It may have ended without reading.
    drop(std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes()));
    child.wait_with_output().unwrap()
}

#[test]
fn the_first_file_is_mosquittos_but_for_the_salt() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let path = |name: &str| file(name).display().to_string();
    let json = |text: &[u8]| serde_json::from_slice::<serde_json::Value>(text).unwrap();
    let output = init(&[&path("typed.json")], "secret\nsecret\n", false);
    assert!(output.status.success(), "{output:?}");
    let output = init(&[&path("variable.json"), "--admin", "root"], "se cret", true);
    assert!(output.status.success(), "{output:?}");
    fs::write(file("password"), "secret\nand no more").unwrap();
    let output = init(&[&path("file.json"), "--password-file", &path("password")], "", false);
    assert!(output.status.success(), "{output:?}");
    for name in ["typed.json", "file.json"] {
        assert_eq!(shape(&json(&fs::read(file(name)).unwrap())), shape(&json(INIT.as_bytes())), "{name}");
        assert_eq!(fs::metadata(file(name)).unwrap().permissions().mode() & 0o777, 0o600);
    }
    assert_eq!(json(&fs::read(file("variable.json")).unwrap())["clients"][0]["username"], "root");
    // What is there stays, whatever it is; two passwords that differ, and none, are none.
    std::os::unix::fs::symlink("/nowhere", file("link")).unwrap();
    let before = fs::read(file("typed.json")).unwrap();
    for (name, password, status) in [
        ("typed.json", "other\nother\n", 1),
        ("link", "other\nother\n", 1),
        ("new.json", "one\nother\n", 2),
        ("new.json", "one\n", 1),
        ("new.json", "\n\n", 1),
        ("nowhere/new.json", "one\none\n", 1),
    ] {
        let output = init(&[&path(name)], password, false);
        assert_eq!(output.status.code(), Some(status), "{name} {password:?}: {output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr).lines().count(), 1, "{output:?}");
    }
    assert_eq!(fs::read(file("typed.json")).unwrap(), before);
    assert!(!file("new.json").exists());
    // A broker lets the administrator in who was written there, with that password alone.
    let broker = Broker::start(
        Path::new(env!("CARGO_BIN_EXE_pantala")),
        &["broker", "--durability", "memory"],
        folder.path(),
        "ours.toml",
        |port| {
            let file = file("typed.json");
            format!(
                "[[listener]]\nhost = \"127.0.0.1\"\nport = {port}\n[[security]]\ndynamic_security_file = {file:?}\n"
            )
        },
    );
    for (password, code) in [("wrong", "5"), ("secret", "0")] {
        let ended = Command::new(env!("CARGO_BIN_EXE_pantala"))
            .args(["pub", "-p", &broker.port.to_string(), "-u", "admin", "-P", password, "-q", "1", "-t", "x", "-n"])
            .output()
            .unwrap();
        assert_eq!(ended.status.code(), Some(code.parse().unwrap()), "{ended:?}");
    }
}
