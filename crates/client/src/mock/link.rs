//! A link between a client and a broker that cuts connections at chosen or at random bytes.

use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use super::patience::lock;
use super::peer::{drain, url};

/// Bytes that one direction of a connection may have under way in here.
const BUFFER_BYTES: usize = 16 * 1_024;

/// A direction of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the broker.
    FromClient,
    /// From the broker to the client.
    FromBroker,
}

/// How a connection is cut. Both of its ends see the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CutEnding {
    /// Closed (FIN) when exactly the chosen bytes have gone through.
    Close,
    /// Reset (RST) when the chosen bytes have gone through. Those that their receiver has not yet read are lost to it.
    Reset,
    /// Closed in the middle of the write in which the chosen byte falls: the first half of what came at once goes
    /// through, though no byte beyond the chosen one.
    HalfWrite,
}

/// Where one connection is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CutAt {
    /// Bytes of this direction that go through.
    pub bytes: u64,
    /// The direction that is counted.
    pub direction: Direction,
    /// How it ends.
    pub ending: CutEnding,
}

/// Which connections of a link are cut, and where. They count from the first one after it was chosen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Cuts {
    /// None of them.
    #[default]
    None,
    /// Each at the same place.
    Each(CutAt),
    /// The first ones at these places, those after them nowhere.
    First(Vec<CutAt>),
    /// Each at its own place: with the same seed, the n-th connection is always cut at the same. Any direction, any
    /// ending.
    Random {
        /// Where all chance comes from.
        seed: u64,
        /// Bytes that go through.
        bytes: RangeInclusive<u64>,
    },
}

impl Cuts {
    /// Where connection `number` is cut, from 0.
    pub fn of_connection(&self, number: usize) -> Option<CutAt> {
        match self {
            Self::None => None,
            Self::Each(cut) => Some(*cut),
            Self::First(cuts) => cuts.get(number).copied(),
            Self::Random { seed, bytes } => {
                let mut chance = Chance::of(*seed, number as u64);
                let span = bytes.end().saturating_sub(*bytes.start()).saturating_add(1);
                Some(CutAt {
                    bytes: bytes.start() + chance.next() % span,
                    direction: [Direction::FromClient, Direction::FromBroker][(chance.next() % 2) as usize],
                    ending: [CutEnding::Close, CutEnding::Reset, CutEnding::HalfWrite][(chance.next() % 3) as usize],
                })
            }
        }
    }
}

/// A proxy on the loopback interface, in front of a broker, that cuts connections. It ends when it is dropped.
pub struct CuttingLink {
    state: Arc<Mutex<State>>,
    accepting: JoinHandle<()>,
    address: SocketAddr,
    url: String,
}

struct State {
    broker: SocketAddr,
    cuts: Cuts,
    /// Connections since `cuts` was chosen.
    of_cuts: usize,
    connections: usize,
    open: usize,
    cut: usize,
    passing: bool,
    /// Goes up when all connections are to be cut.
    generation: u64,
    ending: CutEnding,
    wakers: Vec<Waker>,
}

impl CuttingLink {
    /// Listens on a free port of 127.0.0.1 for clients of the broker at `broker`.
    ///
    /// # Panics
    /// If there is no free port.
    pub async fn to(broker: SocketAddr, cuts: Cuts) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port of 127.0.0.1 is free");
        let address = listener.local_addr().expect("a listener has an address");
        let state = Arc::new(Mutex::new(State {
            broker,
            cuts,
            of_cuts: 0,
            connections: 0,
            open: 0,
            cut: 0,
            passing: false,
            generation: 0,
            ending: CutEnding::Close,
            wakers: Vec::new(),
        }));
        let accepting = tokio::spawn(accept(listener, Arc::clone(&state)));
        Self { state, accepting, address, url: url(address) }
    }

    /// Where it listens, as `mqtt://127.0.0.1:PORT`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Clients that have connected up to now.
    pub fn connections(&self) -> usize {
        lock(&self.state).connections
    }

    /// Connections open at the moment.
    pub fn open(&self) -> usize {
        lock(&self.state).open
    }

    /// Connections it has cut up to now.
    pub fn cut(&self) -> usize {
        lock(&self.state).cut
    }

    /// Cuts nothing any more, open connections neither.
    pub fn pass_all(&self) {
        let mut state = lock(&self.state);
        state.cuts = Cuts::None;
        state.passing = true;
    }

    /// Cuts so from the next connection on. Those that are open keep what they have.
    pub fn set_cuts(&self, cuts: Cuts) {
        let mut state = lock(&self.state);
        (state.cuts, state.of_cuts, state.passing) = (cuts, 0, false);
    }

    /// Cuts all open connections now. How many there are.
    pub fn cut_all(&self, ending: CutEnding) -> usize {
        let mut state = lock(&self.state);
        state.generation += 1;
        state.ending = ending;
        state.wakers.drain(..).for_each(Waker::wake);
        state.open
    }

    /// Goes to another broker from the next connection on.
    pub fn set_broker(&self, broker: SocketAddr) {
        lock(&self.state).broker = broker;
    }
}

impl Drop for CuttingLink {
    fn drop(&mut self) {
        // The connections are tasks of a set that ends with it.
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, state: Arc<Mutex<State>>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let (broker, cut, generation) = {
            let mut state = lock(&state);
            let cut = state.cuts.of_connection(state.of_cuts);
            state.of_cuts += 1;
            state.connections += 1;
            state.open += 1;
            (state.broker, cut, state.generation)
        };
        let state = Arc::clone(&state);
        connections.spawn(async move {
            let _open = Open(Arc::clone(&state));
            // Without a broker the client sees the connection close.
            let Ok(broker) = TcpStream::connect(broker).await else { return };
            let _ = (client.set_nodelay(true), broker.set_nodelay(true));
            let left = |direction| cut.filter(|cut| cut.direction == direction).map(|cut| cut.bytes);
            let mut pair = Pair {
                client,
                broker,
                up: Flow::new(left(Direction::FromClient)),
                down: Flow::new(left(Direction::FromBroker)),
                ending: cut.map_or(CutEnding::Close, |cut| cut.ending),
                generation,
            };
            let over = poll_fn(|cx| pair.turn(cx, &state)).await;
            drop(_open);
            let Pair { mut client, mut broker, .. } = pair;
            if over == Over::Reset {
                let _ = (client.set_zero_linger(), broker.set_zero_linger());
                return;
            }
            let _ = (client.shutdown().await, broker.shutdown().await);
            // Closing with unread input would be a reset.
            let draining = tokio::spawn(drain(client));
            drain(broker).await;
            let _ = draining.await;
        });
    }
}

/// Counts a connection as open.
struct Open(Arc<Mutex<State>>);

impl Drop for Open {
    fn drop(&mut self) {
        lock(&self.0).open -= 1;
    }
}

/// How both ends of a connection are to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    Close,
    Reset,
}

struct Pair {
    client: TcpStream,
    broker: TcpStream,
    up: Flow,
    down: Flow,
    ending: CutEnding,
    generation: u64,
}

impl Pair {
    fn turn(&mut self, cx: &mut Context<'_>, state: &Mutex<State>) -> Poll<Over> {
        let passing = {
            let mut state = lock(state);
            if state.generation != self.generation {
                state.cut += 1;
                return Poll::Ready(if state.ending == CutEnding::Reset { Over::Reset } else { Over::Close });
            }
            state.wakers.retain(|waker| !waker.will_wake(cx.waker()));
            state.wakers.push(cx.waker().clone());
            state.passing
        };
        if passing {
            (self.up.left, self.down.left) = (None, None);
        }
        let half = self.ending == CutEnding::HalfWrite;
        let ends = [
            self.up.turn(cx, &mut self.client, &mut self.broker, half),
            self.down.turn(cx, &mut self.broker, &mut self.client, half),
        ];
        let cut = if self.ending == CutEnding::Reset { Over::Reset } else { Over::Close };
        for end in &ends {
            match end {
                Poll::Ready(Ok(FlowEnd::Cut)) => {
                    lock(state).cut += 1;
                    return Poll::Ready(cut);
                }
                // One end is gone without a word; the other shall see it so.
                Poll::Ready(Err(_)) => return Poll::Ready(Over::Reset),
                _ => {}
            }
        }
        let ended = |end: &Poll<io::Result<FlowEnd>>| matches!(end, Poll::Ready(Ok(FlowEnd::Ended)));
        if ends.iter().all(ended) { Poll::Ready(Over::Close) } else { Poll::Pending }
    }
}

/// One direction of a connection.
struct Flow {
    buffer: Box<[u8]>,
    /// What of the buffer has been read and not yet written.
    unwritten: std::ops::Range<usize>,
    /// Bytes until the cut; None if this direction is not cut.
    left: Option<u64>,
    /// The sender has ended it.
    ended: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FlowEnd {
    /// The sender has closed, and the receiver was told.
    Ended,
    Cut,
}

impl Flow {
    fn new(left: Option<u64>) -> Self {
        Self { buffer: vec![0; BUFFER_BYTES].into(), unwritten: 0..0, left, ended: false }
    }

    fn turn(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut TcpStream,
        to: &mut TcpStream,
        half: bool,
    ) -> Poll<io::Result<FlowEnd>> {
        loop {
            while !self.unwritten.is_empty() {
                let bytes = &self.buffer[self.unwritten.clone()];
                match Pin::new(&mut *to).poll_write(cx, bytes) {
                    Poll::Ready(Ok(count)) => self.unwritten.start += count,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => return Poll::Pending,
                }
            }
            if self.left == Some(0) {
                return Poll::Ready(Ok(FlowEnd::Cut));
            }
            if self.ended {
                return Pin::new(&mut *to).poll_shutdown(cx).map_ok(|()| FlowEnd::Ended);
            }
            let mut buffer = ReadBuf::new(&mut self.buffer);
            match Pin::new(&mut *from).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
            let count = buffer.filled().len();
            self.ended = count == 0;
            self.unwritten = 0..count;
            if let Some(left) = self.left {
                let cut = usize::try_from(left).unwrap_or(usize::MAX);
                if count >= cut {
                    // The buffer ends with the cut: what follows it has not been sent, for all the receiver knows.
                    self.unwritten = 0..if half { cut.min(count / 2) } else { cut };
                    self.left = Some(0);
                } else {
                    self.left = Some(left - count as u64);
                }
            }
        }
    }
}

/// Numbers from a seed: SplitMix64, which needs no crate.
struct Chance(u64);

impl Chance {
    /// Its own row of numbers for each connection, whatever the others are.
    fn of(seed: u64, connection: u64) -> Self {
        let mut mixed = Self(seed);
        let seed = mixed.next();
        let mut mixed = Self(seed ^ connection);
        Self(mixed.next())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}
