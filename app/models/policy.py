"""Our policy as values: what each reason does. Read from catalogue/policy.toml and an owner's override file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal

from app.models.number import LadderName, Scope, State

Mode = Literal["lookup_first", "strict"]
Ends = Literal["keep", "sender", "everyone"]


@dataclass(frozen=True, slots=True)
class Rule:
    """What one reason does, when it comes with a final failure (catalogue/policy.toml has them all).

    `state`: the condition that the number takes; `lapse`: how long at most. `ends`: a state that this reason ends.
    `block`: this sender is blocked; `lifted_by_port`: until the number moves. `consent`: whose lists it ends at once.
    `lookup`: a carrier lookup decides or refreshes. `alone_lapse`, `alone_consent`: instead, with no lookup provider.
    `unrouted_consent`: instead, when the register says that we named no carrier. `strict_consent`: instead, in strict
    mode. `forgets_carrier`: older carrier facts no longer count. `repeats`: a second one soon after a lapse waits for a
    person. `malformed_spares`: nothing happens when the number was only badly written. `ladder`: a strike on one of
    `[ladders]`. `revocation`: it is the person's own will, and reaches as far as `Policy.revoked` says. `alarm`: a
    person should look.
    """

    reason: str
    state: State | None = None
    lapse: timedelta | None = None
    ends: State | None = None
    block: bool = False
    lifted_by_port: bool = False
    consent: Ends = "keep"
    strict_consent: Ends | None = None
    alone_consent: Ends | None = None
    unrouted_consent: Ends | None = None
    alone_lapse: timedelta | None = None
    repeats: timedelta | None = None
    lookup: bool = False
    revocation: bool = False
    forgets_carrier: bool = False
    malformed_spares: bool = False
    ladder: LadderName | None = None
    alarm: bool = False


@dataclass(frozen=True, slots=True)
class Ladder:
    """After how many strikes something follows. Each UTC day and each message count once; a delivery clears them.

    `strikes`: with so many, consent ends or the number is unreachable; with `over`, only if the first and the last of
    them are at least so far apart; with `within`, only if so many lie in this time. `lookup`: with so many a carrier
    lookup is asked for.
    """

    strikes: int
    lookup: int | None = None
    over: timedelta | None = None
    within: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Breaker:
    """When the same failure for many numbers is a mass event. Of one (gateway, code, sender, carrier): more distinct
    numbers in `window` than `least`, and than `times` its baseline over the last `past`.
    """

    window: timedelta = timedelta(minutes=15)
    least: int = 50
    times: int = 5
    past: timedelta = timedelta(days=28)


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules in force. `lookups`: a lookup provider is configured. A reason without a rule is only counted.

    `revocation`: how far the person's own opt-out reaches where they do not say so themselves; unset, a receipt's
    reaches the sender's lists and a call's the one list.
    """

    rules: Mapping[str, Rule]
    mode: Mode = "lookup_first"
    sender_modes: Mapping[str, Mode] = field(default_factory=dict)
    lookups: bool = False
    revocation: Scope | None = None
    sender_revocations: Mapping[str, Scope] = field(default_factory=dict)
    ladders: Mapping[LadderName, Ladder] = field(default_factory=dict)
    breaker: Breaker = Breaker()

    def rule(self, reason: str) -> Rule:
        return self.rules.get(reason) or Rule(reason)

    def revoked(self, sender: str | None) -> Scope | None:
        return self.sender_revocations.get(sender or "", self.revocation)

    def lapse(self, rule: Rule) -> timedelta | None:
        """How long its state lasts at most."""
        return (None if self.lookups else rule.alone_lapse) or rule.lapse

    def strict(self, sender: str | None) -> bool:
        return self.sender_modes.get(sender or "", self.mode) == "strict"
