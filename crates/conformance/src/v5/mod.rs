//! The statements of MQTT 5.0: which rule shows which number, by chapter, and what only 5.0 demands.

mod auth;
mod connecting;
mod disconnecting;
mod flow;
mod properties;
mod publishing;
mod shared;
mod subscribing;
mod wills;

use crate::rules::{connect, framing, qos, retained, session, strings, subscribe, topics, will};
use crate::{Test, test};

/// All tests of MQTT 5.0.
pub fn tests() -> Vec<Test> {
    [data(), connect_packets(), publish_packets(), subscribe_packets(), last_packets(), operation()].concat()
}

/// Chapters 1 and 2: data and packet format.
fn data() -> Vec<Test> {
    vec![
        test!(V5, strings::ill_formed_utf8, "MQTT-1.5.4-1"),
        test!(V5, strings::null_character, "MQTT-1.5.4-2"),
        test!(V5, strings::byte_order_mark_is_kept, "MQTT-1.5.4-3"),
        test!(V5, framing::shortest_lengths, "MQTT-1.5.5-1"),
        test!(V5, properties::shortest_property_lengths, "MQTT-1.5.5-1"),
        test!(V5, properties::user_property_strings, "MQTT-1.5.7-1"),
        test!(V5, framing::reserved_flags, "MQTT-2.1.3-1"),
        test!(V5, framing::no_packet_id_at_qos_0, "MQTT-2.2.1-2"),
        test!(V5, framing::server_packet_ids_are_unique, "MQTT-2.2.1-4"),
        test!(V5, framing::acknowledgements_repeat_the_packet_id, "MQTT-2.2.1-5"),
        test!(V5, framing::suback_and_unsuback_repeat_the_packet_id, "MQTT-2.2.1-6"),
        test!(V5, properties::property_length_zero, "MQTT-2.2.2-1"),
    ]
}

/// 3.1 and 3.2: CONNECT and CONNACK.
fn connect_packets() -> Vec<Test> {
    vec![
        test!(V5, connect::second_connect, "MQTT-3.1.0-2"),
        test!(V5, connect::wrong_protocol_name, "MQTT-3.1.2-1"),
        test!(V5, connect::unknown_protocol_version, "MQTT-3.1.2-2"),
        test!(V5, connect::reserved_connect_flag, "MQTT-3.1.2-3"),
        test!(V5, session::clean_discards, "MQTT-3.1.2-4", "MQTT-3.1.4-4"),
        test!(V5, connecting::clean_start_begins_a_session, "MQTT-3.1.2-4"),
        test!(V5, session::resumed_session, "MQTT-3.1.2-5", "MQTT-3.1.2-23"),
        test!(V5, connect::session_present, "MQTT-3.1.2-6", "MQTT-3.1.4-4", "MQTT-3.2.2-2", "MQTT-3.2.2-3"),
        test!(V5, wills::sent_after_the_delay, "MQTT-3.1.2-7", "MQTT-3.1.2-8"),
        test!(V5, will::published_when_the_connection_ends, "MQTT-3.1.2-8"),
        test!(V5, wills::sent_when_the_session_ends, "MQTT-3.1.2-8"),
        test!(V5, wills::sent_for_disconnect_with_will, "MQTT-3.1.2-8"),
        test!(V5, connect::will_flag_needs_will_fields, "MQTT-3.1.2-9"),
        test!(V5, wills::will_properties_are_passed_on, "MQTT-3.1.2-9", "MQTT-3.1.3-10"),
        test!(V5, will::forgotten_once_published, "MQTT-3.1.2-10"),
        test!(V5, connect::will_bits_need_the_will_flag, "MQTT-3.1.2-11", "MQTT-3.1.2-13"),
        test!(V5, will::not_retained, "MQTT-3.1.2-14"),
        test!(V5, will::retained, "MQTT-3.1.2-15"),
        test!(V5, connect::keep_alive, "MQTT-3.1.2-22", "MQTT-3.2.2-22"),
        test!(V5, flow::no_packet_too_large, "MQTT-3.1.2-24", "MQTT-3.1.2-25"),
        test!(V5, flow::aliases_within_the_clients_maximum, "MQTT-3.1.2-26", "MQTT-3.3.2-11"),
        test!(V5, flow::no_aliases_unless_asked_for, "MQTT-3.1.2-27"),
        test!(V5, connecting::no_response_information_unless_asked_for, "MQTT-3.1.2-28"),
        test!(V5, disconnecting::no_problem_information, "MQTT-3.1.2-29"),
        test!(V5, connect::client_id_names_the_session, "MQTT-3.1.3-2"),
        test!(V5, connect::ordinary_client_ids, "MQTT-3.1.3-5"),
        test!(V5, connect::zero_length_client_id, "MQTT-3.1.3-6"),
        test!(V5, connecting::assigned_client_id, "MQTT-3.1.3-6", "MQTT-3.1.3-7", "MQTT-3.2.2-16"),
        test!(V5, connecting::rejected_client_id, "MQTT-3.1.3-8"),
        test!(V5, wills::not_sent_if_the_client_is_back_in_time, "MQTT-3.1.3-9", "MQTT-3.1.2-8"),
        test!(V5, connect::malformed_connect, "MQTT-3.1.4-1"),
        test!(V5, connecting::malformed_properties, "MQTT-3.1.4-1"),
        test!(V5, auth::unknown_method_is_refused, "MQTT-3.1.4-2", "MQTT-4.12.0-1"),
        test!(V5, connect::takeover, "MQTT-3.1.4-3"),
        test!(V5, connect::connack_comes_first, "MQTT-3.1.4-5", "MQTT-3.2.0-1"),
        test!(V5, connect::nothing_is_processed_after_a_refusal, "MQTT-3.1.4-6"),
        test!(V5, connecting::one_connack, "MQTT-3.2.0-2"),
        test!(V5, connecting::refusing_connacks, "MQTT-3.2.2-1", "MQTT-3.2.2-6", "MQTT-3.2.2-7", "MQTT-3.2.2-8"),
        test!(V5, connecting::maximum_qos_is_announced, "MQTT-3.2.2-9"),
        test!(V5, connecting::every_qos_may_be_subscribed, "MQTT-3.2.2-10"),
        test!(V5, connecting::will_qos_above_the_maximum, "MQTT-3.2.2-12"),
        test!(V5, connecting::retained_will_without_retain, "MQTT-3.2.2-13"),
        test!(V5, connecting::refusing_connack_fits, "MQTT-3.2.2-19", "MQTT-3.2.2-20"),
    ]
}

/// 3.3 to 3.7: PUBLISH and its acknowledgements.
fn publish_packets() -> Vec<Test> {
    vec![
        test!(V5, qos::resends_after_reconnect, "MQTT-3.3.1-1"),
        test!(V5, qos::qos_0_has_no_dup, "MQTT-3.3.1-2"),
        test!(V5, publishing::dup_at_qos_0, "MQTT-3.3.1-2"),
        test!(V5, qos::dup_is_not_passed_on, "MQTT-3.3.1-3"),
        test!(V5, framing::qos_3, "MQTT-3.3.1-4"),
        test!(V5, retained::stored_and_replaced, "MQTT-3.3.1-5"),
        test!(V5, retained::qos_0_discards_the_old_one, "MQTT-3.3.1-5"),
        test!(V5, retained::empty_payload_removes, "MQTT-3.3.1-6"),
        test!(V5, retained::empty_payload_is_not_stored, "MQTT-3.3.1-7"),
        test!(V5, retained::unretained_changes_nothing, "MQTT-3.3.1-8"),
        test!(V5, retained::sent_for_each_matching_topic, "MQTT-3.3.1-9"),
        test!(V5, subscribing::retain_handling_0, "MQTT-3.3.1-9"),
        test!(V5, subscribing::retain_handling_1, "MQTT-3.3.1-10"),
        test!(V5, subscribing::retain_handling_2, "MQTT-3.3.1-11"),
        test!(V5, retained::flag_cleared_for_established_subscriptions, "MQTT-3.3.1-12"),
        test!(V5, subscribing::retain_as_published, "MQTT-3.3.1-12", "MQTT-3.3.1-13"),
        test!(V5, strings::topic_name_is_utf8, "MQTT-3.3.2-1"),
        test!(V5, topics::wildcards_in_topic_names, "MQTT-3.3.2-2"),
        test!(V5, topics::forwarded_name_matches, "MQTT-3.3.2-3"),
        test!(V5, properties::payload_format_indicator, "MQTT-3.3.2-4"),
        test!(V5, publishing::expired_messages_are_dropped, "MQTT-3.3.2-5"),
        test!(V5, publishing::expiry_interval_is_reduced, "MQTT-3.3.2-6"),
        test!(V5, flow::aliases_end_with_the_connection, "MQTT-3.3.2-7"),
        test!(V5, flow::alias_zero, "MQTT-3.3.2-8"),
        test!(V5, flow::aliases_within_the_clients_maximum, "MQTT-3.3.2-8"),
        test!(V5, flow::every_alias_is_accepted, "MQTT-3.3.2-12"),
        test!(V5, properties::response_topic_is_utf8, "MQTT-3.3.2-13"),
        test!(V5, properties::response_topic_has_no_wildcards, "MQTT-3.3.2-14"),
        test!(V5, properties::response_topic, "MQTT-3.3.2-15"),
        test!(V5, properties::correlation_data, "MQTT-3.3.2-16"),
        test!(V5, properties::user_properties, "MQTT-3.3.2-17", "MQTT-3.3.2-18"),
        test!(V5, properties::content_type_is_utf8, "MQTT-3.3.2-19"),
        test!(V5, properties::content_type, "MQTT-3.3.2-20"),
        test!(V5, qos::answer_by_qos, "MQTT-3.3.4-1"),
        test!(V5, subscribe::overlapping_subscriptions, "MQTT-3.3.4-2"),
        test!(V5, subscribing::overlapping_subscription_identifiers, "MQTT-3.3.4-3", "MQTT-3.3.4-4", "MQTT-3.3.4-5"),
        test!(V5, flow::receive_maximum, "MQTT-3.3.4-9"),
        test!(V5, flow::full_quota_delays_only_publish, "MQTT-3.3.4-10"),
        test!(V5, disconnecting::publish_answers, "MQTT-3.4.2-1", "MQTT-3.5.2-1"),
        test!(V5, disconnecting::publish_answers_fit, "MQTT-3.4.2-2", "MQTT-3.4.2-3", "MQTT-3.5.2-2", "MQTT-3.5.2-3"),
        test!(V5, framing::pubrel_flags, "MQTT-3.6.1-1"),
        test!(V5, disconnecting::release_answers, "MQTT-3.6.2-1", "MQTT-3.7.2-1"),
        test!(V5, disconnecting::release_answers_fit, "MQTT-3.6.2-2", "MQTT-3.6.2-3", "MQTT-3.7.2-2", "MQTT-3.7.2-3"),
    ]
}

/// 3.8 to 3.11: SUBSCRIBE and UNSUBSCRIBE.
fn subscribe_packets() -> Vec<Test> {
    vec![
        test!(V5, framing::subscribe_flags, "MQTT-3.8.1-1"),
        test!(V5, subscribing::no_local, "MQTT-3.8.3-3"),
        test!(V5, subscribing::no_local_on_shared, "MQTT-3.8.3-4"),
        test!(V5, subscribe::bad_subscribe_options, "MQTT-3.8.3-5"),
        test!(V5, subscribe::suback, "MQTT-3.8.4-1", "MQTT-3.8.4-2", "MQTT-3.8.4-6", "MQTT-3.8.4-7"),
        test!(V5, subscribe::same_filter_replaces, "MQTT-3.8.4-3"),
        test!(V5, retained::resubscribing_resends, "MQTT-3.8.4-4"),
        test!(V5, subscribe::several_filters, "MQTT-3.8.4-5"),
        test!(V5, qos::delivered_qos_is_the_lower, "MQTT-3.8.4-8"),
        test!(V5, disconnecting::subscribe_answers_fit, "MQTT-3.9.2-1", "MQTT-3.9.2-2"),
        test!(V5, subscribe::suback_order_with_a_refusal, "MQTT-3.9.3-1", "MQTT-3.9.3-2"),
        test!(V5, framing::unsubscribe_flags, "MQTT-3.10.1-1"),
        test!(V5, subscribe::exact_filter_is_removed, "MQTT-3.10.4-1"),
        test!(V5, subscribe::nothing_new_after_unsubscribe, "MQTT-3.10.4-2"),
        test!(V5, subscribe::begun_deliveries_are_completed, "MQTT-3.10.4-3"),
        test!(V5, subscribe::unsuback, "MQTT-3.10.4-4", "MQTT-3.10.4-5"),
        test!(V5, subscribe::several_filters_removed, "MQTT-3.10.4-6"),
        test!(V5, disconnecting::unsubscribe_answers_fit, "MQTT-3.11.2-1", "MQTT-3.11.2-2"),
        test!(V5, subscribing::unsuback_codes, "MQTT-3.11.3-1", "MQTT-3.11.3-2"),
    ]
}

/// 3.12 to 3.15: PINGREQ, DISCONNECT, AUTH.
fn last_packets() -> Vec<Test> {
    vec![
        test!(V5, subscribe::pingreq, "MQTT-3.12.4-1"),
        test!(V5, connecting::refusing_connacks, "MQTT-3.14.0-1"),
        test!(V5, framing::disconnect_flags, "MQTT-3.14.1-1"),
        test!(
            V5,
            disconnecting::servers_disconnect,
            "MQTT-3.14.2-1",
            "MQTT-3.14.2-2",
            "MQTT-3.14.4-1",
            "MQTT-3.14.4-2"
        ),
        test!(V5, disconnecting::servers_disconnect_fits, "MQTT-3.14.2-3", "MQTT-3.14.2-4"),
        test!(V5, disconnecting::clients_disconnect, "MQTT-3.14.2-1", "MQTT-3.14.4-1"),
        test!(V5, will::discarded_by_disconnect, "MQTT-3.14.4-3"),
        test!(V5, auth::auth_flags, "MQTT-3.15.1-1"),
        test!(V5, auth::wrong_auth_codes, "MQTT-3.15.2-1"),
        test!(V5, auth::scram_succeeds, "MQTT-3.15.2-1", "MQTT-4.12.0-2", "MQTT-4.12.0-5"),
        test!(V5, auth::auth_fits, "MQTT-3.15.2-2", "MQTT-3.15.2-3"),
    ]
}

/// Chapter 4.
fn operation() -> Vec<Test> {
    vec![
        test!(V5, session::state_lasts_while_connected, "MQTT-4.1.0-1"),
        test!(V5, qos::qos_2_receiver_across_reconnect, "MQTT-3.1.2-23", "MQTT-4.3.3-10"),
        test!(V5, connecting::session_expires, "MQTT-4.1.0-2"),
        test!(V5, connect::bytes_one_by_one, "MQTT-4.2.0-1"),
        test!(V5, framing::no_packet_id_at_qos_0, "MQTT-4.3.1-1"),
        test!(V5, qos::qos_0_has_no_dup, "MQTT-4.3.1-1"),
        test!(V5, framing::server_packet_ids_are_unique, "MQTT-4.3.2-1", "MQTT-4.3.3-1"),
        test!(V5, qos::qos_1_sender, "MQTT-4.3.2-2", "MQTT-4.3.2-3"),
        test!(V5, qos::qos_1_receiver, "MQTT-4.3.2-4", "MQTT-4.3.2-5"),
        test!(V5, qos::qos_2_sender, "MQTT-4.3.3-2", "MQTT-4.3.3-3", "MQTT-4.3.3-4", "MQTT-4.3.3-5", "MQTT-4.3.3-6"),
        test!(V5, publishing::no_expiry_once_sent, "MQTT-4.3.3-7"),
        test!(V5, qos::qos_2_receiver, "MQTT-4.3.3-8", "MQTT-4.3.3-10", "MQTT-4.3.3-11", "MQTT-4.3.3-12"),
        test!(V5, publishing::identifier_is_new_after_a_failed_pubrec, "MQTT-4.3.3-9"),
        test!(V5, publishing::handshake_is_finished_after_expiry, "MQTT-4.3.3-13"),
        test!(V5, qos::resends_after_reconnect, "MQTT-4.4.0-1"),
        test!(V5, publishing::failed_acknowledgements_settle, "MQTT-4.4.0-2"),
        test!(V5, session::every_matching_session_gets_the_message, "MQTT-4.5.0-1"),
        test!(V5, qos::order_is_kept, "MQTT-4.6.0-5", "MQTT-4.6.0-6"),
        test!(V5, qos::order_is_kept_for_absent, "MQTT-4.6.0-5", "MQTT-4.6.0-6"),
        test!(V5, topics::wildcards_in_topic_names, "MQTT-4.7.0-1"),
        test!(V5, topics::misplaced_number_sign, "MQTT-4.7.1-1"),
        test!(V5, topics::wildcards_match, "MQTT-4.7.1-1", "MQTT-4.7.1-2"),
        test!(V5, topics::misplaced_plus_sign, "MQTT-4.7.1-2"),
        test!(V5, topics::dollar_topics, "MQTT-4.7.2-1"),
        test!(V5, topics::empty_names_and_filters, "MQTT-4.7.3-1"),
        test!(V5, strings::null_in_names_and_filters, "MQTT-4.7.3-2"),
        test!(V5, strings::longest_names, "MQTT-4.7.3-3"),
        test!(V5, topics::no_normalisation, "MQTT-4.7.3-4"),
        test!(V5, shared::bad_shared_filters, "MQTT-4.8.2-1", "MQTT-4.8.2-2"),
        test!(V5, shared::granted_qos_is_respected, "MQTT-4.8.2-3"),
        test!(V5, shared::begun_qos_2_delivery_is_completed, "MQTT-4.8.2-4"),
        test!(V5, shared::begun_qos_2_delivery_stays_with_its_client, "MQTT-4.8.2-5"),
        test!(V5, shared::refused_delivery_is_dropped, "MQTT-4.8.2-6"),
        test!(V5, flow::receive_maximum, "MQTT-4.9.0-1", "MQTT-4.9.0-2"),
        test!(V5, flow::every_settled_exchange_frees_one_place, "MQTT-4.9.0-2"),
        test!(V5, flow::full_quota_delays_only_publish, "MQTT-4.9.0-3"),
        test!(V5, auth::scram_rejects_a_wrong_password, "MQTT-4.12.0-4"),
        test!(V5, auth::none_without_a_method, "MQTT-4.12.0-6"),
        test!(V5, auth::reauthentication, "MQTT-4.12.0-5"),
        test!(V5, auth::failed_reauthentication, "MQTT-4.12.1-2"),
        test!(V5, framing::violations_close_their_connection, "MQTT-4.13.1-1"),
        test!(V5, framing::packet_id_zero, "MQTT-4.13.1-1"),
        test!(V5, properties::protocol_errors_in_properties, "MQTT-4.13.1-1"),
        test!(V5, connect::refusals_close, "MQTT-4.13.2-1"),
        test!(V5, disconnecting::servers_disconnect, "MQTT-4.13.2-1"),
    ]
}
