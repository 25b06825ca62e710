"""What a broker owes to any client, written once for the Python libraries.

Each check gets a `World`: it connects clients, gives names of its own, and ends what the check left open.
"""

import asyncio
import contextlib
import itertools
import time

from checks import CheckFailed, Place, equal, true
from client import Ability, Client, Message, Options, Version, Will

V31, V311, V5 = Version.V31, Version.V311, Version.V5
ALL = (V31, V311, V5)

# Round trips by which a check gives the broker the occasion to send what it must not send.
FENCE_ROUND_TRIPS = 10

CHECKS: list[tuple[str, tuple[Version, ...], frozenset[Ability], object]] = []


def check(name: str, versions=ALL, needs=()):
    """Registers a check, once for each version. `needs` names what a library must let its user see."""

    def register(function):
        CHECKS.append((name, versions, frozenset(needs), function))
        return function

    return register


class World:
    def __init__(self, connect, version: Version, place: Place) -> None:
        self.connect_with = connect
        self.version = version
        self.place = place
        self.clients: list[Client] = []

    async def connect(self, role: str, **options) -> Client:
        """A connected client; by the same role one resumes the Session, or takes the connection over."""
        options.setdefault("client_id", self.place.client_id(role))
        client = await self.connect_with(Options(version=self.version, **options))
        self.clients.append(client)
        return client

    async def connect_persistent(self, role: str, **options) -> Client:
        """A client whose Session outlives the connection: Clean Session 0, or Clean Start 0 with an expiry of five minutes."""
        properties = options.pop("properties", {})
        if self.version is V5:
            properties = {"SessionExpiryInterval": 300, **properties}
        return await self.connect(role, clean=False, properties=properties, **options)

    def topic(self, *levels: str) -> str:
        return self.place.topic(*levels)

    async def end(self) -> None:
        for client in self.clients:
            with contextlib.suppress(Exception):
                await client.leave()

    async def discard_session(self, role: str) -> None:
        """Leaves nothing of a persistent Session behind in the broker."""
        await (await self.connect(role)).leave()


def checks_for_library(connect, abilities: set[Ability]):
    def bind(version, function):
        async def run(place: Place) -> None:
            world = World(connect, version, place)
            try:
                await function(world)
            finally:
                await world.end()

        return run

    return [
        (f"{version.value}: {name}", bind(version, function))
        for version in ALL
        for name, versions, needs, function in CHECKS
        if version in versions and needs <= abilities
    ]


def payloads(count: int, label: str = "message") -> list[bytes]:
    return [f"{label} {number:05}".encode() for number in range(count)]


async def publish_all(client: Client, topic: str, contents: list[bytes], qos: int, **options) -> None:
    """Starts every PUBLISH in order without waiting for the one before, then waits for all acknowledgements."""
    await asyncio.gather(*(client.publish(topic, content, qos, **options) for content in contents))


async def round_trips(client: Client, publisher: Client, topic: str) -> list[Message]:
    """Sends messages through the broker to a client that is subscribed to `topic`, one by one; what else arrived meanwhile."""
    others = []
    for number in range(FENCE_ROUND_TRIPS):
        marker = f"fence {number}".encode()
        await publisher.publish(topic, marker, 1)
        others += await client.receive_before(marker)
    return others


async def nothing_comes(client: Client, publisher: Client, topic: str) -> None:
    """Round trips through the broker, in which nothing else may arrive."""
    stray = await round_trips(client, publisher, topic)
    equal("messages that should not come", [(m.topic, m.payload) for m in stray], [])


async def arrives_within(client: Client, seconds: float) -> bool:
    try:
        await client.receive(seconds)
    except CheckFailed:
        return False
    return True


def register_qos_checks() -> None:
    for qos in (0, 1, 2):

        @check(f"QoS {qos} to subscriptions of QoS 0, 1 and 2")
        async def qos_both_ways(world: World, qos=qos) -> None:
            publisher = await world.connect("publisher")
            # Odd contents on purpose: nothing at all, every byte value, text beyond ASCII.
            contents = [b"", bytes(range(256)), "naïve ☂ 𝄞".encode(), *payloads(20)]
            topic = world.topic("été", "a b")
            for subscribed in (0, 1, 2):
                subscriber = await world.connect(f"subscriber-{subscribed}")
                equal("SUBACK", await subscriber.subscribe(topic, subscribed), [subscribed])
                await publish_all(publisher, topic, [*contents, b"end"], qos)
                messages = await subscriber.receive_before(b"end")
                equal("payloads in order", [m.payload for m in messages], contents)
                equal("Topic Names", {m.topic for m in messages}, {topic})
                equal("QoS", {m.qos for m in messages}, {min(qos, subscribed)})
                equal("retain flags", {bool(m.retain) for m in messages}, {False})
                await subscriber.leave()

        @check(f"burst of 1000 messages at QoS {qos}")
        async def burst(world: World, qos=qos) -> None:
            subscriber = await world.connect("subscriber")
            publisher = await world.connect("publisher")
            topic = world.topic("burst")
            await subscriber.subscribe(topic, qos)
            contents = payloads(1000)
            await publish_all(publisher, topic, [*contents, b"end"], qos)
            messages = await subscriber.receive_before(b"end")
            equal("number of messages", len(messages), 1000)
            equal("payloads in order", [m.payload for m in messages], contents)

        @check(f"payload of 1 MiB at QoS {qos}", versions=(V311, V5))
        async def large_payload(world: World, qos=qos) -> None:
            subscriber = await world.connect("subscriber")
            publisher = await world.connect("publisher")
            topic = world.topic("large")
            await subscriber.subscribe(topic, qos)
            payload = bytes(itertools.islice(itertools.cycle(range(251)), 1024 * 1024))
            await publisher.publish(topic, payload, qos)
            message = await subscriber.receive()
            true(f"payload of {len(message.payload)} bytes differs from the one of 1 MiB that was sent", message.payload == payload)


register_qos_checks()


@check("wildcards match whole levels")
async def wildcards(world: World) -> None:
    subscriber = await world.connect("subscriber")
    publisher = await world.connect("publisher")
    topics = ["a", "a/b", "a/b/c", "b/b", "a//b", "/a"]
    expected = {
        "a/#": ["a", "a/b", "a/b/c", "a//b"],
        "a/+": ["a/b"],
        "+/b": ["a/b", "b/b"],
        "+/+/b": ["a//b"],
        "+/a": ["/a"],
    }
    for number, (topic_filter, matching) in enumerate(expected.items()):
        scope = world.topic(str(number))
        await subscriber.subscribe(f"{scope}/{topic_filter}", 1)
        await subscriber.subscribe(f"{scope}-end", 1)
        for topic in topics:
            await publisher.publish(f"{scope}/{topic}", b"x", 1)
        await publisher.publish(f"{scope}-end", b"end", 1)
        messages = await subscriber.receive_before(b"end")
        equal(f"Topic Names matched by {topic_filter}", [m.topic.removeprefix(f"{scope}/") for m in messages], matching)


@check("Retained Message: set, replace, retain flag, delete")
async def retained(world: World) -> None:
    publisher = await world.connect("publisher")
    live = await world.connect("live")
    topic = world.topic("retained")
    await live.subscribe(topic, 1)
    for payload in (b"first", b"second"):
        await publisher.publish(topic, payload, 1, retain=True)
        message = await live.receive()
        equal("live delivery", (message.payload, bool(message.retain)), (payload, False))

    late = await world.connect("late")
    await late.subscribe(world.topic("#"), 2)
    message = await late.receive()
    equal("delivery to a new subscription", (message.topic, message.payload, message.qos, bool(message.retain)), (topic, b"second", 1, True))

    await publisher.publish(topic, b"", 1, retain=True)
    equal("the deletion is delivered too", (await live.receive()).payload, b"")
    latest = await world.connect("latest")
    await latest.subscribe(world.topic("#"), 1)
    await nothing_comes(latest, publisher, world.topic("fence"))


@check("a retained message published after SUBACK comes once")
async def retained_once(world: World) -> None:
    # A broker that looks up what is retained only after it has answered would deliver such a message twice.
    subscriber = await world.connect("subscriber")
    publisher = await world.connect("publisher")
    await subscriber.subscribe(world.topic("fence"), 1)
    for number in range(50):
        topic = world.topic("fresh", str(number))
        await subscriber.subscribe(topic, 2)
        await publisher.publish(topic, b"once", 2, retain=True)
        messages = [await subscriber.receive()]
        await publisher.publish(world.topic("fence"), b"end", 1)
        messages += await subscriber.receive_before(b"end")
        equal(f"deliveries in round {number}", [(m.payload, bool(m.retain)) for m in messages], [(b"once", False)])
        await publisher.publish(topic, b"", 1, retain=True)
        await subscriber.receive()
        await subscriber.unsubscribe(topic)


@check("Will Message after an abnormal end, none after a clean one")
async def will(world: World) -> None:
    observer = await world.connect("observer")
    topic, fence = world.topic("will"), world.topic("fence")
    await observer.subscribe(topic, 1)
    await observer.subscribe(fence, 1)
    publisher = await world.connect("publisher")

    leaving = await world.connect("leaving", will=Will(topic, b"left"))
    await leaving.leave()
    await nothing_comes(observer, publisher, fence)

    for qos in (0, 1, 2):
        crashing = await world.connect(f"crashing-{qos}", will=Will(topic, b"crashed", qos))
        await crashing.abort()
        message = await observer.receive()
        equal("Will Message", (message.payload, message.qos, bool(message.retain)), (b"crashed", min(qos, 1), False))

    crashing = await world.connect("crashing", will=Will(topic, b"kept", 1, retain=True))
    await crashing.abort()
    equal("Will Message to be retained", (await observer.receive()).payload, b"kept")
    late = await world.connect("late")
    await late.subscribe(topic, 1)
    message = await late.receive()
    equal("retained Will Message", (message.payload, bool(message.retain)), (b"kept", True))
    await publisher.publish(topic, b"", 1, retain=True)


@check("resumed Session: Session Present, missed messages in order")
async def resumed_session(world: World) -> None:
    subscriber = await world.connect_persistent("subscriber")
    equal("Session Present at first", subscriber.session_present, False)
    await subscriber.subscribe(world.topic("one"), 1)
    await subscriber.subscribe(world.topic("two"), 2)
    await subscriber.leave()

    publisher = await world.connect("publisher")
    contents = payloads(100)
    for number, content in enumerate(contents):
        await publisher.publish(world.topic("one" if number % 2 else "two"), content, 1 if number % 2 else 2)

    subscriber = await world.connect_persistent("subscriber")
    # 3.1 has no Session Present flag; a library shows it as absent.
    equal("Session Present on return", subscriber.session_present, world.version is not V31)
    messages = [await subscriber.receive() for _ in contents]
    # A library hands a QoS 2 message on when its exchange is complete, so QoS 1 messages may overtake it there: order is kept
    # for each Topic Name and QoS.
    for qos, missed in ((1, contents[1::2]), (2, contents[0::2])):
        equal(f"missed messages of QoS {qos} in order", [m.payload for m in messages if m.qos == qos], missed)
    await publisher.publish(world.topic("one"), b"still subscribed", 1)
    equal("message after those missed", (await subscriber.receive()).payload, b"still subscribed")
    await subscriber.leave()

    fresh = await world.connect("subscriber")
    equal("Session Present after a clean start", fresh.session_present, False)
    await fresh.subscribe(world.topic("fence"), 1)
    await publisher.publish(world.topic("one"), b"nobody is subscribed", 1)
    await nothing_comes(fresh, publisher, world.topic("fence"))


@check("unacknowledged messages come again after an abnormal end", needs=(Ability.ACKNOWLEDGE_LATER, Ability.DUP_FLAG))
async def redelivery(world: World) -> None:
    subscriber = await world.connect_persistent("subscriber", acknowledge_later=True)
    topic = world.topic("redelivered")
    await subscriber.subscribe(topic, 1)
    publisher = await world.connect("publisher")
    contents = payloads(10)
    await publish_all(publisher, topic, contents, 1)
    first = await subscriber.receive_payloads(contents)
    equal("DUP at first", {m.dup for m in first}, {False})
    for message in first[:4]:
        subscriber.acknowledge(message)
    # A publish to itself is answered after the broker has read the acknowledgements before it.
    await subscriber.publish(world.topic("fence"), b"", 1)
    await subscriber.abort()

    subscriber = await world.connect_persistent("subscriber")
    again = await subscriber.receive_payloads(contents[4:])
    equal("DUP when sent again", {m.dup for m in again}, {True})
    equal("Packet Identifiers when sent again", [m.packet_id for m in again], [m.packet_id for m in first[4:]])
    await subscriber.leave()
    await world.discard_session("subscriber")


@check("shared subscription: each message to one member", versions=(V311, V5))
async def shared_subscription(world: World) -> None:
    topic, fence = world.topic("shared"), world.topic("fence")
    members = [await world.connect(f"member-{number}") for number in range(2)]
    for member in members:
        await member.subscribe(f"$share/group/{topic}", 1)
        await member.subscribe(fence, 1)
    publisher = await world.connect("publisher")
    contents = payloads(200)
    await publish_all(publisher, topic, contents, 1)
    await publisher.publish(fence, b"end", 1)
    shares = [[m.payload for m in await member.receive_before(b"end")] for member in members]
    # Messages cross the broker by way of the group; the fence does not. What it overtook is waited for.
    while sum(map(len, shares)) < len(contents):
        arrived = await next_of_any(members)
        shares[arrived[0]].append(arrived[1].payload)
    equal("all shares together", sorted(shares[0] + shares[1]), contents)
    for number, share in enumerate(shares):
        true(f"member {number} got nothing of {len(contents)} messages", share)
        equal(f"order at member {number}", share, sorted(share))


async def next_of_any(clients: list[Client]) -> tuple[int, Message]:
    tasks = {asyncio.create_task(client.receive()): number for number, client in enumerate(clients)}
    done, waiting = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
    task = done.pop()
    for other in done:
        clients[tasks[other]].arrived.appendleft(other.result())
    return tasks[task], task.result()


@check("takeover: the same Client Identifier ends the older connection")
async def takeover(world: World) -> None:
    older = await world.connect("same")
    newer = await world.connect("same")
    await older.closed()
    topic = world.topic("after")
    await newer.subscribe(topic, 1)
    await newer.publish(topic, b"newer works", 1)
    equal("message to the newer connection", (await newer.receive()).payload, b"newer works")


@check("takeover is told as Reason Code 0x8E", versions=(V5,), needs=(Ability.DISCONNECT_REASON,))
async def takeover_reason(world: World) -> None:
    older = await world.connect("same")
    await world.connect("same")
    closed = await older.closed()
    equal("DISCONNECT from the broker, Reason Code", (closed.by_disconnect_packet, closed.reason_code), (True, 0x8E))


@check("takeover keeps the Session and what is queued in it")
async def takeover_session(world: World) -> None:
    older = await world.connect_persistent("same")
    topic = world.topic("kept")
    await older.subscribe(topic, 1)
    newer = await world.connect_persistent("same")
    await older.closed()
    equal("Session Present", newer.session_present, world.version is not V31)
    publisher = await world.connect("publisher")
    contents = payloads(10)
    await publish_all(publisher, topic, contents, 1)
    await newer.receive_payloads(contents)
    await newer.leave()
    await world.discard_session("same")


@check("unsubscribed filters deliver nothing more")
async def unsubscribe(world: World) -> None:
    subscriber = await world.connect("subscriber")
    publisher = await world.connect("publisher")
    topic, fence = world.topic("gone"), world.topic("fence")
    await subscriber.subscribe(topic, 1)
    await subscriber.subscribe(fence, 1)
    await publisher.publish(topic, b"before", 1)
    equal("message before", (await subscriber.receive()).payload, b"before")
    await subscriber.unsubscribe(topic)
    await publisher.publish(topic, b"after", 1)
    await nothing_comes(subscriber, publisher, fence)


@check("a subscription made again replaces the one before")
async def subscription_replaced(world: World) -> None:
    subscriber = await world.connect("subscriber")
    topic = world.topic("again")
    await subscriber.subscribe(topic, 0)
    await subscriber.subscribe(topic, 2)
    await subscriber.publish(topic, b"once", 2)
    await subscriber.publish(topic, b"end", 2)
    messages = await subscriber.receive_before(b"end")
    equal("messages", [(m.payload, m.qos) for m in messages], [(b"once", 2)])


@check("request and response over topics")
async def request_response(world: World) -> None:
    responder = await world.connect("responder")
    requester = await world.connect("requester")
    v5 = world.version is V5
    await responder.subscribe(world.topic("request", "+"), 1)
    await requester.subscribe(world.topic("response"), 1)
    for number in range(10):
        correlation = bytes([number, 0, 0xFF])
        properties = {"ResponseTopic": world.topic("response"), "CorrelationData": correlation} if v5 else None
        await requester.publish(world.topic("request", str(number)), f"ask {number}".encode(), 1, properties=properties)
        request = await responder.receive()
        target = request.properties["ResponseTopic"] if v5 else world.topic("response")
        answer = {"CorrelationData": request.properties["CorrelationData"]} if v5 else None
        await responder.publish(target, request.payload.replace(b"ask", b"answer"), 1, properties=answer)
        response = await requester.receive()
        equal("response", response.payload, f"answer {number}".encode())
        if v5:
            equal("Correlation Data", response.properties.get("CorrelationData"), correlation)


@check("Keep Alive: an idle client that pings stays connected", versions=(V311,))
async def keep_alive(world: World) -> None:
    idle = await world.connect("idle", keep_alive_seconds=1)
    topic = world.topic("idle")
    await idle.subscribe(topic, 1)
    publisher = await world.connect("publisher")
    # The broker would cut a silent client 1.5 s after its last packet; the time itself is what is tested.
    cut_after = time.monotonic() + 2.5
    while time.monotonic() < cut_after:
        await asyncio.sleep(0.1)
    await publisher.publish(topic, b"still here", 1)
    equal("message after the idle time", (await idle.receive()).payload, b"still here")


@check("publish properties arrive as sent, User Properties in order", versions=(V5,))
async def publish_properties(world: World) -> None:
    subscriber = await world.connect("subscriber")
    publisher = await world.connect("publisher")
    topic = world.topic("properties")
    await subscriber.subscribe(topic, 2)
    sent = {
        "PayloadFormatIndicator": 1,
        "MessageExpiryInterval": 600,
        "ContentType": "text/plain; charset=utf-8",
        "ResponseTopic": "somewhere/else",
        "CorrelationData": bytes(range(256)),
        "UserProperty": [("b", "1"), ("a", "2"), ("b", "1"), ("", ""), ("ключ", "значение ☂")],
    }
    for qos in (0, 1, 2):
        await publisher.publish(topic, "payload ☂".encode(), qos, properties=sent)
        got = dict((await subscriber.receive()).properties)
        true(f"Message Expiry Interval {got.get('MessageExpiryInterval')} is not in 590..=600", 590 <= got.pop("MessageExpiryInterval", 0) <= 600)
        equal("properties", got, {name: value for name, value in sent.items() if name != "MessageExpiryInterval"})
    await publisher.publish(topic, b"plain", 1)
    equal("properties of a message sent without any", (await subscriber.receive()).properties, {})


@check("Will properties arrive as sent", versions=(V5,))
async def will_properties(world: World) -> None:
    observer = await world.connect("observer")
    topic = world.topic("will")
    await observer.subscribe(topic, 1)
    sent = {"ContentType": "application/cbor", "CorrelationData": b"\0\1", "ResponseTopic": "r", "UserProperty": [("z", "1"), ("a", "2")]}
    crashing = await world.connect("crashing", will=Will(topic, b"x", properties=sent))
    await crashing.abort()
    equal("properties", (await observer.receive()).properties, sent)


@check("Message Expiry Interval: gone when it has passed, not before", versions=(V5,))
async def message_expiry(world: World) -> None:
    publisher = await world.connect("publisher")
    topic = world.topic("expiring")
    published = time.monotonic()
    await publisher.publish(topic, b"short-lived", 1, retain=True, properties={"MessageExpiryInterval": 1})
    subscriber = await world.connect("subscriber")
    await subscriber.subscribe(world.topic("fence"), 1)
    while True:
        asked = time.monotonic()
        await subscriber.subscribe(topic, 1)
        retained = await round_trips(subscriber, publisher, world.topic("fence"))
        answered = time.monotonic()
        # It may be on its way still: other messages may overtake a retained one.
        if not retained and not await arrives_within(subscriber, 1):
            break
        true("still delivered 5 s after it was published with an expiry of 1 s", asked - published < 5)
    gone_after = answered - published
    true(f"gone after {gone_after:.2f} s, sooner than its expiry of 1 s", gone_after >= 1)


@check("Subscription Identifier comes with each message", versions=(V5,))
async def subscription_identifier(world: World) -> None:
    subscriber = await world.connect("subscriber")
    await subscriber.subscribe(world.topic("a", "#"), 1, identifier=1)
    await subscriber.subscribe(world.topic("a", "+"), 1, identifier=268_435_455)
    await subscriber.subscribe(world.topic("b"), 1, identifier=7)
    await subscriber.subscribe(world.topic("end"), 1)
    await subscriber.publish(world.topic("b"), b"one filter", 1)
    equal("Subscription Identifier", (await subscriber.receive()).properties.get("SubscriptionIdentifier"), [7])
    await subscriber.publish(world.topic("a", "b"), b"two filters", 1)
    await subscriber.publish(world.topic("end"), b"end", 1)
    messages = await subscriber.receive_before(b"end")
    true(f"two overlapping subscriptions gave {len(messages)} messages", len(messages) in (1, 2))
    identifiers = [i for m in messages for i in m.properties.get("SubscriptionIdentifier", [])]
    equal("Subscription Identifiers of all copies", sorted(identifiers), [1, 268_435_455])


@check("Reason Codes: PUBACK and PUBREC with and without subscribers", versions=(V5,), needs=(Ability.PUBLISH_REASON,))
async def publish_reasons(world: World) -> None:
    client = await world.connect("client")
    topic = world.topic("subscribed")
    await client.subscribe(topic, 2)
    equal("PUBACK with a subscriber", await client.publish(topic, b"x", 1), 0x00)
    equal("PUBACK without one", await client.publish(world.topic("nobody"), b"x", 1), 0x10)
    # The library shows the Reason Code of PUBCOMP, the end of the exchange.
    equal("PUBCOMP", await client.publish(topic, b"x", 2), 0x00)


@check("Reason Codes: SUBACK grants what was asked")
async def subscribe_reasons(world: World) -> None:
    client = await world.connect("client")
    for qos in (0, 1, 2):
        equal(f"SUBACK for QoS {qos}", await client.subscribe(world.topic(str(qos)), qos), [qos])


@check("Reason Codes: UNSUBACK with and without a subscription", versions=(V5,), needs=(Ability.UNSUBSCRIBE_REASON,))
async def unsubscribe_reasons(world: World) -> None:
    client = await world.connect("client")
    topic = world.topic("subscribed")
    await client.subscribe(topic, 1)
    equal("UNSUBACK of a subscription", await client.unsubscribe(topic), [0x00])
    equal("UNSUBACK of none", await client.unsubscribe(topic), [0x11])


@check("Assigned Client Identifier for an empty one", versions=(V5,))
async def assigned_client_id(world: World) -> None:
    assigned = []
    for _ in range(2):
        client = await world.connect("", client_id="")
        assigned.append(client.connack_properties.get("AssignedClientIdentifier"))
    true(f"Assigned Client Identifiers {assigned} are not two different names", all(assigned) and assigned[0] != assigned[1])


@check("an empty Client Identifier is accepted with Clean Session", versions=(V311,))
async def empty_client_id(world: World) -> None:
    first = await world.connect("", client_id="")
    second = await world.connect("", client_id="")
    for number, client in enumerate((first, second)):
        topic = world.topic(str(number))
        await client.subscribe(topic, 1)
        await client.publish(topic, b"both live", 1)
        equal("message", (await client.receive()).payload, b"both live")


@check("Topic Alias from the client", versions=(V5,))
async def topic_alias(world: World) -> None:
    subscriber = await world.connect("subscriber")
    publisher = await world.connect("publisher")
    maximum = publisher.connack_properties.get("TopicAliasMaximum", 0)
    true("the broker takes no Topic Alias", maximum > 0)
    await subscriber.subscribe(world.topic("#"), 1)
    for alias in range(1, maximum + 1):
        await publisher.publish(world.topic(str(alias)), b"named", 1, properties={"TopicAlias": alias})
        await publisher.publish("", b"by alias", 1, properties={"TopicAlias": alias})
    # An alias given to another Topic Name means that one from then on.
    await publisher.publish(world.topic("other"), b"named", 1, properties={"TopicAlias": 1})
    await publisher.publish("", b"by alias", 1, properties={"TopicAlias": 1})
    expected = [world.topic(str(alias)) for alias in range(1, maximum + 1) for _ in range(2)] + [world.topic("other")] * 2
    messages = [await subscriber.receive() for _ in expected]
    equal("Topic Names", [m.topic for m in messages], expected)
    equal("Topic Aliases to a client that allows none", {m.properties.get("TopicAlias") for m in messages}, {None})


@check("No Local, Retain As Published, Retain Handling", versions=(V5,))
async def subscription_options(world: World) -> None:
    client = await world.connect("client")
    other = await world.connect("other")
    end = world.topic("end")
    await client.subscribe(end, 1)

    await client.subscribe(world.topic("local"), 1, no_local=True)
    await client.publish(world.topic("local"), b"own", 1)
    await other.publish(world.topic("local"), b"other's", 1)
    equal("with No Local", (await client.receive()).payload, b"other's")

    await client.subscribe(world.topic("as-published"), 1, retain_as_published=True)
    for retain in (True, False):
        await other.publish(world.topic("as-published"), b"x", 1, retain=retain)
        equal("retain flag as published", bool((await client.receive()).retain), retain)
    await other.publish(world.topic("as-published"), b"", 1, retain=True)
    await client.receive()

    topic = world.topic("handling")
    await other.publish(topic, b"kept", 1, retain=True)
    for handling, first, again in ((0, 1, 1), (1, 1, 0), (2, 0, 0)):
        for when, count in (("at first", first), ("when repeated", again)):
            await client.subscribe(topic, 1, retain_handling=handling)
            # Other messages may overtake a retained one, so one that has to come is waited for.
            messages = [await client.receive() for _ in range(count)]
            messages += await round_trips(client, other, end)
            equal(f"retained messages with Retain Handling {handling} {when}", len(messages), count)
        await client.unsubscribe(topic)
    await other.publish(topic, b"", 1, retain=True)


@check("Session Expiry Interval 0 ends the Session with the connection", versions=(V5,))
async def session_expiry(world: World) -> None:
    first = await world.connect("client", clean=False)
    await first.subscribe(world.topic("gone"), 1)
    await first.leave()
    second = await world.connect("client", clean=False)
    equal("Session Present", second.session_present, False)


@check("Receive Maximum 1: one message in flight, all arrive in order", versions=(V5,))
async def receive_maximum(world: World) -> None:
    subscriber = await world.connect("subscriber", properties={"ReceiveMaximum": 1})
    publisher = await world.connect("publisher")
    topic = world.topic("window")
    await subscriber.subscribe(topic, 2)
    contents = payloads(50)
    for number, content in enumerate(contents):
        await publisher.publish(topic, content, 1 + number % 2)
    await subscriber.receive_payloads(contents)


@check("Receive Maximum is kept while nothing is acknowledged", versions=(V5,), needs=(Ability.ACKNOWLEDGE_LATER,))
async def receive_maximum_kept(world: World) -> None:
    subscriber = await world.connect("subscriber", acknowledge_later=True, properties={"ReceiveMaximum": 3})
    publisher = await world.connect("publisher")
    topic = world.topic("window")
    await subscriber.subscribe(topic, 1)
    await subscriber.subscribe(world.topic("fence"), 0)
    contents = payloads(9)
    await publish_all(publisher, topic, contents, 1)
    for begin in range(0, len(contents), 3):
        window = await subscriber.receive_payloads(contents[begin : begin + 3])
        # QoS 0 flows although the window is full, and shows that nothing else did.
        await nothing_comes(subscriber, publisher, world.topic("fence"))
        for message in window:
            subscriber.acknowledge(message)


@check("Maximum Packet Size of the client: what is larger is not sent to it", versions=(V5,))
async def maximum_packet_size(world: World) -> None:
    small = await world.connect("small", properties={"MaximumPacketSize": 500})
    publisher = await world.connect("publisher")
    topic = world.topic("sizes")
    await small.subscribe(topic, 1)
    for payload in (b"fits", b"x" * 1000, b"fits too"):
        await publisher.publish(topic, payload, 1)
    await small.receive_payloads([b"fits", b"fits too"])


@check("Will Delay Interval: late, and not if the client returns", versions=(V5,))
async def will_delay(world: World) -> None:
    observer = await world.connect("observer")
    publisher = await world.connect("publisher")
    topic, fence = world.topic("will"), world.topic("fence")
    await observer.subscribe(topic, 1)
    await observer.subscribe(fence, 1)
    delayed = {"clean": False, "properties": {"SessionExpiryInterval": 60}}

    crashing = await world.connect("crashing", will=Will(topic, b"late", delay_seconds=1), **delayed)
    crashed = time.monotonic()
    await crashing.abort()
    equal("Will Message", (await observer.receive()).payload, b"late")
    delay = time.monotonic() - crashed
    true(f"the Will Message came {delay:.2f} s after the end, sooner than its delay of 1 s", delay >= 1)

    returning = await world.connect("crashing", will=Will(topic, b"never", delay_seconds=1), **delayed)
    crashed = time.monotonic()
    await returning.abort()
    returned = await world.connect("crashing", **delayed)
    # The time itself is what is tested: the Will would come after one second.
    while time.monotonic() < crashed + 1.5:
        await nothing_comes(observer, publisher, fence)
    await returned.leave()
    await world.discard_session("crashing")


@check("DISCONNECT with 0x04 asks for the Will Message", versions=(V5,), needs=(Ability.DISCONNECT_REASON,))
async def disconnect_with_will(world: World) -> None:
    observer = await world.connect("observer")
    await observer.subscribe(world.topic("will"), 1)
    leaving = await world.connect("leaving", will=Will(world.topic("will"), b"asked for"))
    await leaving.leave(reason_code=0x04)
    equal("Will Message", (await observer.receive()).payload, b"asked for")
