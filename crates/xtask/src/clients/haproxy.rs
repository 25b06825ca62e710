//! A load balancer in front of the broker: haproxy, which tells by the PROXY protocol whose connections it passes on.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::certificate::Certificate;
use super::{Client, install};
use crate::broker::{self, Broker};
use crate::process::{Guarded, POLL_INTERVAL};
use crate::step::{Counts, Failure};
use crate::workspace::Workspace;

const START_SECONDS_MAX: u64 = 10;
const CLIENT_SECONDS_MAX: u64 = 20;

/// The Common Name in the certificate of a client.
const COMMON_NAME: &str = "sensor-7";

/// The broker's listeners behind it.
#[derive(Clone, Copy)]
pub struct Behind {
    /// For what it passes on as it is.
    pub proxied: SocketAddr,
    /// For what it has taken TLS off: users are named by their certificates.
    pub named: SocketAddr,
}

impl Behind {
    /// In the broker's configuration.
    pub fn listeners(&self) -> String {
        let listener = |address: SocketAddr, more: &str| {
            format!(
                "\n[[listener]]\nhost = \"{}\"\nport = {}\nproxy_protocol = \"v2\"\nproxy_trusted = [\"127.0.0.1\"]\n{more}",
                address.ip(),
                address.port()
            )
        };
        let named = "user_name_from_certificate = \"cn\"\nallow_anonymous = false\n";
        listener(self.proxied, "") + &listener(self.named, named)
    }
}

/// One that runs. It is killed when this is dropped.
pub struct Haproxy {
    /// Where it takes connections.
    pub address: SocketAddr,
    /// Where it takes them through TLS, and looks at the certificates of those that have one.
    tls: SocketAddr,
    /// Its own certificate there.
    own: Certificate,
    /// That of a client.
    client: Certificate,
    process: Guarded,
}

impl Haproxy {
    /// Passes connections on, each with a header of version 2.
    pub fn start(workspace: &Workspace, to: Behind) -> Result<Self, Failure> {
        let (address, tls) = (broker::free_address()?, broker::free_address()?);
        // Our own programs take no authority for a server.
        let own = Certificate::make(workspace, "haproxy", "CA:FALSE")?;
        let client = Certificate::make(workspace, COMMON_NAME, "CA:TRUE")?;
        let folder = workspace.scratch()?.join(format!("haproxy-{}", address.port()));
        let failed = |error: &std::io::Error| Failure::io(folder.display(), error);
        fs::create_dir_all(&folder).map_err(|error| failed(&error))?;
        let file = folder.join("haproxy.cfg");
        // It wants both in one file.
        let both = folder.join("own.pem");
        let read = |path: &Path| fs::read_to_string(path).map_err(|error| Failure::io(path.display(), &error));
        fs::write(&both, read(&own.certificate)? + &read(&own.key)?).map_err(|error| failed(&error))?;
        // Keep Alive is MQTT's business.
        let text = format!(
            "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n\
             frontend mqtt\n  bind {address}\n  default_backend broker\n\
             backend broker\n  server broker {} send-proxy-v2\n\
             frontend mqtts\n  bind {tls} ssl crt {} ca-file {} verify optional\n  default_backend named\n\
             backend named\n  server broker {} send-proxy-v2-ssl-cn\n",
            to.proxied,
            both.display(),
            client.certificate.display(),
            to.named
        );
        fs::write(&file, text).map_err(|error| failed(&error))?;
        let log = File::create(folder.join("log")).map_err(|error| failed(&error))?;
        let program = install::haproxy().map_err(Failure)?;
        let child = Command::new(&program)
            .arg("-db")
            .arg("-f")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|error| Failure::io(program.display(), &error))?;
        let mut process = Guarded::new(child);
        let deadline = Instant::now() + Duration::from_secs(START_SECONDS_MAX);
        while TcpStream::connect(address).is_err() {
            if process.status().is_some() || Instant::now() >= deadline {
                return Err(Failure(format!("haproxy does not listen; its words are in {}", folder.display())));
            }
            thread::sleep(POLL_INTERVAL);
        }
        Ok(Self { address, tls, own, client, process })
    }

    /// Who a client is for the broker that came by it: one at its own address, with the name in its certificate.
    pub fn check(&self, program: &Path, broker: &Broker) -> Counts {
        let mut counts = Counts::default();
        let mut check = |name: &str, passed: bool| {
            println!("{} / {name} ... {}", Client::Haproxy, if passed { "ok" } else { "FAILED" });
            counts += Counts::of(passed);
        };
        let (port, tls) = (self.address.port().to_string(), self.tls.port().to_string());
        let [authority, certificate, key] = [&self.own.certificate, &self.client.certificate, &self.client.key];
        // An address of this machine that is no other's.
        let publish = |from: &str, client_id: &str, port: &str, tls: &[&Path]| {
            let mut command = Command::new(program);
            command.args(["pub", "-h", "127.0.0.1", "-A", from, "-i", client_id, "-p", port, "-q", "1"]);
            command.args(["-t", "haproxy", "-m", "x"]);
            for (flag, path) in ["--cafile", "--cert", "--key"].iter().zip(tls) {
                command.arg(flag).arg(path);
            }
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command.spawn().is_ok_and(|child| {
                let deadline = Instant::now() + Duration::from_secs(CLIENT_SECONDS_MAX);
                Guarded::new(child).wait_until(deadline).is_some_and(|status| status.success())
            })
        };
        let address = publish("127.0.1.7", "by-haproxy", &port, &[])
            && broker.says("New client connected from 127.0.1.7:")
            && broker.says(" as by-haproxy (");
        check("the client's address is passed on", address);
        let named = publish("127.0.1.8", "by-haproxy-tls", &tls, &[authority, certificate, key])
            && broker.says("New client connected from 127.0.1.8:")
            && broker.says(&format!("as by-haproxy-tls (V311, c1, k60, u{COMMON_NAME})"));
        check("the name in a certificate is the User Name", named);
        let nameless = !publish("127.0.1.9", "nobody", &tls, &[authority])
            && broker.says("the client came to the proxy without a certificate that it has verified");
        check("without a certificate nobody is let in", nameless);
        counts
    }

    /// Ends it.
    pub fn stop(mut self) {
        self.process.terminate();
        self.process.wait_until(Instant::now() + Duration::from_secs(START_SECONDS_MAX));
    }
}
