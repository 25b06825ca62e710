"""mosquitto_sub, mosquitto_pub and mosquitto_rr as their users meet them: command lines, standard output, exit statuses.

Needs nothing beyond the standard library. `-d` makes the programs tell what they send and receive; that is how a check knows that
a subscription stands, without waiting for time to pass.
"""

import collections
import os
import queue
import re
import signal
import subprocess
import tempfile
import threading
import time

from checks import EVENT_SECONDS_MAX, CheckFailed, equal, main, true

V31, V311, V5 = "mqttv31", "mqttv311", "mqttv5"
ALL = (V31, V311, V5)
TITLES = {V31: "MQTT 3.1", V311: "MQTT 3.1.1", V5: "MQTT 5.0"}

# What mosquitto_sub prints for a message; the payload in hexadecimal, so that any payload stays on its line.
FIELDS = {
    "qos": "%q",
    "retain": "%r",
    "topic": "%t",
    "content_type": "%C",
    "response_topic": "%R",
    "correlation_data": "%D",
    "message_expiry": "%E",
    "payload_format": "%F",
    "subscription_identifier": "%S",
    "user_properties": "%P",
    "payload": "%x",
}
MARK, SEPARATOR = "MESSAGE", "\x1f"
FORMAT = SEPARATOR.join([MARK, *FIELDS.values()])
Message = collections.namedtuple("Message", FIELDS)

FENCE_ROUND_TRIPS = 10

CHECKS: list[tuple[str, tuple[str, ...], object]] = []


def check(name: str, versions=ALL):
    def register(function):
        CHECKS.append((name, versions, function))
        return function

    return register


class Process:
    """A program whose output is read as it comes."""

    def __init__(self, command: list[str], stdin=subprocess.DEVNULL) -> None:
        # The programs hold their output back when it is not a terminal; `stdbuf` makes them print line by line.
        self.command = command
        self.process = subprocess.Popen(["stdbuf", "-oL", *command], stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.lines: queue.Queue[str | None] = queue.Queue()
        self.seen: list[str] = []
        threading.Thread(target=self.read, daemon=True).start()

    def read(self) -> None:
        for line in self.process.stdout:
            self.lines.put(line.decode("utf-8", "replace").rstrip("\n"))
        self.lines.put(None)

    def line(self, what: str, seconds_max: float = EVENT_SECONDS_MAX) -> str:
        try:
            line = self.lines.get(timeout=seconds_max)
        except queue.Empty:
            raise CheckFailed(f"{self.command[0]} printed no {what}; last lines: {self.seen[-3:]}") from None
        if line is None:
            # The end stays the end for whoever asks next.
            self.lines.put(None)
            raise CheckFailed(f"{self.command[0]} has ended and printed no {what}; last lines: {self.seen[-3:]}")
        self.seen.append(line[:200])
        return line

    def line_with(self, text: str) -> str:
        """Reads on to a line that matches the regular expression `text`."""
        deadline = time.monotonic() + EVENT_SECONDS_MAX
        while not re.search(text, line := self.line(f"line like {text!r}")):
            self.pass_over(line)
            if time.monotonic() > deadline:
                raise CheckFailed(f"{self.command[0]} goes on but printed no line like {text!r}; last lines: {self.seen[-3:]}")
        return line

    def pass_over(self, line: str) -> None:
        """What becomes of a line that `line_with` did not look for."""

    def end(self, signal_number: int = signal.SIGTERM) -> int:
        """Stops the program and gives its exit status.

        On SIGTERM and SIGINT it says goodbye from within the signal handler, and hangs itself up if the signal finds it at
        work with a lock held. So the signal is sent when it waits for input.
        """
        deadline = time.monotonic() + EVENT_SECONDS_MAX
        while signal_number != signal.SIGKILL and self.process.poll() is None and not self.is_waiting() and time.monotonic() < deadline:
            time.sleep(0.001)
        if self.process.poll() is None:
            self.process.send_signal(signal_number)
        return self.wait()

    def is_waiting(self) -> bool:
        with open(f"/proc/{self.process.pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "S"

    def wait(self) -> int:
        try:
            return self.process.wait(EVENT_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            raise CheckFailed(f"{' '.join(self.command)[:200]} did not end; last lines: {self.seen[-3:]}") from None


class Subscriber(Process):
    """mosquitto_sub with its subscriptions acknowledged."""

    def __init__(self, world: "World", filters: list[str], qos: int, *options: str) -> None:
        arguments = [argument for topic_filter in filters for argument in ("-t", topic_filter)]
        # A resumed Session's messages come before SUBACK.
        self.early: collections.deque[str] = collections.deque()
        super().__init__(world.command("mosquitto_sub", "-d", "-F", FORMAT, "-q", str(qos), *arguments, *options))
        self.granted = self.line_with(r"^Subscribed \(mid: \d+\): ").split(": ")[-1].split(", ")

    def pass_over(self, line: str) -> None:
        if line.startswith(MARK + SEPARATOR):
            self.early.append(line)

    def message(self, seconds_max: float = EVENT_SECONDS_MAX) -> Message:
        line = self.early.popleft() if self.early else ""
        while not line.startswith(MARK + SEPARATOR):
            line = self.line("message", seconds_max)
        message = Message(*line.split(SEPARATOR)[1:])
        return message._replace(payload=bytes.fromhex(message.payload))

    def message_within(self, seconds: float) -> Message | None:
        """The next message, if it comes before nothing at all is printed for so long."""
        try:
            return self.message(seconds)
        except CheckFailed:
            return None

    def messages_before(self, marker: bytes) -> list[Message]:
        """All messages before the one whose payload is `marker`; see `client.py` for why."""
        messages = []
        while (message := self.message()).payload != marker:
            messages.append(message)
        return messages


class World:
    def __init__(self, host: str, port: int, version: str, place) -> None:
        self.host, self.port, self.version, self.place = host, port, version, place
        self.topic, self.client_id = place.topic, place.client_id
        self.started: list[Process] = []

    def command(self, program: str, *arguments: str) -> list[str]:
        return [program, "-h", self.host, "-p", str(self.port), "-V", self.version, *arguments]

    def subscribe(self, topic_filter: str | list[str], qos: int, *options: str) -> Subscriber:
        filters = [topic_filter] if isinstance(topic_filter, str) else topic_filter
        subscriber = Subscriber(self, filters, qos, *options)
        self.started.append(subscriber)
        return subscriber

    def publish(self, topic: str, payload: bytes | None, qos: int = 0, *options: str, stdin: bytes = b"") -> str:
        """Runs mosquitto_pub to its end, which comes after the last acknowledgement; what it printed."""
        what = [] if payload is None else ["-s"]
        command = self.command("mosquitto_pub", "-d", "-t", topic, "-q", str(qos), *what, *options)
        done = subprocess.run(command, input=stdin if payload is None else payload, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=30)
        output = done.stdout.decode("utf-8", "replace")
        if done.returncode != 0:
            raise CheckFailed(f"mosquitto_pub ended with {done.returncode}: {output[-300:]}")
        return output

    def round_trips(self, subscriber: Subscriber, fence: str) -> list[Message]:
        """Sends messages to a subscriber of `fence`, one by one; what else arrived meanwhile."""
        others = []
        for number in range(FENCE_ROUND_TRIPS):
            marker = f"fence {number}".encode()
            self.publish(fence, marker, 1)
            others += subscriber.messages_before(marker)
        return others

    def nothing_comes(self, subscriber: Subscriber, fence: str) -> None:
        equal("messages that should not come", self.round_trips(subscriber, fence), [])

    def end(self) -> None:
        for process in self.started:
            if process.process.poll() is None:
                process.process.kill()
            process.process.wait()


def lines(count: int) -> list[bytes]:
    return [f"message {number:05}".encode() for number in range(count)]


@check("mosquitto_sub -v prints Topic Name and payload")
def verbose(world: World) -> None:
    topic = world.topic("a", "b")
    subscriber = Process(world.command("mosquitto_sub", "-d", "-v", "-t", world.topic("#")))
    world.started.append(subscriber)
    subscriber.line_with("^Subscribed")
    world.publish(topic, None, 2, "-m", "hi")
    equal("line", subscriber.line_with("hi$"), f"{topic} hi")


def register_qos_checks() -> None:
    for qos in (0, 1, 2):

        @check(f"QoS {qos} to subscriptions of QoS 0, 1 and 2")
        def qos_both_ways(world: World, qos=qos) -> None:
            topic = world.topic("été", "a b")
            subscribers = [world.subscribe(topic, subscribed) for subscribed in (0, 1, 2)]
            equal("SUBACK", [s.granted for s in subscribers], [["0"], ["1"], ["2"]])
            contents = [b"", bytes(range(256)), "naïve ☂ 𝄞".encode()]
            for content in contents:
                # An empty payload has an option of its own, -n.
                world.publish(topic, content or None, qos, *([] if content else ["-n"]))
            world.publish(topic, b"end", qos)
            for subscribed, subscriber in enumerate(subscribers):
                messages = subscriber.messages_before(b"end")
                expected = [(content, str(min(qos, subscribed)), "0", topic) for content in contents]
                equal(f"messages at QoS {subscribed}", [(m.payload, m.qos, m.retain, m.topic) for m in messages], expected)

        @check(f"burst of 1000 lines at QoS {qos} (mosquitto_pub -l)")
        def burst(world: World, qos=qos) -> None:
            topic = world.topic("burst")
            subscriber = world.subscribe(topic, qos)
            contents = lines(1000)
            world.publish(topic, None, qos, "-l", stdin=b"\n".join([*contents, b"end", b""]))
            messages = subscriber.messages_before(b"end")
            equal("number of messages", len(messages), 1000)
            equal("payloads in order", [m.payload for m in messages], contents)

        @check(f"payload of 1 MiB at QoS {qos} (mosquitto_pub -f)", versions=(V311, V5))
        def large_payload(world: World, qos=qos) -> None:
            topic = world.topic("large")
            subscriber = world.subscribe(topic, qos)
            payload = bytes(index % 251 for index in range(1024 * 1024))
            with tempfile.NamedTemporaryFile() as file:
                file.write(payload)
                file.flush()
                world.publish(topic, None, qos, "-f", file.name)
            got = subscriber.message().payload
            true(f"payload of {len(got)} bytes differs from the one of 1 MiB that was sent", got == payload)


register_qos_checks()


@check("Retained Message: set, retain flag, -R, --retained-only, --remove-retained, delete")
def retained(world: World) -> None:
    live = world.subscribe(world.topic("kept", "#"), 1)
    for name in ("one", "two"):
        world.publish(world.topic("kept", name), b"old", 1, "-r")
        world.publish(world.topic("kept", name), name.encode(), 1, "-r")
        equal("live delivery", [(m.payload, m.retain) for m in (live.message(), live.message())], [(b"old", "0"), (name.encode(), "0")])

    late = world.subscribe(world.topic("kept", "#"), 1)
    messages = sorted((m.payload, m.qos, m.retain) for m in (late.message(), late.message()))
    equal("delivery to a new subscription", messages, [(b"one", "1", "1"), (b"two", "1", "1")])

    fresh_only = world.subscribe(world.topic("kept", "#"), 1, "-R")
    world.publish(world.topic("kept", "fresh"), b"fresh", 1)
    equal("first message with -R", fresh_only.message().payload, b"fresh")

    # Ends at the first message that is not retained.
    only = world.subscribe([world.topic("kept", "#"), world.topic("end")], 1, "--retained-only")
    equal("with --retained-only", sorted(m.payload for m in (only.message(), only.message())), [b"one", b"two"])
    world.publish(world.topic("end"), b"end", 1)
    equal("exit status with --retained-only", only.wait(), 0)

    removing = world.subscribe(world.topic("kept", "#"), 1, "--remove-retained")
    for _ in range(2):
        removing.line_with("received PUBACK")
    removing.end()
    world.publish(world.topic("kept", "three"), b"three", 1, "-r")
    world.publish(world.topic("kept", "three"), None, 1, "-r", "-n")
    # One Topic Filter for both, so that what is retained comes before the fence.
    latest = world.subscribe(world.topic("kept", "#"), 1)
    world.nothing_comes(latest, world.topic("kept", "fence"))


@check("Will Message after an abnormal end, none after a clean one")
def will(world: World) -> None:
    topic, fence = world.topic("will"), world.topic("fence")
    observer = world.subscribe([topic, fence], 1)
    options = ("--will-topic", topic, "--will-qos", "1", "--will-payload")
    leaving = world.subscribe(world.topic("other"), 0, *options, "left", "-E")
    equal("exit status with -E", leaving.wait(), 0)
    world.nothing_comes(observer, fence)

    crashing = world.subscribe(world.topic("other"), 0, *options, "crashed")
    crashing.end(signal.SIGKILL)
    message = observer.message()
    equal("Will Message", (message.payload, message.qos, message.retain), (b"crashed", "1", "0"))

    crashing = world.subscribe(world.topic("other"), 0, *options, "kept", "--will-retain")
    crashing.end(signal.SIGKILL)
    equal("Will Message to be retained", observer.message().payload, b"kept")
    late = world.subscribe(topic, 1)
    message = late.message()
    equal("retained Will Message", (message.payload, message.retain), (b"kept", "1"))
    world.publish(topic, None, 1, "-r", "-n")


@check("resumed Session: missed messages in order (mosquitto_sub -c)")
def resumed_session(world: World) -> None:
    topic = world.topic("kept")
    options = ("-c", "-i", world.client_id("subscriber"))
    for qos in (1, 2):
        for ending in (signal.SIGTERM, signal.SIGKILL):
            world.subscribe(topic, qos, *options).end(ending)
            contents = lines(50)
            world.publish(topic, None, qos, "-l", stdin=b"\n".join([*contents, b"end", b""]))
            subscriber = world.subscribe(topic, qos, *options)
            messages = subscriber.messages_before(b"end")
            equal("missed messages", [m.payload for m in messages], contents)
            equal("QoS", {m.qos for m in messages}, {str(qos)})
            equal("exit status", subscriber.end(), 0)
    # Without -c the Session is discarded: nothing published meanwhile comes any more.
    world.publish(topic, b"missed", 1)
    fresh = world.subscribe([topic, world.topic("fence")], 1, "-i", world.client_id("subscriber"))
    world.nothing_comes(fresh, world.topic("fence"))


@check("shared subscription: each message to one member", versions=(V311, V5))
def shared_subscription(world: World) -> None:
    topic, fence = world.topic("shared"), world.topic("fence")
    members = [world.subscribe([f"$share/group/{topic}", fence], 1) for _ in range(2)]
    contents = lines(200)
    world.publish(topic, None, 1, "-l", stdin=b"\n".join([*contents, b""]))
    # Messages cross the broker by way of the group; the fence does not. What it overtook is waited for.
    world.publish(fence, b"end", 1)
    shares = [[m.payload for m in member.messages_before(b"end")] for member in members]
    deadline = time.monotonic() + EVENT_SECONDS_MAX
    while sum(map(len, shares)) < len(contents) and time.monotonic() < deadline:
        for share, member in zip(shares, members):
            if message := member.message_within(0.05):
                share.append(message.payload)
    equal("all shares together", sorted(shares[0] + shares[1]), contents)
    for number, share in enumerate(shares):
        true(f"member {number} got nothing of {len(contents)} messages", share)
        equal(f"order at member {number}", share, sorted(share))


@check("unsubscribed filters deliver nothing (mosquitto_sub -U)")
def unsubscribe(world: World) -> None:
    topic, fence = world.topic("gone"), world.topic("fence")
    options = ("-c", "-i", world.client_id("subscriber"))
    world.subscribe([topic, fence], 1, *options).end()
    # The Session still subscribes to both; -U takes one of them away.
    subscriber = world.subscribe(fence, 1, *options, "-U", topic)
    subscriber.line_with("UNSUBACK")
    world.publish(topic, b"unwanted", 1)
    world.nothing_comes(subscriber, fence)
    subscriber.end()
    world.subscribe(fence, 0, "-i", world.client_id("subscriber")).end()


@check("wildcards, and -T to leave some out")
def wildcards(world: World) -> None:
    subscriber = world.subscribe([world.topic("+", "b"), world.topic("x", "#"), world.topic("end")], 1, "-T", world.topic("x", "hidden"))
    for levels in (("a", "b"), ("a", "c"), ("x",), ("x", "y", "z"), ("x", "hidden")):
        world.publish(world.topic(*levels), "/".join(levels).encode(), 1)
    world.publish(world.topic("end"), b"end", 1)
    equal("messages", [m.payload for m in subscriber.messages_before(b"end")], [b"a/b", b"x", b"x/y/z"])


@check("mosquitto_pub --repeat sends as often as asked")
def repeat(world: World) -> None:
    topic = world.topic("repeated")
    subscriber = world.subscribe(topic, 1)
    world.publish(topic, None, 1, "-m", "again", "--repeat", "25")
    world.publish(topic, b"end", 1)
    equal("messages", [m.payload for m in subscriber.messages_before(b"end")], [b"again"] * 25)


@check("mosquitto_sub -C ends after so many messages, -E after its SUBACK, -W with status 27")
def exit_statuses(world: World) -> None:
    topic = world.topic("counted")
    counting = world.subscribe(topic, 1, "-C", "3")
    world.publish(topic, None, 1, "-l", stdin=b"1\n2\n3\n")
    equal("payloads", [counting.message().payload for _ in range(3)], [b"1", b"2", b"3"])
    equal("exit status with -C", counting.wait(), 0)
    equal("exit status with -E", world.subscribe(topic, 1, "-E").wait(), 0)
    equal("exit status with -W", world.subscribe(topic, 1, "-W", "1").wait(), 27)


@check("request and response (mosquitto_rr)")
def request_response(world: World) -> None:
    request, response = world.topic("request"), world.topic("response")
    responder = world.subscribe(request, 1)
    for number in range(3):
        question = f"question {number}"
        correlation = ("-D", "publish", "correlation-data", f"id-{number}") if world.version == V5 else ()
        asking = Process(world.command("mosquitto_rr", "-t", request, "-e", response, "-q", "1", "-m", question, "-W", "10", *correlation))
        world.started.append(asking)
        message = responder.message()
        equal("request", message.payload, question.encode())
        target, answer = response, ()
        if world.version == V5:
            equal("Response Topic and Correlation Data", (message.response_topic, message.correlation_data), (response, f"id-{number}"))
            target, answer = message.response_topic, ("-D", "publish", "correlation-data", message.correlation_data)
        world.publish(target, f"answer {number}".encode(), 1, *answer)
        equal("response", asking.line("response"), f"answer {number}")
        equal("exit status of mosquitto_rr", asking.wait(), 0)


@check("takeover is told as Reason Code 0x8E", versions=(V5,))
def takeover(world: World) -> None:
    topic = world.topic("after")
    older = world.subscribe(topic, 1, "-i", world.client_id("same"))
    newer = world.subscribe(topic, 1, "-i", world.client_id("same"))
    try:
        older.line_with(r"^Received DISCONNECT \(142\)")
    finally:
        # It would connect again after a second, and take over in its turn.
        older.end(signal.SIGKILL)
    world.publish(topic, b"newer works", 1)
    equal("message to the newer connection", newer.message().payload, b"newer works")


@check("publish properties arrive as sent, User Properties in order", versions=(V5,))
def publish_properties(world: World) -> None:
    topic = world.topic("properties")
    subscriber = world.subscribe(topic, 2)
    sent = [
        ("content-type", "text/plain"),
        ("response-topic", "somewhere/else"),
        ("correlation-data", "c-1"),
        ("payload-format-indicator", "1"),
        ("message-expiry-interval", "600"),
        ("user-property", "b", "1"),
        ("user-property", "a", "2"),
        ("user-property", "b", "1"),
        ("user-property", "ключ", "☂"),
    ]
    for qos in (0, 1, 2):
        world.publish(topic, "payload ☂".encode(), qos, *(word for words in sent for word in ("-D", "publish", *words)))
        message = subscriber.message()
        true(f"Message Expiry Interval {message.message_expiry!r} is not in 590..=600", message.message_expiry.isdigit() and 590 <= int(message.message_expiry) <= 600)
        equal(
            "properties",
            (message.content_type, message.response_topic, message.correlation_data, message.payload_format, message.user_properties),
            ("text/plain", "somewhere/else", "c-1", "1", "b:1 a:2 b:1 ключ:☂"),
        )
    world.publish(topic, b"plain", 1)
    message = subscriber.message()
    equal("properties of a message sent without any", message[2 + 1 : -1], ("",) * 7)


@check("Message Expiry Interval: a retained message is gone when it has passed", versions=(V5,))
def message_expiry(world: World) -> None:
    topic = world.topic("expiring")
    published = time.monotonic()
    world.publish(topic, b"short-lived", 1, "-r", "-D", "publish", "message-expiry-interval", "2")
    fence = world.topic("fence")
    while True:
        asked = time.monotonic()
        subscriber = world.subscribe([topic, fence], 1)
        retained = world.round_trips(subscriber, fence)
        answered = time.monotonic()
        # It may be on its way still: other messages may overtake a retained one.
        gone = not retained and not subscriber.message_within(1)
        subscriber.end()
        if gone:
            break
        true("still delivered 6 s after it was published with an expiry of 2 s", asked - published < 6)
    gone_after = answered - published
    true(f"gone after {gone_after:.2f} s, sooner than its expiry of 2 s", gone_after >= 2)


@check("Subscription Identifier comes with each message", versions=(V5,))
def subscription_identifier(world: World) -> None:
    topic = world.topic("identified")
    subscriber = world.subscribe(topic, 1, "-D", "subscribe", "subscription-identifier", "268435455")
    world.publish(topic, b"x", 1)
    equal("Subscription Identifier", subscriber.message().subscription_identifier, "268435455")


@check("Reason Codes: PUBACK with and without subscribers", versions=(V5,))
def publish_reasons(world: World) -> None:
    topic = world.topic("subscribed")
    world.subscribe(topic, 2)
    for target, reason in ((topic, 0), (world.topic("nobody"), 16)):
        output = world.publish(target, b"x", 1)
        codes = re.findall(r"received PUBACK \(Mid: 1, RC:(\d+)\)", output)
        equal("PUBACK", codes, [str(reason)])


@check("Assigned Client Identifier for an empty one", versions=(V5,))
def assigned_client_id(world: World) -> None:
    # The programs send none in MQTT 5.0 unless told, and name themselves by what the broker assigned.
    output = world.publish(world.topic("x"), b"x", 1)
    names = set(re.findall(r"^Client (\S+) (?:received|sending) (?!CONNECT)", output, re.MULTILINE))
    true(f"no single assigned name, but {names}", len(names) == 1 and "(null)" not in names)


@check("Topic Alias from the client", versions=(V5,))
def topic_alias(world: World) -> None:
    topic = world.topic("aliased")
    subscriber = world.subscribe(topic, 1)
    contents = lines(20)
    output = world.publish(topic, None, 1, "-l", "-D", "publish", "topic-alias", "3", stdin=b"\n".join([*contents, b""]))
    equal("messages sent without their Topic Name", output.count("'(null)'"), 19)
    equal("messages", [(m.topic, m.payload) for m in (subscriber.message() for _ in contents)], [(topic, content) for content in contents])


@check("Session Expiry Interval (mosquitto_sub -x)", versions=(V5,))
def session_expiry(world: World) -> None:
    topic = world.topic("kept")
    identity = ("-i", world.client_id("subscriber"))
    for expiry, missed in (("300", [b"missed"]), ("0", [])):
        world.subscribe(topic, 1, *identity, "-c", "-x", expiry).end()
        world.publish(topic, b"missed", 1)
        back = world.subscribe(topic, 1, *identity, "-c", "-x", "300")
        world.publish(topic, b"end", 1)
        equal(f"missed messages with an expiry of {expiry} s", [m.payload for m in back.messages_before(b"end")], missed)
        back.end()
    world.subscribe(topic, 0, *identity).end()


@check("Will properties arrive as sent", versions=(V5,))
def will_properties(world: World) -> None:
    topic = world.topic("will")
    observer = world.subscribe(topic, 1)
    properties = ("-D", "will", "content-type", "text/plain", "-D", "will", "user-property", "z", "1", "-D", "will", "user-property", "a", "2")
    crashing = world.subscribe(world.topic("other"), 0, "--will-topic", topic, "--will-payload", "x", "--will-qos", "1", *properties)
    crashing.end(signal.SIGKILL)
    message = observer.message()
    equal("properties", (message.content_type, message.user_properties), ("text/plain", "z:1 a:2"))


@check("DISCONNECT with 0x04 asks for the Will Message", versions=(V5,))
def disconnect_with_will(world: World) -> None:
    observer = world.subscribe(world.topic("will"), 1)
    leaving = world.subscribe(world.topic("x"), 0, "--will-topic", world.topic("will"), "--will-payload", "asked for", "--will-qos", "1")
    # A program stopped by a signal leaves so in MQTT 5.0.
    equal("exit status on SIGTERM", leaving.end(signal.SIGTERM), 0)
    leaving.line_with("sending DISCONNECT")
    equal("Will Message", observer.message().payload, b"asked for")


@check("DISCONNECT: a subscriber that is stopped says goodbye")
def clean_goodbye(world: World) -> None:
    subscriber = world.subscribe(world.topic("x"), 0)
    equal("exit status on SIGINT", subscriber.end(signal.SIGINT), 0)
    subscriber.line_with("sending DISCONNECT")


def checks_for(host: str, port: int):
    def bind(version, function):
        def run(place) -> None:
            world = World(host, port, version, place)
            try:
                function(world)
            finally:
                world.end()

        return run

    return [(f"{TITLES[version]}: {name}", bind(version, function)) for version in ALL for name, versions, function in CHECKS if version in versions]


if __name__ == "__main__":
    # The programs read options from the user's configuration files; a check should see none.
    os.environ["XDG_CONFIG_HOME"] = os.devnull
    os.environ["HOME"] = os.devnull
    main("mosquitto-clients", checks_for)
