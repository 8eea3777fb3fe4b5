"""The man page is what the commands' help makes it."""

import os
import shutil
import subprocess

import pytest

import generate_man


def test_the_page_in_the_repository_is_current() -> None:
    assert generate_man.PAGE.read_text() == generate_man.render(), "run `make docs`"


def test_man_shows_the_page_without_warnings() -> None:
    if shutil.which("man") is None:
        pytest.skip("needs man")
    command = ["man", "--warnings", "--local-file", str(generate_man.PAGE)]
    environment = os.environ | {"MANWIDTH": "100"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.stderr == ""
    assert "--payload BYTES" in done.stdout.replace("\b", "")


def test_text_that_looks_like_markup_stays_text() -> None:
    assert generate_man.roff(".SH not\n'quote\na-b\\n") == "\\&.SH not\n\\&'quote\na\\-b\\en"
