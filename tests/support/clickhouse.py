"""A ClickHouse for tests: chdb, its engine, behind the HTTP interface as far as its client asks."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.tracer import PATIENCE

_SERVER = Path(__file__).parent / "clickhouse_server.py"


class ClickHouse:
    """A server in a process of its own; its data outlive it. With a password, `writer` has it."""

    def __init__(self, folder: Path, password: str = "") -> None:
        pytest.importorskip("clickhouse_connect")
        self.folder, self.password = folder, password
        # Nobody else gets the port while it is stopped.
        self._held = socket.socket()
        self._held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._held.bind(("127.0.0.1", 0))
        self.port = self._held.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._trouble = folder.with_name(folder.name + "-trouble")
        self._trouble.mkdir()
        self.start()

    def start(self) -> None:
        """Start it, at the same port as before."""
        command = [sys.executable, str(_SERVER), str(self.folder), str(self.port), self.password]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout
        if not self.process.stdout.readline():
            pytest.skip("needs chdb")

    def stop(self) -> None:
        """Stop it."""
        self.process.terminate()
        self.process.wait(PATIENCE)

    def close(self) -> None:
        """Stop it for good."""
        self.stop()
        self._held.close()

    def have(self, trouble: str, value: str = "") -> None:
        """Have inserts go wrong, as clickhouse_server.py says."""
        (self._trouble / trouble).write_text(value)

    def well(self) -> None:
        """Have all go well again."""
        for path in self._trouble.iterdir():
            path.unlink()
        if self.process.poll() is not None:
            self.start()

    def rows(self, sql: str, database: str = "tcprism") -> list[tuple[Any, ...]]:
        """Ask it, through its own client."""
        import clickhouse_connect

        client = clickhouse_connect.get_client(
            host="127.0.0.1",
            port=self.port,
            username="writer",
            password=self.password,
            database=database,
            autogenerate_session_id=False,
        )
        try:
            return [tuple(row) for row in client.query(sql).result_rows]
        finally:
            client.close()

    def one(self, sql: str, database: str = "tcprism") -> Any:
        """Ask it for one value."""
        ((value,),) = self.rows(sql, database)
        return value


@contextmanager
def clickhouse(folder: Path, password: str = "") -> Iterator[ClickHouse]:
    """Run one while the body runs."""
    server = ClickHouse(folder, password)
    try:
        yield server
    finally:
        server.close()
