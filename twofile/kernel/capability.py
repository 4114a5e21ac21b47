"""What a process may do to the world: allowed, denied, or to be asked for; once, for the process, or always.

A capability is a text: `net:HOST`, `fs:read:PATH`, `fs:write:PATH`, `py:exec`, `speak`, `see`, `mcp:SERVER/TOOL`. A
pattern is one that may end in `*` (`net:*` is every host; `net:*.example.org` every host below it), or a folder, which
stands for what is in it. A process has patterns, the limit of all that can be granted to it; a child's lie within its
parent's. Within them rules decide, the latest first, a denial before all others; without a rule a person is asked.

Guarantee: nothing that was granted once is used twice, nothing of one process is used by another, and paths are
compared as they really are, without links and dots. What is denied to a process is denied to those that come from it.
What leads out of the machine is asked for, whatever was granted, while something untrusted and something private are
both before the model (`label`).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from twofile.errors import KernelError
from twofile.kernel.label import Label

__all__ = ["Decision", "Grant", "Grants", "Lifetime", "Rules", "covers", "leads_out", "narrowed", "normal"]

Decision = Literal["allow", "ask", "deny"]
Lifetime = Literal["once", "process", "always"]

_KINDS = ("net", "fs:read", "fs:write", "py:exec", "speak", "see", "mcp")
_ALONE = ("py:exec", "speak", "see")
_OUT = ("net", "fs:write", "mcp", "py:exec")


def normal(text: str) -> str:
    """A capability or pattern as it is compared. KernelError for one that there is not."""
    kind = next((kind for kind in _KINDS if text == kind or text.startswith(kind + ":")), None)
    rest = "" if kind is None else text[len(kind) + 1 :]
    if kind is None or (kind in _ALONE) != (not rest) or "\0" in text:
        raise KernelError(f"there is no capability {text!r}", "net:HOST, fs:read:PATH, py:exec, mcp:SERVER/TOOL, ...")
    if kind in _ALONE:
        return kind
    if kind.startswith("fs:"):
        if rest == "*":
            return f"{kind}:/"
        return f"{kind}:{os.path.realpath(os.path.expanduser(rest))}"
    if kind == "net":
        return f"{kind}:{rest.lower().rstrip('.')}"
    return f"{kind}:{rest}"


def covers(pattern: str, wanted: str) -> bool:
    """Whether a pattern, normal, stands for a capability or a narrower pattern, normal."""
    if pattern == wanted:
        return True
    kind = next(kind for kind in _KINDS if pattern == kind or pattern.startswith(kind + ":"))
    if kind in _ALONE or not wanted.startswith(kind + ":"):
        return False
    inside, outside = wanted[len(kind) + 1 :], pattern[len(kind) + 1 :]
    if kind.startswith("fs:"):
        return inside == outside or inside.startswith(outside.rstrip("/") + "/")
    if outside == "*":
        return True
    if kind == "net":
        return outside.startswith("*.") and inside.removeprefix("*").endswith(outside[1:]) and inside != outside[2:]
    return outside.endswith("/*") and inside.startswith(outside[:-1])


def narrowed(parent: Iterable[str], asked: Iterable[str]) -> tuple[str, ...]:
    """The patterns of a child. KernelError for one that its parent does not have."""
    had, wanted = tuple(map(normal, parent)), tuple(dict.fromkeys(map(normal, asked)))
    for one in wanted:
        if not any(covers(pattern, one) for pattern in had):
            raise KernelError(f"a child cannot have {one}: its parent has not", "grant it to the parent first")
    return wanted


def leads_out(capability: str) -> bool:
    """Whether data can leave the machine, or the process's own keeping, this way."""
    return any(capability == kind or capability.startswith(kind + ":") for kind in _OUT)


@dataclass(frozen=True)
class Grant:
    """A rule: `process` is whose it is, 0 for everybody's (`always`)."""

    pattern: str
    decision: Decision
    lifetime: Lifetime
    process: int = 0


class Rules(Protocol):
    """Where the rules in force are kept."""

    def all(self) -> Sequence[Grant]: ...

    def add(self, rule: Grant) -> None: ...

    def take(self, rule: Grant) -> bool:
        """Remove a rule; whether it was there."""
        ...


class Held:
    """Rules in memory."""

    def __init__(self, rules: Iterable[Grant] = ()) -> None:
        self._rules, self._lock = tuple(rules), threading.Lock()

    def all(self) -> Sequence[Grant]:
        return self._rules

    def add(self, rule: Grant) -> None:
        with self._lock:
            self._rules = (*self._rules, rule)

    def take(self, rule: Grant) -> bool:
        with self._lock:
            if rule not in self._rules:
                return False
            at = self._rules.index(rule)
            self._rules = self._rules[:at] + self._rules[at + 1 :]
            return True


class Grants:
    """The rules in force, and what they decide."""

    def __init__(self, rules: Rules | Iterable[Grant] = ()):
        self._rules = Held(rules) if isinstance(rules, Iterable) else rules

    @property
    def rules(self) -> Sequence[Grant]:
        return tuple(self._rules.all())

    def add(self, rule: Grant) -> Grant:
        """Put a rule in force. KernelError for a pattern that is none; ValueError for a rule of nobody."""
        rule = Grant(normal(rule.pattern), rule.decision, rule.lifetime, rule.process)
        if (rule.lifetime == "always") != (rule.process == 0):
            raise ValueError("a rule is always everybody's, or a process's own")
        self._rules.add(rule)
        return rule

    def revoke(self, rule: Grant) -> bool:
        """Have a rule hold no more, from the next call on. Whether it did."""
        return self._rules.take(rule)

    def end(self, process: int) -> None:
        """A process has ended: what was its own goes with it."""
        for rule in self._rules.all():
            if rule.process == process:
                self._rules.take(rule)

    def decide(
        self,
        process: int,
        limit: Iterable[str],
        capability: str,
        before: Label,
        *,
        above: Iterable[int] = (),
        use: bool = True,
    ) -> Decision:
        """What may be done. `limit`: the patterns of the process; `before`: the label of all that is before the model;
        `above`: the processes that it comes from, whose denials hold for it. With `use`, what holds once is used up."""
        wanted = normal(capability)
        if not any(covers(normal(pattern), wanted) for pattern in limit):
            return "deny"
        rules = [rule for rule in self._rules.all() if covers(rule.pattern, wanted)]
        lineage = frozenset(above)
        if any(rule.process in lineage and rule.decision == "deny" and rule.lifetime != "once" for rule in rules):
            return "deny"
        own = [rule for rule in rules if rule.process in (0, process)]
        denied = [rule for rule in own if rule.decision == "deny"]
        tainted = leads_out(wanted) and before.private and not before.trusted
        if not denied and tainted:
            return "ask"
        once = [rule for rule in denied or own if rule.lifetime == "once"]
        lasting = [rule for rule in denied or own if rule.lifetime != "once"]
        rule = lasting[-1] if denied and lasting else once[-1] if once else lasting[-1] if lasting else None
        if rule is None:
            return "ask"
        if use and rule.lifetime == "once" and not self._rules.take(rule):  # another has just used it
            return self.decide(process, limit, capability, before, above=lineage, use=use)
        return rule.decision
