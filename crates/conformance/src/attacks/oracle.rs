//! What watches over a broker while it is attacked: its process, and two clients that have nothing to do with the attack.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::peer::{Outcome, Stop};
use crate::wire::{self, Connect, Packet, Publish, Subscribe, Version};
use crate::{ensure, fail};

/// How often a process is looked at while one waits for it.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// How long descriptors of connections that have ended may stay open.
const DESCRIPTORS_DURATION_MAX: Duration = Duration::from_secs(5);

/// Between two messages of the canary.
const CANARY_INTERVAL: Duration = Duration::from_millis(10);

/// When a message of the canary counts as lost.
const LOST_AFTER: Duration = Duration::from_secs(10);

/// A process on this machine.
#[derive(Debug)]
pub struct Process {
    pid: u32,
    /// Clock ticks from the start of the machine to that of the process: with the id, its identity.
    started: u64,
}

/// What a process takes.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Resident memory.
    pub resident_bytes: u64,
    /// Open descriptors that are not files.
    pub descriptors: usize,
}

impl Process {
    /// The process of this id.
    ///
    /// # Errors
    /// If there is none, or this is not Linux.
    pub fn find(pid: u32) -> Result<Process, String> {
        started(pid).map(|started| Process { pid, started }).ok_or_else(|| format!("there is no process {pid}"))
    }

    /// Whether it still runs: it, and no other with its id.
    pub fn is_alive(&self) -> bool {
        started(self.pid) == Some(self.started)
    }

    /// What it takes now.
    ///
    /// # Errors
    /// If it has ended, or may not be looked at.
    pub fn figures(&self) -> Result<Figures, String> {
        let gone = || format!("process {} cannot be looked at", self.pid);
        let resident_bytes = self.resident_bytes().ok_or_else(gone)?;
        let open = fs::read_dir(format!("/proc/{}/fd", self.pid)).map_err(|_| gone())?;
        // Files are the broker's own: what it stores grows with what it is given. Connections are what must not be left over.
        let is_file = |entry: &fs::DirEntry| fs::read_link(entry.path()).is_ok_and(|target| target.is_absolute());
        let descriptors = open.flatten().filter(|entry| !is_file(entry)).count();
        Ok(Figures { resident_bytes, descriptors })
    }

    /// Resident memory now.
    pub fn resident_bytes(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
    }

    /// Waits until no more descriptors are open than `before`, and, for `limit`, until memory is within 5 % and 2 MiB of what
    /// it was. Descriptors that stay open fail; for memory the answer is what is wrong with it, if something is.
    pub fn settle(&self, before: &Figures, limit: Duration) -> Outcome<Option<String>> {
        let allowed = before.resident_bytes + before.resident_bytes / 20 + (2 << 20);
        let begin = Instant::now();
        loop {
            let now = self.figures().map_err(Stop::Fail)?;
            let closed = now.descriptors <= before.descriptors;
            if closed && now.resident_bytes <= allowed {
                return Ok(None);
            }
            if begin.elapsed() >= DESCRIPTORS_DURATION_MAX {
                ensure!(closed, "{} descriptors were open before, {} after", before.descriptors, now.descriptors);
            }
            if closed && begin.elapsed() >= limit {
                return Ok(Some(format!(
                    "{} KiB of resident memory before, {} KiB after",
                    before.resident_bytes >> 10,
                    now.resident_bytes >> 10
                )));
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }
}

/// Field 22 of `/proc/PID/stat`. The second one is a name in brackets that may hold anything.
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(19)?.parse().ok()
}

/// Follows the resident memory of a process.
pub struct Sampler {
    stop: mpsc::Sender<()>,
    thread: JoinHandle<u64>,
}

impl Sampler {
    /// Begins to follow it.
    pub fn start(process: &Process) -> Sampler {
        let (stop, stopped) = mpsc::channel::<()>();
        let process = Process { ..*process };
        let thread = std::thread::spawn(move || {
            let mut peak = 0;
            while stopped.recv_timeout(POLL_INTERVAL) == Err(RecvTimeoutError::Timeout) {
                peak = peak.max(process.resident_bytes().unwrap_or(0));
            }
            peak
        });
        Sampler { stop, thread }
    }

    /// The highest value seen, in bytes.
    pub fn stop(self) -> u64 {
        drop(self.stop);
        self.thread.join().unwrap_or(0)
    }
}

/// Two clients of MQTT 3.1.1, one of which sends the other a QoS 1 message every 10 ms, whatever became of the one before.
pub struct Canary {
    shared: Arc<Shared>,
    streams: [TcpStream; 2],
    stop: Option<mpsc::Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    /// When each message was sent, and how long it took to arrive.
    messages: Mutex<Vec<(Instant, Option<Duration>)>>,
    acknowledged: AtomicU64,
    dead: AtomicBool,
}

impl Shared {
    fn messages(&self) -> MutexGuard<'_, Vec<(Instant, Option<Duration>)>> {
        self.messages.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Canary {
    /// Connects both and begins.
    ///
    /// # Errors
    /// If the broker does not serve them.
    pub fn start(target: &str, tag: &str) -> Result<Canary, String> {
        let topic = format!("{tag}canary/song");
        let mut receiver = enter(target, &format!("{tag}canaryr"))?;
        let mut subscribe = Subscribe::to(&topic, 1);
        subscribe.packet_id = Some(1);
        receiver.0.write_all(&subscribe.encode(Version::V311)).map_err(|e| format!("canary: {e}"))?;
        match next_packet(&mut receiver) {
            Ok(Packet::SubAck(answer)) if answer.code() == 1 => {}
            other => return Err(format!("canary: no subscription: {other:?}")),
        }
        let sender = enter(target, &format!("{tag}canarys"))?;

        let shared = Arc::new(Shared::default());
        let clone = |stream: &TcpStream| stream.try_clone().map_err(|e| format!("canary: {e}"));
        let streams = [clone(&sender.0)?, clone(&receiver.0)?];
        let (stop, stopped) = mpsc::channel::<()>();
        let mut threads = Vec::new();

        let (all, mut output) = (Arc::clone(&shared), clone(&sender.0)?);
        threads.push(std::thread::spawn(move || {
            let mut next = Instant::now();
            let mut number = 0_u32;
            loop {
                next += CANARY_INTERVAL;
                let wait = next.saturating_duration_since(Instant::now());
                if stopped.recv_timeout(wait) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
                let id = (number % 60_000 + 1) as u16;
                let bytes = Publish::new(&topic, number.to_be_bytes(), 1).id(id).encode(Version::V311);
                all.messages().push((Instant::now(), None));
                if output.write_all(&bytes).is_err() {
                    all.dead.store(true, Ordering::Release);
                    return;
                }
                number += 1;
            }
        }));
        let all = Arc::clone(&shared);
        let mut input = sender;
        threads.push(std::thread::spawn(move || {
            while let Ok(packet) = next_packet(&mut input) {
                if matches!(packet, Packet::PubAck(_)) {
                    all.acknowledged.fetch_add(1, Ordering::AcqRel);
                }
            }
            all.dead.store(true, Ordering::Release);
        }));
        let all = Arc::clone(&shared);
        threads.push(std::thread::spawn(move || {
            while let Ok(packet) = next_packet(&mut receiver) {
                let Packet::Publish(publish) = packet else { continue };
                let number = publish.payload.try_into().map_or(usize::MAX, |bytes| u32::from_be_bytes(bytes) as usize);
                if let Some((sent, took)) = all.messages().get_mut(number) {
                    took.get_or_insert(sent.elapsed());
                }
                let answer = wire::ack(wire::PUBACK, publish.packet_id.unwrap_or(0));
                if receiver.0.write_all(&answer).is_err() {
                    break;
                }
            }
            all.dead.store(true, Ordering::Release);
        }));
        Ok(Canary { shared, streams, stop: Some(stop), threads })
    }

    /// A point in time, to judge from.
    pub fn mark(&self) -> usize {
        self.shared.messages().len()
    }

    /// Fails if a message sent since `mark` was lost, or if more than one in a thousand took longer than `bound`. (One always
    /// may: of fewer than a thousand the 99.9th percentile is the worst, which any hiccup of the machine decides; a stall of
    /// the broker delays all that are sent while it lasts.)
    pub fn judge(&self, mark: usize, bound: Duration) -> Outcome {
        let end = self.mark();
        let deadline = Instant::now() + LOST_AFTER;
        loop {
            ensure!(!self.shared.dead.load(Ordering::Acquire), "the canary's connection was closed");
            let lost = self.shared.messages()[mark..end].iter().filter(|(_, took)| took.is_none()).count();
            if lost == 0 && self.shared.acknowledged.load(Ordering::Acquire) >= end as u64 {
                break;
            }
            if Instant::now() >= deadline {
                fail!("the canary misses {lost} of {} messages, or their acknowledgements", end - mark);
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        let mut times: Vec<Duration> = self.shared.messages()[mark..end].iter().filter_map(|(_, took)| *took).collect();
        times.sort_unstable();
        let late = times.iter().filter(|took| **took > bound).count();
        ensure!(
            late <= (times.len() / 1000).max(1),
            "{late} of {} canary messages took longer than {bound:?}, the worst {:?}",
            times.len(),
            times.last().copied().unwrap_or_default()
        );
        Ok(())
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        self.stop = None;
        for stream in &self.streams {
            // Ends the threads' reads; that it is closed already is no matter.
            drop(stream.shutdown(Shutdown::Both));
        }
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

/// A stream and what was read from it.
type Reading = (TcpStream, Vec<u8>);

fn enter(target: &str, client_id: &str) -> Result<Reading, String> {
    let wrong = |error: std::io::Error| format!("the canary cannot connect to {target}: {error}");
    let stream = TcpStream::connect(target).map_err(wrong)?;
    stream.set_nodelay(true).map_err(wrong)?;
    let mut reading = (stream, Vec::new());
    let connect = Connect::new(Version::V311, client_id).keep_alive(0);
    reading.0.write_all(&connect.encode()).map_err(wrong)?;
    match next_packet(&mut reading)? {
        Packet::ConnAck(connack) if connack.code == 0 => Ok(reading),
        other => Err(format!("the canary is refused: {other}")),
    }
}

fn next_packet((stream, input): &mut Reading) -> Result<Packet, String> {
    loop {
        if let Some((first, body, size)) = wire::take_frame(input)? {
            let packet = wire::decode(Version::V311, first, body);
            input.drain(..size);
            return packet;
        }
        let mut chunk = [0; 4_096];
        match stream.read(&mut chunk) {
            Ok(0) => return Err("closed".into()),
            Ok(count) => input.extend_from_slice(&chunk[..count]),
            Err(error) => return Err(error.to_string()),
        }
    }
}
