"""What the checks need of a Python client library; `paho_driver.py` and `aiomqtt_driver.py` fill it in.

The checks in `scenarios.py` are written once against `Client`. Only what a library cannot do is left out for it, by name
(`Ability`), never silently.
"""

import abc
import asyncio
import collections
import dataclasses
import enum

from checks import EVENT_SECONDS_MAX, CheckFailed, equal
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

Version = enum.Enum("Version", {"V31": "MQTT 3.1", "V311": "MQTT 3.1.1", "V5": "MQTT 5.0"})


class Ability(enum.Enum):
    """Things that not every library lets its user see or do."""

    ACKNOWLEDGE_LATER = enum.auto()
    DUP_FLAG = enum.auto()
    PUBLISH_REASON = enum.auto()
    UNSUBSCRIBE_REASON = enum.auto()
    DISCONNECT_REASON = enum.auto()


@dataclasses.dataclass(frozen=True)
class Will:
    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = False
    delay_seconds: int | None = None
    properties: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Options:
    """One CONNECT. `clean` is Clean Session or Clean Start; the properties are MQTT 5.0's, by paho's names."""

    version: Version
    client_id: str
    clean: bool = True
    keep_alive_seconds: int = 60
    will: Will | None = None
    acknowledge_later: bool = False
    properties: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Message:
    topic: str
    payload: bytes
    qos: int
    retain: bool
    dup: bool | None
    packet_id: int
    properties: dict


@dataclasses.dataclass(frozen=True)
class Closed:
    """How a Network Connection ended: by the broker's DISCONNECT and its Reason Code, or with nothing said."""

    by_disconnect_packet: bool
    reason_code: int


class Client(abc.ABC):
    """A connected client. Messages that arrive are queued until `receive` takes them, in the order of arrival."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.session_present = False
        self.connack_properties: dict = {}
        self.arrived: collections.deque[Message] = collections.deque()
        self.arrival = asyncio.Event()

    @abc.abstractmethod
    async def subscribe(self, topic_filter: str, qos: int, **options) -> list[int]:
        """SUBSCRIBE and its SUBACK; the Reason Codes. Options: `no_local`, `retain_as_published`, `retain_handling`, `identifier`."""

    @abc.abstractmethod
    async def unsubscribe(self, topic_filter: str) -> list[int]:
        """UNSUBSCRIBE and its UNSUBACK; the Reason Codes where the library shows them."""

    @abc.abstractmethod
    async def publish(self, topic: str, payload: bytes, qos: int = 0, retain: bool = False, properties: dict | None = None) -> int:
        """PUBLISH; for QoS above 0, returns after its last acknowledgement, with the Reason Code (0 where none is shown)."""

    @abc.abstractmethod
    async def leave(self, reason_code: int = 0) -> None:
        """Ends the connection with a DISCONNECT."""

    @abc.abstractmethod
    async def abort(self) -> None:
        """Ends the connection without a DISCONNECT, as a crash or a lost network would."""

    @abc.abstractmethod
    async def closed(self) -> Closed:
        """Waits until the broker has ended the connection."""

    def acknowledge(self, message: Message) -> None:
        raise NotImplementedError

    def take_in(self, message: Message) -> None:
        self.arrived.append(message)
        self.arrival.set()

    async def receive(self, seconds_max: float = EVENT_SECONDS_MAX) -> Message:
        async def next_message() -> Message:
            while not self.arrived:
                self.arrival.clear()
                await self.arrival.wait()
            return self.arrived.popleft()

        try:
            return await asyncio.wait_for(next_message(), seconds_max)
        except TimeoutError:
            raise CheckFailed(f"{self.options.client_id} waited {seconds_max:.0f} s for a message, none came") from None

    async def receive_before(self, marker: bytes) -> list[Message]:
        """All messages that arrive before the one whose payload is `marker`.

        This is how a check shows that something was *not* sent, or not twice: the marker is published after it, so the
        broker's silence is bounded by an event and not by a wait.
        """
        messages = []
        while (message := await self.receive()).payload != marker:
            messages.append(message)
        return messages

    async def receive_payloads(self, expected: list[bytes]) -> list[Message]:
        """Receives exactly as many messages as expected, and compares payloads and order."""
        messages = []
        for number, payload in enumerate(expected):
            message = await self.receive()
            equal(f"payload of message {number} of {len(expected)}", message.payload, payload)
            messages.append(message)
        return messages


PACKETS = {"connect": PacketTypes.CONNECT, "publish": PacketTypes.PUBLISH, "subscribe": PacketTypes.SUBSCRIBE, "will": PacketTypes.WILLMESSAGE}


def to_paho_properties(packet: str, values: dict | None) -> Properties | None:
    if not values:
        return None
    properties = Properties(PACKETS[packet])
    for name, value in values.items():
        setattr(properties, name, value)
    return properties


def from_paho_properties(properties: Properties | None) -> dict:
    """The properties by paho's names, each with its value; absent ones are absent."""
    if properties is None:
        return {}
    return {name.replace(" ", ""): getattr(properties, name.replace(" ", "")) for name in properties.names if hasattr(properties, name.replace(" ", ""))}
