//! Ways to a broker: TCP, Unix socket, TLS, WebSocket, SOCKS5.
