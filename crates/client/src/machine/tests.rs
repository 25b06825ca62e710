//! Bytes in, bytes out, by a clock that the tests own.
