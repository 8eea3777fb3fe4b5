"""How the hooks are chosen, with a kernel that refuses what the test says."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest

from tcprism import features
from tcprism.errors import KernelRefused
from tcprism.features import Choice, choose, programs_of
from tcprism.kernel.object import LoadError
from tcprism.kernel.types import KernelTypes
from tcprism.probes import Hook, Probe, Program

SEND = Probe(
    "send",
    ("send", "recv"),
    (
        Hook("fentry", "fentry of send", (Program("fentry_send"), Program("fexit_send")), "5.5"),
        Hook("kprobe", "kprobe of send", (Program("kprobe_send"),), "4.17"),
        Hook("tracepoint", "tracepoint of send", (Program("tracepoint_send"),), "6.3"),
    ),
)
TRANSMIT = Probe(
    "transmit",
    ("transmit",),
    (
        Hook("fentry", "fentry of transmit", (Program("fentry_transmit"),), "5.5"),
        Hook("kprobe", "kprobe of transmit", (Program("kprobe_transmit"),), "4.17"),
    ),
)
RETRANSMIT = Probe(
    "retransmit",
    ("retransmit",),
    (
        Hook(
            "tracepoint",
            "tracepoint of retransmit",
            (Program("tracepoint_retransmit"),),
            "5.5",
        ),
    ),
)
ALL = (SEND, TRANSMIT, RETRANSMIT)


class Kernel:
    """Refuses programs, each with an errno, as libbpf tells it; keeps what was tried."""

    def __init__(self, refused: dict[str, int], step: str = "load") -> None:
        self.refused = refused
        self.step = step
        self.tried: list[list[str]] = []

    def load(self, choices: Sequence[Choice]) -> str:
        """Load the programs of all choices, or raise LoadError for the first that is refused."""
        hooks = [choice.hook for choice in choices if choice.hook]
        assert len(hooks) == len(choices)
        self.tried.append([hook.mechanism for hook in hooks])
        for program in (each.name for hook in hooks for each in hook.programs):
            if program in self.refused:
                raise self._error(program)
        return "loaded"

    def _error(self, program: str) -> LoadError:
        code = self.refused[program]
        others = "libbpf: prog 'tracepoint_retransmit': a warning"  # the one refused is named last
        log = [others, f"libbpf: prog '{program}': failed to load"]
        if self.step == "attach":
            return refusal(f"attach {program}", code, [])
        return refusal("load", code, [*log, "libbpf: failed to load object 'tcprism'"])


def refusal(step: str, code: int, log: list[str]) -> LoadError:
    """Return a refusal with an errno."""
    return LoadError(step, OSError(code, os.strerror(code)), log)


def mechanisms(choices: Sequence[Choice]) -> dict[str, str | None]:
    """Return each family's hook in use."""
    return {
        choice.probe.family: choice.hook.mechanism if choice.hook else None for choice in choices
    }


KPROBES = {probe.family: "kprobe" for probe in ALL}


@pytest.fixture(autouse=True)
def _kprobes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have kprobes, whatever this kernel has."""
    monkeypatch.setattr(features, "_KPROBES", (tmp_path / "missing", tmp_path))
    monkeypatch.setattr(features, "fentry_error", lambda _function: None)


def test_the_best_hooks_where_nothing_is_refused() -> None:
    kernel = Kernel({})
    choices, loaded = choose(ALL, {}, kernel.load)
    assert mechanisms(choices) == {
        "send": "fentry",
        "transmit": "fentry",
        "retransmit": "tracepoint",
    }
    assert loaded == "loaded"
    assert not any(choice.refusals for choice in choices)
    assert len(kernel.tried) == 1


@pytest.mark.parametrize("step", ["load", "attach"])
def test_the_next_candidate_only_for_the_one_refused(step: str) -> None:
    kernel = Kernel({"fexit_send": errno.ENOENT, "kprobe_send": errno.EINVAL}, step)
    choices, _ = choose(ALL, {}, kernel.load)
    assert kernel.tried == [
        ["fentry", "fentry", "tracepoint"],
        ["kprobe", "fentry", "tracepoint"],
        ["tracepoint", "fentry", "tracepoint"],
    ]
    assert [refused.hook for refused in choices[0].refusals] == list(SEND.hooks[:2])
    assert [refused.reason for refused in choices[0].refusals] == [
        "No such file or directory (errno 2)",
        "Invalid argument (errno 22)",
    ]
    assert choices[1].refusals == choices[2].refusals == []


def test_a_mechanism_that_is_forbidden_is_not_asked_for_again() -> None:
    kernel = Kernel({"fentry_transmit": errno.EPERM})
    choices, _ = choose(ALL, {}, kernel.load)
    assert kernel.tried == [
        ["fentry", "fentry", "tracepoint"],
        ["kprobe", "kprobe", "tracepoint"],
    ]
    assert [len(choice.refusals) for choice in choices] == [1, 1, 0]
    assert choices[0].refusals[0].hook == SEND.hooks[0]
    assert choices[0].refusals[0].reason == "Operation not permitted (errno 1)"


def test_a_forced_mechanism_holds_where_a_probe_has_it() -> None:
    kernel = Kernel({})
    choices, _ = choose(ALL, KPROBES, kernel.load)
    assert mechanisms(choices) == {
        "send": "kprobe",
        "transmit": "kprobe",
        "retransmit": "tracepoint",
    }


def test_a_forced_mechanism_has_no_other_candidate() -> None:
    kernel = Kernel({"kprobe_send": errno.ENOENT})
    with pytest.raises(KernelRefused, match="every way to see send and recv"):
        choose(ALL, KPROBES, kernel.load)
    assert len(kernel.tried) == 1


def test_every_reason_is_told_when_the_candidates_run_out() -> None:
    kernel = Kernel({"fentry_transmit": errno.ENOENT, "kprobe_transmit": errno.EBUSY})
    with pytest.raises(KernelRefused) as caught:
        choose(ALL, {}, kernel.load)
    said = str(caught.value)
    assert "see transmit" in said
    assert "fentry: No such file or directory (errno 2); kprobe: Device or resource busy" in said


def test_a_kernel_that_takes_no_fentry_is_not_asked_for_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    error = PermissionError(errno.EPERM, "Operation not permitted")
    monkeypatch.setattr(features, "fentry_error", lambda _function: error)
    kernel = Kernel({})
    choices, _ = choose([SEND], {}, kernel.load)
    assert kernel.tried == [["kprobe"]]
    assert choices[0].refusals[0].reason == "Operation not permitted (errno 1)"


def test_a_kernel_without_kprobes_is_not_asked_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "_KPROBES", (tmp_path / "missing",))
    kernel = Kernel({"fentry_send": errno.ENOENT})
    choices, _ = choose([SEND], {}, kernel.load)
    assert kernel.tried == [["fentry"], ["tracepoint"]]
    assert "no kprobes" in choices[0].refusals[1].reason
    with pytest.raises(KernelRefused, match="no kprobes"):
        choose([SEND], KPROBES, kernel.load)


@pytest.mark.parametrize(
    ("log", "said"),
    [
        (["libbpf: map 'message_64': failed to create: -ENOMEM"], "failed to create: -ENOMEM"),
        (["libbpf: prog 'tracepoint_state': failed to load"], "'tracepoint_state': failed"),
        ([], "says: nothing"),
    ],
)
def test_a_failure_that_is_no_hooks_fault(log: list[str], said: str) -> None:
    tried = []

    def load(choices: Sequence[Choice]) -> None:
        tried.append(choices)
        raise refusal("load", errno.ENOMEM, log)

    with pytest.raises(KernelRefused, match="Cannot allocate memory") as caught:
        choose(ALL, {}, load)
    assert said in str(caught.value)
    assert isinstance(caught.value.__cause__, LoadError)
    assert len(tried) == 1


def test_what_is_no_refusal_passes_through() -> None:
    def load(choices: Sequence[Choice]) -> None:
        raise KernelRefused("no BTF")

    with pytest.raises(KernelRefused, match=r"^no BTF$"):
        choose(ALL, {}, load)


def test_the_reason_has_libbpfs_word_for_a_function_that_is_missing() -> None:
    log = ["libbpf: prog 'x': failed to find kernel BTF type ID of 'tcp_x': -3", "libbpf: failed"]
    error = refusal("load", errno.ESRCH, log)
    assert features.reason_of(error).endswith("failed to find kernel BTF type ID of 'tcp_x': -3")
    assert features.reason_of(refusal("load", errno.EINVAL, log)) == "Invalid argument (errno 22)"


def test_a_libbpf_that_may_not_look_for_modules_is_named() -> None:
    """As libbpf 1.1 ended on 6.1 without CAP_SYS_ADMIN; 1.4 went on."""
    log = ["libbpf: failed to iterate BTF objects: -1", "libbpf: failed to load object 'x'"]
    error = refusal("load", errno.EINVAL, log)
    assert "older than 1.3, needs CAP_SYS_ADMIN" in features.reason_of(error)

    def load(choices: Sequence[Choice]) -> None:
        raise error

    with pytest.raises(KernelRefused, match=r"older than 1\.3, needs CAP_SYS_ADMIN"):
        choose(ALL, {}, load)


class Types:
    """A kernel with one function and one tracepoint."""

    def function_id(self, name: str) -> int:
        """Return an id for the one."""
        return 7 if name == "tcp_sendpage" else 0

    def has_tracepoint(self, name: str) -> bool:
        """Tell whether it is the one."""
        return name == "tcp_sendmsg_locked"


@pytest.mark.parametrize(
    ("function", "tracepoint", "programs"),
    [
        ("tcp_sendpage", "tcp_sendmsg_locked", ["one", "two", "three"]),
        ("tcp_gone", "tcp_sendmsg_locked", ["one", "three"]),
        ("tcp_gone", "tcp_gone", ["one"]),
    ],
)
def test_programs_for_functions_that_this_kernel_lacks_are_left_out(
    function: str, tracepoint: str, programs: list[str]
) -> None:
    hook = Hook(
        "fentry",
        "a hook",
        (
            Program("one"),
            Program("two", function=function),
            Program("three", tracepoint=tracepoint),
        ),
        "5.5",
    )
    chosen = programs_of(hook, cast(KernelTypes, Types()))
    assert [program.name for program in chosen] == programs
