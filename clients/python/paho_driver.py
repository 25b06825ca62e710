"""paho-mqtt, used as most programs use it: the network loop in a thread of its own, callbacks for what arrives."""

import asyncio
import socket

import paho.mqtt.client as paho
from checks import EVENT_SECONDS_MAX, CheckFailed, main
from client import Ability, Client, Closed, Message, Options, Version, from_paho_properties, to_paho_properties
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions
from scenarios import checks_for_library

PROTOCOLS = {Version.V31: paho.MQTTv31, Version.V311: paho.MQTTv311, Version.V5: paho.MQTTv5}


class PahoClient(Client):
    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.loop = asyncio.get_running_loop()
        self.connected: asyncio.Future = self.loop.create_future()
        self.ended: asyncio.Future[Closed] = self.loop.create_future()
        self.answers: dict[tuple[str, int], asyncio.Future] = {}
        v5 = options.version is Version.V5
        self.paho = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=options.client_id,
            protocol=PROTOCOLS[options.version],
            clean_session=None if v5 else options.clean,
            reconnect_on_failure=False,
            manual_ack=options.acknowledge_later,
        )
        self.paho.on_connect = self.on_connect
        self.paho.on_disconnect = self.on_disconnect
        self.paho.on_message = self.on_message
        self.paho.on_publish = lambda _c, _u, packet_id, reason, _p: self.answered("publish", packet_id, reason.value)
        self.paho.on_subscribe = lambda _c, _u, packet_id, reasons, _p: self.answered("subscribe", packet_id, [r.value for r in reasons])
        self.paho.on_unsubscribe = lambda _c, _u, packet_id, reasons, _p: self.answered("unsubscribe", packet_id, [r.value for r in reasons])
        if will := options.will:
            values = dict(will.properties)
            if will.delay_seconds is not None:
                values["WillDelayInterval"] = will.delay_seconds
            self.paho.will_set(will.topic, will.payload, will.qos, will.retain, to_paho_properties("will", values))

    @classmethod
    async def connect(cls, host: str, port: int, options: Options) -> "PahoClient":
        client = cls(options)
        v5 = options.version is Version.V5
        await client.loop.run_in_executor(
            None,
            lambda: client.paho.connect(
                host,
                port,
                keepalive=options.keep_alive_seconds,
                clean_start=options.clean if v5 else paho.MQTT_CLEAN_START_FIRST_ONLY,
                properties=to_paho_properties("connect", options.properties),
            ),
        )
        client.paho.loop_start()
        reason = await asyncio.wait_for(client.connected, EVENT_SECONDS_MAX)
        if reason != 0:
            raise CheckFailed(f"CONNECT of {options.client_id!r} was refused with {reason:#04x}")
        return client

    def in_loop(self, function, *arguments) -> None:
        """Callbacks come in paho's thread; all state lives in the event loop's."""
        self.loop.call_soon_threadsafe(function, *arguments)

    def on_connect(self, _client, _userdata, flags, reason, properties) -> None:
        def connected() -> None:
            self.session_present = bool(flags.session_present)
            self.connack_properties = from_paho_properties(properties)
            self.connected.set_result(reason.value)

        self.in_loop(connected)

    def on_disconnect(self, _client, _userdata, flags, reason, _properties) -> None:
        def ended() -> None:
            if not self.ended.done():
                self.ended.set_result(Closed(flags.is_disconnect_packet_from_server, reason.value))

        self.in_loop(ended)

    def on_message(self, _client, _userdata, message: paho.MQTTMessage) -> None:
        properties = from_paho_properties(getattr(message, "properties", None))
        self.in_loop(
            self.take_in,
            Message(message.topic, message.payload, message.qos, message.retain, message.dup, message.mid, properties),
        )

    def answered(self, what: str, packet_id: int, answer) -> None:
        def set_answer() -> None:
            future = self.answer(what, packet_id)
            if not future.done():
                future.set_result(answer)

        self.in_loop(set_answer)

    def answer(self, what: str, packet_id: int) -> asyncio.Future:
        # The acknowledgement may come before the call that asked for it has returned the Packet Identifier.
        return self.answers.setdefault((what, packet_id), self.loop.create_future())

    async def wait_answer(self, what: str, result: int, packet_id: int):
        if result != paho.MQTT_ERR_SUCCESS:
            raise CheckFailed(f"paho could not {what}: {paho.error_string(result)}")
        try:
            return await asyncio.wait_for(self.answer(what, packet_id), EVENT_SECONDS_MAX)
        except TimeoutError:
            raise CheckFailed(f"{self.options.client_id}: no acknowledgement for {what} with Packet Identifier {packet_id}") from None
        finally:
            self.answers.pop((what, packet_id), None)

    async def subscribe(self, topic_filter, qos, no_local=False, retain_as_published=False, retain_handling=0, identifier=None):
        if self.options.version is Version.V5:
            options = SubscribeOptions(qos, no_local, retain_as_published, retain_handling)
            properties = to_paho_properties("subscribe", {"SubscriptionIdentifier": identifier} if identifier else None)
            return await self.wait_answer("subscribe", *self.paho.subscribe(topic_filter, options=options, properties=properties))
        return await self.wait_answer("subscribe", *self.paho.subscribe(topic_filter, qos))

    async def unsubscribe(self, topic_filter):
        return await self.wait_answer("unsubscribe", *self.paho.unsubscribe(topic_filter))

    async def publish(self, topic, payload, qos=0, retain=False, properties=None):
        info = self.paho.publish(topic, payload, qos, retain, to_paho_properties("publish", properties))
        return await self.wait_answer("publish", info.rc, info.mid)

    async def leave(self, reason_code=0):
        reason = ReasonCode(PacketTypes.DISCONNECT, identifier=reason_code) if reason_code else None
        self.paho.disconnect(reason)
        await self.closed()

    async def abort(self):
        self.paho.socket().shutdown(socket.SHUT_RDWR)
        await self.closed()

    async def closed(self):
        closed = await asyncio.wait_for(asyncio.shield(self.ended), EVENT_SECONDS_MAX)
        await self.loop.run_in_executor(None, self.paho.loop_stop)
        return closed

    def acknowledge(self, message):
        self.paho.ack(message.packet_id, message.qos)


if __name__ == "__main__":
    main("paho-mqtt", lambda host, port: checks_for_library(lambda options: PahoClient.connect(host, port, options), set(Ability)))
