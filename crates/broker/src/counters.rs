//! What one worker counts. Sums over workers are the server's business.

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// Counters of one worker since its start; each only grows.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[doc = $doc])+ pub $name: u64,)+
        }

        impl Counters {
            /// Names and values, in the order of declaration.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name)),+].into_iter()
            }

            /// Adds those of another worker.
            pub fn add(&mut self, other: &Self) {
                // Wrapping, as a connection on its way to another worker is closed before it is, for a moment.
                $(self.$name = self.$name.wrapping_add(other.$name);)+
            }
        }
    };
}

counters! {
    /// Connections opened.
    connections_opened,
    /// Connections that ended, for whatever reason.
    connections_closed,
    /// CONNECT packets that were refused.
    connects_refused,
    /// CONNECT packets that were refused for their credentials.
    connects_refused_credentials,
    /// CONNECT packets whose Session belongs to another user.
    connects_refused_other_user,
    /// CONNECT packets that were accepted.
    connects_accepted,
    /// Connections ended because their client was silent for too long.
    keep_alive_timeouts,
    /// Connections ended because no complete CONNECT came in time.
    connect_timeouts,
    /// Connections closed at once since their address is not let in.
    connections_not_allowed,
    /// Connections ended by what stands between the socket and MQTT: TLS, WebSocket or a PROXY header.
    transport_failures,
    /// Connections ended because they took no byte for too long.
    write_stalls,
    /// Connections taken over by another with the same Client Identifier.
    sessions_taken_over,
    /// Times that reading from a client has paused, as it sent faster than it may.
    reads_paused,
    /// CONNECT packets refused: their Client Identifier was taken over too often.
    takeovers_refused,
    /// Subscriptions refused: their Session had as many as it may have.
    subscriptions_refused_limit,
    /// Connections closed at once: there were too many from their address, or too many in a second.
    connections_refused_address,
    /// CONNECT packets refused: the process had more memory than it should.
    connects_memory_short,
    /// Connections ended for malformed packets or Protocol Errors.
    protocol_errors,
    /// Connections of clients before MQTT 5 ended because a message of theirs would have to be kept, and the disk is full or
    /// has failed.
    closed_store_refused,
    /// Connections ended because their client's credentials expired.
    credentials_expired,
    /// Connections ended because their user was removed or banned, or could not come in again as it did.
    users_disconnected,
    /// Connections ended because our own code panicked over them.
    panics,
    /// Bytes received.
    bytes_received,
    /// Bytes that sockets have taken.
    bytes_sent,
    /// CONNECT packets received.
    connect_received,
    /// PUBLISH packets received.
    publish_received,
    /// PUBLISH packets sent.
    publish_sent,
    /// Bytes of payload in PUBLISH packets received.
    publish_bytes_received,
    /// Bytes of payload in PUBLISH packets sent.
    publish_bytes_sent,
    /// Control Packets received that are not PUBLISH.
    other_packets_received,
    /// Control Packets sent that are not PUBLISH.
    other_packets_sent,
    /// Sessions that have expired.
    sessions_expired,
    /// Messages dropped: the Session's queue was full, and the new one went.
    dropped_queue_full_newest,
    /// Messages dropped: the Session's queue was full, and the oldest one went.
    dropped_queue_full_oldest,
    /// Messages refused to their publisher: a queue was full.
    dropped_queue_full_refused,
    /// Messages refused to their publisher: they would have to be kept, and the disk is full or has failed.
    dropped_store_refused,
    /// QoS 0 messages dropped: the connection did not take its bytes in time.
    dropped_outgoing_full,
    /// Messages dropped: expired before they were delivered.
    dropped_expired,
    /// Messages dropped: larger than the client's Maximum Packet Size.
    dropped_too_large_for_client,
    /// QoS 0 messages not kept in queues: the process had more memory than it should.
    dropped_memory_short,
    /// Messages dropped: their Session ended before they were delivered.
    dropped_session_ended,
    /// QoS 0 messages not kept for Sessions whose client was absent.
    dropped_client_absent,
    /// Messages dropped: no member was left in the Shared Subscription.
    dropped_no_member,
    /// Messages dropped: their payload was larger than `payload_bytes_max`.
    dropped_payload_too_large,
    /// Messages dropped: the publisher was not permitted.
    dropped_not_authorized,
    /// Messages not delivered to a Session whose client may not receive them, live, queued or retained.
    withheld_not_authorized,
    /// Retained Messages not delivered because who published them may no longer publish to their topic.
    withheld_publisher_not_authorized,
    /// Commands published to topics below `$CONTROL`.
    commands_received,
    /// Retained Messages not stored: there were too many.
    dropped_retained_full,
    /// QoS 0 messages delivered, but not retained: the disk is full or has failed.
    dropped_retained_store_refused,
    /// Messages dropped: what the store had of them is damaged.
    dropped_store_damaged,
    /// Messages that the store could not read; they are tried again later.
    store_read_errors,
    /// Acknowledgements for unknown Packet Identifiers.
    acknowledgements_unknown,
    /// Will Messages published.
    wills_published,
    /// Births of Sparkplug that were published as certificates, too.
    sparkplug_certificates_published,
}
