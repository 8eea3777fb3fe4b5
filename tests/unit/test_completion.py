"""The completion files that the wheel ships, in real shells."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SHARE = Path(__file__).resolve().parents[2] / "share"
BASH = SHARE / "bash-completion/completions/tcprism"
FISH = SHARE / "fish/vendor_completions.d/tcprism.fish"
ZSH = SHARE / "zsh/site-functions"

COMPLETE_IN_BASH = f"""
source {BASH}
COMP_WORDS=(tcprism trace --pa) COMP_CWORD=2
_tcprism_completion tcprism
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
COMPLETE_IN_FISH = f"source {FISH}; complete --do-complete 'tcprism trace --pa'"
# zsh completes only in a terminal: run the function and print what it would offer.
COMPLETE_IN_ZSH = f"""
fpath=({ZSH} $fpath)
compdef() {{ :; }}
_describe() {{ print -l -- $completions_with_descriptions }}
compadd() {{ print -l -- $completions }}
autoload -Uz _tcprism
words=(tcprism trace --pa) CURRENT=3
_tcprism
"""


@pytest.mark.parametrize(
    ("shell", "script"),
    [
        (["bash", "--norc", "-c"], COMPLETE_IN_BASH),
        (["fish", "--no-config", "-c"], COMPLETE_IN_FISH),
        (["zsh", "-f", "-c"], COMPLETE_IN_ZSH),
    ],
    ids=["bash", "fish", "zsh"],
)
def test_options_are_completed(shell: list[str], script: str) -> None:
    if shutil.which(shell[0]) is None:
        pytest.skip(f"needs {shell[0]}")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path}
    done = subprocess.run([*shell, script], env=environment, capture_output=True, text=True)
    assert "--payload" in done.stdout
    assert "--payload-style" in done.stdout
    assert "--port" not in done.stdout
    assert done.stderr == ""
