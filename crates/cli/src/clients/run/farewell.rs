//! The end of a connection whose last messages nobody acknowledges: whether the broker throws them away, as it does with one that is
//! larger than what it takes, is seen only by how it ends the connection.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use pantala_client::transport::ConnectError;
use pantala_client::{BoxedStream, Connector, Options};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is smaller has been read as a whole before a broker can throw it out, so nothing can be seen of that. Bytes.
const LARGE_BYTES: usize = 4 << 10;

/// How a connection ended, as far as it matters.
#[derive(Debug, Clone, Default)]
pub(super) struct Farewell(Arc<State>);

#[derive(Debug, Default)]
struct State {
    /// Something was sent that the broker may have thrown away.
    is_awaited: AtomicBool,
    /// It threw away what had not been read.
    is_reset: AtomicBool,
}

impl Farewell {
    /// Watches the connections that are made with these options.
    pub(super) fn watch(&self, options: &mut Options) {
        let inner = options.connector();
        options.set_connector(Watched { inner, farewell: self.clone() });
    }

    /// A message of QoS 0 goes out: when the connection ends, the broker's end of it is waited for.
    pub(super) fn sends(&self, payload_bytes: usize) {
        if payload_bytes >= LARGE_BYTES {
            self.0.is_awaited.store(true, Ordering::Relaxed);
        }
    }

    /// Whether the broker has thrown away what it was sent.
    pub(super) fn is_reset(&self) -> bool {
        self.0.is_reset.load(Ordering::Relaxed)
    }

    fn saw<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result
            && matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
            && self.0.is_awaited.load(Ordering::Relaxed)
        {
            self.0.is_reset.store(true, Ordering::Relaxed);
        }
        result
    }
}

struct Watched {
    inner: Arc<dyn Connector>,
    farewell: Farewell,
}

impl Connector for Watched {
    fn connect(self: Arc<Self>) -> Pin<Box<dyn Future<Output = Result<BoxedStream, ConnectError>> + Send>> {
        Box::pin(async move {
            let stream = self.inner.clone().connect().await?;
            Ok(Box::new(Stream { stream, farewell: self.farewell.clone(), is_shut_down: false }) as BoxedStream)
        })
    }
}

struct Stream {
    stream: BoxedStream,
    farewell: Farewell,
    is_shut_down: bool,
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = ready!(Pin::new(&mut self.stream).poll_read(context, into));
        Poll::Ready(self.farewell.saw(read))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes));
        Poll::Ready(self.farewell.saw(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    /// Ready when the broker has ended the connection too, if that is awaited; whoever calls has a limit of time.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_shut_down {
            let shut_down = ready!(Pin::new(&mut self.stream).poll_shutdown(context));
            self.is_shut_down = true;
            if self.farewell.saw(shut_down).is_err() {
                return Poll::Ready(Ok(()));
            }
        }
        let mut bytes = [0; 1024];
        while self.farewell.0.is_awaited.load(Ordering::Relaxed) {
            let mut into = ReadBuf::new(&mut bytes);
            let read = ready!(Pin::new(&mut self.stream).poll_read(context, &mut into));
            if self.farewell.saw(read).is_err() || into.filled().is_empty() {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }
}
