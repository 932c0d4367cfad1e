"""Run the command line in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from lib_dumpunet.app.cli import main


class Result(NamedTuple):
    """The result of a command: its exit code and output."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """The JSON object that a command printed with --json."""
        return json.loads(self.out)


Run = Callable[..., Result]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: object) -> Result:
        try:
            code = main([str(a) for a in arguments])
        except SystemExit as error:  # argparse
            code = int(error.code or 0)
        return Result(code, *capsys.readouterr())

    return call
