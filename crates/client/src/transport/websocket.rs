//! WebSocket by tungstenite: MQTT bytes as a stream, whatever the borders of frames (v5 MQTT-6.0.0-2).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use futures_core::Stream as _;
use futures_sink::Sink as _;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue, Request};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::ConnectError;
use crate::client::BoxedStream;

/// The subprotocol that the standard names (v5 MQTT-6.0.0-3).
const SUBPROTOCOL: &str = "mqtt";
const SUBPROTOCOL_HEADER: &str = "Sec-WebSocket-Protocol";
/// Bytes of one message: more than any MQTT packet, since a broker may send several at once.
const MESSAGE_BYTES_MAX: usize = 512 << 20;
/// Bytes of one frame.
const FRAME_BYTES_MAX: usize = 512 << 20;

pub(super) async fn connect(
    stream: BoxedStream,
    host: &str,
    port: Option<u16>,
    path: &str,
    secure: bool,
    headers: &[(String, String)],
) -> Result<BoxedStream, ConnectError> {
    let wrong = |error: &dyn std::fmt::Display| ConnectError::WebSocket(error.to_string());
    let name = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let authority = match (port, secure) {
        (None, _) | (Some(80), false) | (Some(443), true) => name,
        (Some(port), _) => format!("{name}:{port}"),
    };
    let scheme = if secure { "wss" } else { "ws" };
    let mut request = Request::builder()
        .uri(format!("{scheme}://{authority}{path}"))
        .header("Host", &authority)
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", generate_key())
        .header(SUBPROTOCOL_HEADER, SUBPROTOCOL)
        .body(())
        .map_err(|error| wrong(&error))?;
    for (key, value) in headers {
        let key: HeaderName = key.parse().map_err(|error| wrong(&error))?;
        let value: HeaderValue = value.parse().map_err(|error| wrong(&error))?;
        request.headers_mut().append(key, value);
    }
    let config =
        WebSocketConfig::default().max_message_size(Some(MESSAGE_BYTES_MAX)).max_frame_size(Some(FRAME_BYTES_MAX));
    let upgraded = tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await;
    let (socket, response) = upgraded.map_err(|error| match error {
        Error::Http(response) => {
            ConnectError::WebSocket(format!("the server answered {} instead of an upgrade", response.status()))
        }
        error => wrong(&error),
    })?;
    // A server that speaks another protocol behind this path must not get MQTT.
    if response.headers().get(SUBPROTOCOL_HEADER).is_none_or(|protocol| protocol != SUBPROTOCOL) {
        return Err(ConnectError::WebSocket("the server does not speak the subprotocol mqtt here".to_owned()));
    }
    Ok(Box::new(Socket { socket, rest: Bytes::new() }))
}

struct Socket {
    socket: WebSocketStream<BoxedStream>,
    /// What is left of the frame that was read last.
    rest: Bytes,
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.rest.is_empty() {
            match ready!(Pin::new(&mut this.socket).poll_next(context)) {
                Some(Ok(Message::Binary(bytes))) => this.rest = bytes,
                // Frames of other kinds are answered, or nothing to answer.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Text(_))) => {
                    let words = "the broker sent a text frame, which MQTT forbids";
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, words)));
                }
                Some(Ok(Message::Close(_)) | Err(Error::ConnectionClosed | Error::AlreadyClosed)) | None => {
                    return Poll::Ready(Ok(()));
                }
                Some(Err(error)) => return Poll::Ready(Err(into_io(error))),
            }
        }
        let bytes = this.rest.len().min(out.remaining());
        out.put_slice(&this.rest[..bytes]);
        this.rest.advance(bytes);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut socket = Pin::new(&mut self.socket);
        ready!(socket.as_mut().poll_ready(context)).map_err(into_io)?;
        socket.start_send(Message::Binary(Bytes::copy_from_slice(bytes))).map_err(into_io)?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context).map_err(into_io)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(Pin::new(&mut self.socket).poll_close(context)) {
            Ok(()) | Err(Error::ConnectionClosed | Error::AlreadyClosed) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(into_io(error))),
        }
    }
}

fn into_io(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        error => io::Error::other(error),
    }
}
