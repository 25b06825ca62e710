"""aiomqtt, used as its users do: a client as an async context, and a task that reads `client.messages`."""

import asyncio
import contextlib
import logging
import socket

import aiomqtt
import paho.mqtt.client as paho
from checks import EVENT_SECONDS_MAX, main
from client import Client, Closed, Message, Options, Version, from_paho_properties, to_paho_properties
from paho.mqtt.subscribeoptions import SubscribeOptions
from scenarios import checks_for_library

PROTOCOLS = {Version.V31: aiomqtt.ProtocolVersion.V31, Version.V311: aiomqtt.ProtocolVersion.V311, Version.V5: aiomqtt.ProtocolVersion.V5}

# Bursts keep more calls pending than aiomqtt thinks wise, and it says so each time.
logging.getLogger("mqtt").setLevel(logging.ERROR)


class AiomqttClient(Client):
    def __init__(self, host: str, port: int, options: Options) -> None:
        super().__init__(options)
        v5 = options.version is Version.V5
        will = None
        if options.will:
            values = dict(options.will.properties)
            if options.will.delay_seconds is not None:
                values["WillDelayInterval"] = options.will.delay_seconds
            will = aiomqtt.Will(
                options.will.topic, options.will.payload, options.will.qos, options.will.retain, to_paho_properties("will", values)
            )
        self.aiomqtt = aiomqtt.Client(
            host,
            port,
            identifier=options.client_id,
            protocol=PROTOCOLS[options.version],
            clean_session=None if v5 else options.clean,
            clean_start=options.clean if v5 else paho.MQTT_CLEAN_START_FIRST_ONLY,
            keepalive=options.keep_alive_seconds,
            properties=to_paho_properties("connect", options.properties),
            will=will,
            timeout=EVENT_SECONDS_MAX,
        )
        # aiomqtt keeps Session Present and the CONNACK properties to itself, so they are noted on their way in.
        on_connect = self.aiomqtt._client.on_connect

        def note_connack(client, userdata, flags, reason, properties=None):
            self.session_present = bool(flags.session_present)
            self.connack_properties = from_paho_properties(properties)
            on_connect(client, userdata, flags, reason, properties)

        self.aiomqtt._client.on_connect = note_connack
        self.reader: asyncio.Task | None = None

    @classmethod
    async def connect(cls, host: str, port: int, options: Options) -> "AiomqttClient":
        client = cls(host, port, options)
        await client.aiomqtt.__aenter__()
        client.reader = asyncio.create_task(client.read())
        return client

    async def read(self) -> None:
        async for message in self.aiomqtt.messages:
            properties = from_paho_properties(message.properties)
            self.take_in(Message(message.topic.value, message.payload, message.qos, message.retain, None, message.mid, properties))

    async def subscribe(self, topic_filter, qos, no_local=False, retain_as_published=False, retain_handling=0, identifier=None):
        if self.options.version is Version.V5:
            options = SubscribeOptions(qos, no_local, retain_as_published, retain_handling)
            properties = to_paho_properties("subscribe", {"SubscriptionIdentifier": identifier} if identifier else None)
            reasons = await self.aiomqtt.subscribe(topic_filter, options=options, properties=properties)
        else:
            reasons = await self.aiomqtt.subscribe(topic_filter, qos)
        return [reason if isinstance(reason, int) else reason.value for reason in reasons]

    async def unsubscribe(self, topic_filter):
        await self.aiomqtt.unsubscribe(topic_filter)
        return []

    async def publish(self, topic, payload, qos=0, retain=False, properties=None):
        await self.aiomqtt.publish(topic, payload, qos, retain, to_paho_properties("publish", properties))
        return 0

    async def leave(self, reason_code=0):
        await self.aiomqtt.__aexit__(None, None, None)
        await self.stop_reading()

    async def abort(self):
        # The context is left only after the connection is gone, so that aiomqtt sends no DISCONNECT.
        self.aiomqtt._client.socket().shutdown(socket.SHUT_RDWR)
        await self.closed()

    async def closed(self):
        with contextlib.suppress(aiomqtt.MqttError):
            await asyncio.wait_for(asyncio.shield(self.reader), EVENT_SECONDS_MAX)
        await self.stop_reading()
        with contextlib.suppress(aiomqtt.MqttError):
            await self.aiomqtt.__aexit__(None, None, None)
        return Closed(False, 0)

    async def stop_reading(self) -> None:
        self.reader.cancel()
        with contextlib.suppress(asyncio.CancelledError, aiomqtt.MqttError):
            await self.reader


if __name__ == "__main__":
    main("aiomqtt", lambda host, port: checks_for_library(lambda options: AiomqttClient.connect(host, port, options), set()))
