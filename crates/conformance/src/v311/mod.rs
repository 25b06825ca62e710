//! The statements of MQTT 3.1.1: which rule shows which number, by chapter, and what only 3.1.1 demands.

mod only;

use crate::rules::{connect, framing, qos, retained, session, strings, subscribe, topics, will};
use crate::{Test, test};

/// All tests of MQTT 3.1.1.
pub fn tests() -> Vec<Test> {
    [data(), connecting(), publishing(), subscribing(), operation()].concat()
}

/// Chapters 1 and 2: data and packet format.
fn data() -> Vec<Test> {
    vec![
        test!(V311, strings::ill_formed_utf8, "MQTT-1.5.3-1"),
        test!(V311, strings::null_character, "MQTT-1.5.3-2"),
        test!(V311, strings::byte_order_mark_is_kept, "MQTT-1.5.3-3"),
        test!(V311, framing::shortest_lengths, "MQTT-2.2.2-1"),
        test!(V311, framing::reserved_flags, "MQTT-2.2.2-1", "MQTT-2.2.2-2"),
        test!(V311, framing::packet_id_zero, "MQTT-2.3.1-1"),
        test!(V311, framing::server_packet_ids_are_unique, "MQTT-2.3.1-4"),
        test!(V311, framing::no_packet_id_at_qos_0, "MQTT-2.3.1-5"),
        test!(V311, framing::acknowledgements_repeat_the_packet_id, "MQTT-2.3.1-6"),
        test!(V311, framing::suback_and_unsuback_repeat_the_packet_id, "MQTT-2.3.1-7"),
    ]
}

/// 3.1 and 3.2: CONNECT and CONNACK.
fn connecting() -> Vec<Test> {
    vec![
        test!(V311, connect::second_connect, "MQTT-3.1.0-2"),
        test!(V311, connect::wrong_protocol_name, "MQTT-3.1.2-1"),
        test!(V311, only::unsupported_level_gets_connack_1, "MQTT-3.1.2-2"),
        test!(V311, connect::unknown_protocol_version, "MQTT-3.1.2-2"),
        test!(V311, connect::reserved_connect_flag, "MQTT-3.1.2-3"),
        test!(V311, session::resumed_session, "MQTT-3.1.2-4", "MQTT-3.1.2-5"),
        test!(V311, only::waiting_messages, "MQTT-3.1.2-5"),
        test!(V311, session::clean_discards, "MQTT-3.1.2-6", "MQTT-3.1.4-3"),
        test!(V311, session::clean_session_is_not_reused, "MQTT-3.1.2-6", "MQTT-3.1.4-3"),
        test!(V311, session::retained_messages_survive_the_session, "MQTT-3.1.2-7"),
        test!(V311, will::published_when_the_connection_ends, "MQTT-3.1.2-8"),
        test!(V311, connect::will_flag_needs_will_fields, "MQTT-3.1.2-9"),
        test!(V311, will::forgotten_once_published, "MQTT-3.1.2-10"),
        test!(V311, connect::will_bits_need_the_will_flag, "MQTT-3.1.2-11"),
        test!(V311, will::none_without_the_flag, "MQTT-3.1.2-12"),
        test!(V311, will::not_retained, "MQTT-3.1.2-16"),
        test!(V311, will::retained, "MQTT-3.1.2-17"),
        test!(V311, connect::keep_alive, "MQTT-3.1.2-24"),
        test!(V311, connect::client_id_names_the_session, "MQTT-3.1.3-2"),
        test!(V311, connect::ordinary_client_ids, "MQTT-3.1.3-5"),
        test!(V311, connect::zero_length_client_id, "MQTT-3.1.3-6"),
        test!(V311, only::zero_length_id_needs_clean_session, "MQTT-3.1.3-8", "MQTT-3.1.3-9"),
        test!(V311, connect::malformed_connect, "MQTT-3.1.4-1", "MQTT-3.2.2-6"),
        test!(V311, connect::takeover, "MQTT-3.1.4-2"),
        test!(V311, connect::session_present, "MQTT-3.1.4-3", "MQTT-3.2.2-1", "MQTT-3.2.2-2", "MQTT-3.2.2-3"),
        test!(V311, connect::connack_comes_first, "MQTT-3.1.4-4", "MQTT-3.2.0-1"),
        test!(V311, connect::nothing_is_processed_after_a_refusal, "MQTT-3.1.4-5"),
        test!(V311, only::refusing_connack, "MQTT-3.2.2-4", "MQTT-3.2.2-5"),
        test!(V311, connect::refusals_close, "MQTT-3.2.2-5"),
    ]
}

/// 3.3 to 3.7: PUBLISH and its acknowledgements.
fn publishing() -> Vec<Test> {
    vec![
        test!(V311, qos::resends_after_reconnect, "MQTT-3.3.1-1"),
        test!(V311, qos::qos_0_has_no_dup, "MQTT-3.3.1-2"),
        test!(V311, qos::dup_is_not_passed_on, "MQTT-3.3.1-3"),
        test!(V311, framing::qos_3, "MQTT-3.3.1-4"),
        test!(V311, retained::stored_and_replaced, "MQTT-3.3.1-5", "MQTT-3.3.1-8"),
        test!(V311, retained::sent_for_each_matching_topic, "MQTT-3.3.1-6", "MQTT-3.3.1-8"),
        test!(V311, retained::qos_0_discards_the_old_one, "MQTT-3.3.1-7"),
        test!(V311, retained::flag_cleared_for_established_subscriptions, "MQTT-3.3.1-9"),
        test!(V311, retained::empty_payload_removes, "MQTT-3.3.1-10"),
        test!(V311, retained::empty_payload_is_not_stored, "MQTT-3.3.1-11"),
        test!(V311, retained::unretained_changes_nothing, "MQTT-3.3.1-12"),
        test!(V311, strings::topic_name_is_utf8, "MQTT-3.3.2-1"),
        test!(V311, topics::wildcards_in_topic_names, "MQTT-3.3.2-2"),
        test!(V311, topics::forwarded_name_matches, "MQTT-3.3.2-3"),
        test!(V311, qos::answer_by_qos, "MQTT-3.3.4-1"),
        test!(V311, subscribe::overlapping_subscriptions, "MQTT-3.3.5-1"),
        test!(V311, qos::unauthorised_publish, "MQTT-3.3.5-2"),
        test!(V311, framing::pubrel_flags, "MQTT-3.6.1-1"),
    ]
}

/// 3.8 to 3.14: SUBSCRIBE, UNSUBSCRIBE, PINGREQ, DISCONNECT.
fn subscribing() -> Vec<Test> {
    vec![
        test!(V311, framing::subscribe_flags, "MQTT-3.8.1-1"),
        test!(V311, subscribe::wildcards_work_or_are_refused, "MQTT-3.8.3-2"),
        test!(V311, subscribe::bad_subscribe_options, "MQTT-3.8.3-4"),
        test!(V311, subscribe::suback, "MQTT-3.8.4-1", "MQTT-3.8.4-2", "MQTT-3.8.4-5", "MQTT-3.9.3-2"),
        test!(V311, subscribe::same_filter_replaces, "MQTT-3.8.4-3"),
        test!(V311, retained::resubscribing_resends, "MQTT-3.8.4-3"),
        test!(V311, subscribe::several_filters, "MQTT-3.8.4-4"),
        test!(V311, qos::delivered_qos_is_the_lower, "MQTT-3.8.4-6"),
        test!(V311, subscribe::suback_order_with_a_refusal, "MQTT-3.8.4-5", "MQTT-3.9.3-1", "MQTT-3.9.3-2"),
        test!(V311, framing::unsubscribe_flags, "MQTT-3.10.1-1"),
        test!(V311, subscribe::exact_filter_is_removed, "MQTT-3.10.4-1"),
        test!(V311, subscribe::nothing_new_after_unsubscribe, "MQTT-3.10.4-2"),
        test!(V311, subscribe::begun_deliveries_are_completed, "MQTT-3.10.4-3"),
        test!(V311, subscribe::unsuback, "MQTT-3.10.4-4", "MQTT-3.10.4-5"),
        test!(V311, subscribe::several_filters_removed, "MQTT-3.10.4-6"),
        test!(V311, subscribe::pingreq, "MQTT-3.12.4-1"),
        test!(V311, framing::disconnect_flags, "MQTT-3.14.1-1"),
        test!(V311, will::discarded_by_disconnect, "MQTT-3.14.4-3"),
    ]
}

/// Chapters 4 and 7.
fn operation() -> Vec<Test> {
    vec![
        test!(V311, session::resumed_session, "MQTT-4.1.0-1"),
        test!(V311, qos::qos_2_receiver_across_reconnect, "MQTT-4.1.0-1"),
        test!(V311, session::state_lasts_while_connected, "MQTT-4.1.0-2"),
        test!(V311, framing::no_packet_id_at_qos_0, "MQTT-4.3.1-1"),
        test!(V311, qos::qos_0_has_no_dup, "MQTT-4.3.1-1"),
        test!(V311, qos::qos_1_sender, "MQTT-4.3.2-1"),
        test!(V311, qos::qos_1_receiver, "MQTT-4.3.2-2"),
        test!(V311, qos::qos_2_sender, "MQTT-4.3.3-1"),
        test!(V311, qos::qos_2_receiver, "MQTT-4.3.3-2"),
        test!(V311, qos::qos_2_receiver_across_reconnect, "MQTT-4.3.3-2"),
        test!(V311, qos::resends_after_reconnect, "MQTT-4.4.0-1"),
        test!(V311, session::every_matching_session_gets_the_message, "MQTT-4.5.0-1"),
        test!(V311, qos::order_is_kept, "MQTT-4.6.0-5", "MQTT-4.6.0-6"),
        test!(V311, qos::order_is_kept_for_absent, "MQTT-4.6.0-6"),
        test!(V311, topics::wildcards_in_topic_names, "MQTT-4.7.1-1"),
        test!(V311, topics::misplaced_number_sign, "MQTT-4.7.1-2"),
        test!(V311, topics::wildcards_match, "MQTT-4.7.1-2", "MQTT-4.7.1-3"),
        test!(V311, topics::misplaced_plus_sign, "MQTT-4.7.1-3"),
        test!(V311, topics::dollar_topics, "MQTT-4.7.2-1"),
        test!(V311, topics::empty_names_and_filters, "MQTT-4.7.3-1"),
        test!(V311, strings::null_in_names_and_filters, "MQTT-4.7.3-2"),
        test!(V311, strings::longest_names, "MQTT-4.7.3-3"),
        test!(V311, topics::no_normalisation, "MQTT-4.7.3-4"),
        test!(V311, framing::violations_close_their_connection, "MQTT-4.8.0-1"),
        test!(V311, connect::plain_dialogue, "MQTT-7.0.0-2"),
        test!(V311, connect::bytes_one_by_one, "MQTT-7.1.1-1"),
    ]
}
