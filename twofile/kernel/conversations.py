"""Conversations: processes as a person sees them, each a first process with all branches that were made of it.

Where a message was edited or a reply made again there are versions: branches that have the same messages up to there. A
title is what a person called it, else the first words that were said. Exported, a conversation is JSON that this reads
back; what is read back is new processes with what was said alone: it has no instructions and no tools, is granted
nothing, and nothing in it is trusted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from twofile.errors import KernelError
from twofile.kernel.label import Label
from twofile.kernel.log import Log

__all__ = ["Conversation", "Conversations", "Version"]

_FORM = "twofile conversation"
_TITLE = 80  # characters
_MOST, _BRANCHES = 20_000, 500  # events and processes that are read back
_DEEP = 50  # of what a call's arguments hold
_SAID = ("user", "assistant", "result")


@dataclass(frozen=True)
class Conversation:
    """`root`: its first process; `last`: the branch that was spoken with last; `at`: when, seconds since 1970."""

    root: int
    last: int
    title: str
    at: float


@dataclass(frozen=True)
class Version:
    """One of several messages in the same place: its event, and a branch that has it."""

    seq: int
    process: int


class Conversations:
    """The conversations of a log."""

    def __init__(self, log: Log) -> None:
        self.log = log

    def all(self, words: str = "") -> list[Conversation]:
        """The conversations in which these words were said, or whose title has them; the newest first."""
        outline = self.log.outline()
        roots = _roots({pid: parent for pid, parent, _, _ in outline})
        named = {
            event.body["process"]: str(event.body["title"]) for event in self.log.events(0) if event.kind == "title"
        }
        saying = self.log.saying(words) if words else set()
        found: dict[int, Conversation] = {}
        wanted: set[int] = set()
        for pid, _, at, said in outline:
            root = roots[pid]
            old = found.get(root)
            if old is None:
                title = named.get(root) or " ".join(str(said or "").split())[:_TITLE]
                found[root] = Conversation(root, pid, title, at)
            else:
                newer = replace(old, last=pid, at=at) if at >= old.at else old
                found[root] = newer if old.title else replace(newer, title=" ".join(str(said or "").split())[:_TITLE])
            if pid in saying or words.casefold() in found[root].title.casefold():
                wanted.add(root)
        return sorted((one for one in found.values() if one.root in wanted), key=lambda one: -one.at)

    def family(self, pid: int) -> list[int]:
        """All processes of a process's conversation, the first first."""
        roots = _roots({one: parent for one, parent, _ in self.log.processes()})
        if pid not in roots:
            raise KernelError(f"there is no process {pid}", "twofile ps")
        return [one for one, root in roots.items() if root == roots[pid]]

    def rename(self, pid: int, title: str) -> None:
        """Call a process's conversation something else; "" is its first words again."""
        self.log.note("title", {"process": self.family(pid)[0], "title": " ".join(title.split())[:_TITLE]})

    def forget(self, pid: int) -> None:
        """Delete a process's conversation, from the disk too. KernelError while somebody speaks with it."""
        self.log.forget(self.family(pid))

    def versions(self, pid: int) -> dict[int, list[Version]]:
        """For each message of a process that has others in its place: all of them, in the order in which they were
        made. A message is known by its event: a user's, or the first of a reply."""
        paths = self._paths(self.family(pid))
        newest = {one: (one == pid, path[-1] if path else 0) for one, path in paths.items()}
        own, found = paths[pid], dict[int, list[Version]]()
        alike = set(paths)
        for place, seq in enumerate(own):
            there: dict[int, int] = {}
            for one in sorted(alike, key=newest.__getitem__):
                if len(paths[one]) > place:
                    there[paths[one][place]] = one
            if len(there) > 1:
                found[seq] = [Version(other, there[other]) for other in sorted(there)]
            alike = {one for one in alike if len(paths[one]) > place and paths[one][place] == seq}
        return found

    def _paths(self, family: Sequence[int]) -> dict[int, list[int]]:
        """The messages of each process of a family that can have versions: a user's, and the first of each reply."""
        branches = self.log.branches()
        own: dict[int, list[tuple[int, str]]] = {one: [] for one in family}
        for one, seq, kind in self.log.messages(family):
            own[one].append((seq, kind))
        said: dict[int, list[tuple[int, str]]] = {}
        for one in family:
            parent, upto = branches[one]
            before = [] if parent is None else [had for had in said[parent] if upto is None or had[0] <= upto]
            said[one] = before + own[one]
        return {
            one: [
                seq
                for at, (seq, kind) in enumerate(messages)
                if kind == "user" or (kind == "assistant" and at and messages[at - 1][1] == "user")
            ]
            for one, messages in said.items()
        }

    def exported(self, pid: int) -> dict[str, Any]:
        """A process's conversation with all its branches, as JSON."""
        family = self.family(pid)
        parents = {one: parent for one, parent, _ in self.log.processes()}
        processes = []
        for one in family:
            events = self.log.events(one)
            own = [event for event in events if event.pid == one]
            before = [event.seq for event in events if event.pid != one]
            kept = [{"seq": event.seq, "kind": event.kind, "at": event.at, "body": event.body} for event in own]
            processes.append({"process": one, "of": parents[one], "upto": max(before, default=None), "events": kept})
        named = {event.body["process"]: event.body["title"] for event in self.log.events(0) if event.kind == "title"}
        return {"form": _FORM, "version": 1, "title": named.get(family[0], ""), "processes": processes}

    def imported(self, given: Any, model: str) -> int:
        """Make a conversation of what `exported` gave, or of a list of messages with `role` and `content`; `model` goes
        on with it. The number of its newest process. KernelError for what is neither."""
        if isinstance(given, Mapping) and given.get("form") == _FORM:
            return self._branches(given, model)
        messages: Any = given.get("messages") if isinstance(given, Mapping) else given
        try:
            said = [(one["role"], one["content"]) for one in messages if one["role"] in ("user", "assistant")]
            wrong = not said or not all(isinstance(text, str) for _, text in said)
        except (TypeError, KeyError, AttributeError):
            wrong = True
        if wrong:
            raise KernelError("this is no conversation", "JSON that was exported here, or a list of role and content")
        return self._made([(kind, {"text": text}) for kind, text in said], model, None, None)[0]

    def _branches(self, given: Mapping[str, Any], model: str) -> int:
        made: dict[int, int] = {}
        moved: dict[int, dict[int, int]] = {}  # of each process, with what it is a branch of: old numbers to new ones
        last = 0
        try:
            if len(given["processes"]) > _BRANCHES or sum(len(one["events"]) for one in given["processes"]) > _MOST:
                raise ValueError("too much")
            for process in given["processes"]:
                events = [(str(event["kind"]), event["body"], int(event["seq"])) for event in process["events"]]
                said = [(kind, _plain(kind, body), seq) for kind, body, seq in events if kind in _SAID]
                parent, of, upto, before = process["of"], None, None, dict[int, int]()
                if parent is not None:
                    of = made[parent]
                    before = {old: new for old, new in moved[parent].items() if old <= process["upto"]}
                    upto = max(before.values(), default=self.log.events(of)[0].seq)
                pid, seqs = self._made([(kind, body) for kind, body, _ in said], model, of, upto)
                number = int(process["process"])
                made[number] = last = pid
                moved[number] = before | dict(zip([seq for _, _, seq in said], seqs, strict=True))
            if isinstance(title := given.get("title"), str) and title and made:
                self.rename(last, title)
        except Exception as error:  # whatever a file can make of it
            if made:
                self.log.forget(made.values())
            raise KernelError("this conversation is damaged, or too large", "export it again") from error
        if not made:
            raise KernelError("this conversation is empty")
        return last

    def _made(
        self,
        said: Sequence[tuple[str, Mapping[str, Any]]],
        model: str,
        of: int | None,
        upto: int | None,
    ) -> tuple[int, list[int]]:
        """A process in which this was said, and the events."""
        if len(said) > _MOST:
            raise KernelError(f"a conversation has at most {_MOST:,} messages")
        if of is None:
            event = self.log.begin("begin", {"model": model, "system": "", "tools": [], "limit": [], "adapter": ""})
        else:
            event = self.log.begin("fork", {"of": of}, parent=of, upto=upto)
        pid, after, seqs = event.pid, event.seq, []
        label = Label.of("file:import", ["user"]).to_json()
        for kind, body in said:
            after = self.log.append(pid, kind, {**body, "label": label}, after).seq
            seqs.append(after)
        return pid, seqs


def _roots(parents: Mapping[int, int | None]) -> dict[int, int]:
    """The first process of each one's family; `parents` by number, so that what is branched of comes first."""
    found: dict[int, int] = {}
    for pid, parent in parents.items():
        found[pid] = pid if parent is None else found.get(parent, parent)
    return found


def _plain(kind: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """What an event that comes from outside may say."""
    found: dict[str, Any] = {"text": str(body["text"])}
    if kind == "assistant":
        calls = [
            {"id": str(call["id"]), "name": str(call["name"]), "arguments": dict(call["arguments"])}
            for call in body.get("calls", ())
        ]
        if any(_depth(call["arguments"]) > _DEEP for call in calls):
            raise ValueError("too deep")
        found |= {"calls": json.loads(json.dumps(calls)), "reason": "end", "usage": {}}
    if kind == "result":
        found |= {"call": str(body["call"]), "name": str(body["name"]), "error": bool(body.get("error"))}
    return found


def _depth(value: Any) -> int:
    """How deep a value of JSON goes, as far as it matters."""
    deep, level = 0, [value]
    while level and deep <= _DEEP:
        deep += 1
        level = [held for one in level for held in _held(one)]
    return deep


def _held(value: Any) -> list[Any]:
    return [*value.values()] if isinstance(value, Mapping) else value if isinstance(value, list) else []
