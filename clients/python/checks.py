"""The frame of every Python driver: a list of named checks, run in order, one line printed for each.

A line is `ok NAME`, or `not ok NAME: WHY`. The exit status is 1 if any check failed. Checks share a broker, not topics: each
gets a Topic Name prefix and Client Identifier prefix of its own, so that drivers can run beside each other and again.
"""

import asyncio
import dataclasses
import inspect
import secrets
import sys
import time
import traceback

# The most one check may take. A check waits for conditions, never for time to pass, so this is reached only in failure.
CHECK_SECONDS_MAX = 60.0

# How long a single expected event may take before the check fails. Generous: the machine may be busy with a build.
EVENT_SECONDS_MAX = 10.0


class CheckFailed(Exception):
    """An expectation about the broker did not hold. The text says what was expected and what came."""


@dataclasses.dataclass(frozen=True)
class Place:
    """Names that belong to one check of one run alone."""

    prefix: str

    def topic(self, *levels: str) -> str:
        """A Topic Name (or Topic Filter, if a level is a wildcard) under the check's own prefix."""
        return "/".join((self.prefix, *levels))

    def client_id(self, role: str) -> str:
        """The same role gives the same Client Identifier, so that a Session can be resumed."""
        return f"{self.prefix.replace('/', '-')}-{role}"


def equal(what: str, got, expected) -> None:
    if got != expected:
        raise CheckFailed(f"{what}: expected {brief(expected)}, got {brief(got)}")


def true(what: str, condition) -> None:
    if not condition:
        raise CheckFailed(what)


def brief(value) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:160]}... ({len(text)} characters)"


async def run(library: str, checks: list[tuple[str, object]], only: str | None) -> int:
    """Runs each check whose name contains `only`; `checks` holds (name, function of a Place, async or not)."""
    run_id = secrets.token_hex(4)
    failed = ran = 0
    for number, (name, check) in enumerate(checks):
        if only and only not in name:
            continue
        ran += 1
        place = Place(f"clients/{library}/{run_id}/{number}")
        began = time.monotonic()
        try:
            if inspect.iscoroutinefunction(check):
                await asyncio.wait_for(check(place), CHECK_SECONDS_MAX)
            else:
                check(place)
        except Exception as error:  # A driver reports whatever goes wrong, and goes on with the next check.
            failed += 1
            if isinstance(error, CheckFailed):
                why = str(error)
            elif isinstance(error, TimeoutError) and not str(error):
                why = f"nothing came in time, after {time.monotonic() - began:.1f} s, {where(error)}"
            else:
                why = f"{type(error).__name__}: {error}, {where(error)}"
            print(f"not ok {name}: {' '.join(why.split())}", flush=True)
        else:
            print(f"ok {name}", flush=True)
    if ran == 0:
        print(f"no check's name contains {only!r}", file=sys.stderr)
        return 2
    return 1 if failed else 0


def where(error: BaseException) -> str:
    """The innermost lines of the drivers that led to the error, so that a failure can be found without a debugger."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/clients/" in f.filename and "/venv/" not in f.filename]
    return " < ".join(f"{f.filename.rsplit('/', 1)[-1]}:{f.lineno}" for f in reversed(frames[-3:])) or "outside the drivers"


def main(library: str, checks_for) -> None:
    """`DRIVER HOST PORT [--only TEXT]`, or `DRIVER --list`. `checks_for(host, port)` gives the list of checks."""
    arguments = sys.argv[1:]
    if arguments == ["--list"]:
        for name, _ in checks_for("", 0):
            print(name)
        return
    only = None
    if len(arguments) == 4 and arguments[2] == "--only":
        only = arguments[3]
        arguments = arguments[:2]
    if len(arguments) != 2 or not arguments[1].isdigit():
        print("usage: DRIVER HOST PORT [--only TEXT] | DRIVER --list", file=sys.stderr)
        sys.exit(2)
    sys.exit(asyncio.run(run(library, checks_for(arguments[0], int(arguments[1])), only)))
