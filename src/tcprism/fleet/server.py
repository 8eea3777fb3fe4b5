"""ClickHouse, asked through its own client."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tcprism.errors import ServerError
from tcprism.events.optional import need
from tcprism.fleet.address import Address, Credentials

_CONNECTING, _ANSWERING = 5, 60  # seconds

# What an insert says of itself. Columns that the server does not have are left out, and those that
# it has and we do not are null there: a schema may be older or newer.
_INSERT = {
    "input_format_skip_unknown_fields": 1,
    "input_format_arrow_allow_missing_columns": 1,
    "insert_deduplicate": 1,
    "deduplicate_blocks_in_dependent_materialized_views": 1,
}

_READING = {"readonly": 2}  # no statement that writes; 1 would forbid the client's own settings

UNKNOWN_TABLE, UNKNOWN_DATABASE = 60, 81  # src/Common/ErrorCodes.cpp


class Server:
    """A connection to ClickHouse, made when something is asked for.

    All methods raise ServerError. Raises ExtraMissing when it is asked without the library.
    """

    def __init__(
        self, address: Address, who: Credentials, database: bool = True, answering: int = _ANSWERING
    ) -> None:
        self.address = address
        self._who = who
        self._database = address.database if database else None
        self._answering = answering
        self._client: Any = None

    def command(self, sql: str) -> None:
        """Run a statement that returns nothing."""
        self._ask(lambda client: client.command(sql))

    def insert(self, table: str, data: bytes, token: str) -> None:
        """Insert an Arrow stream; what was inserted with the same token is not inserted again."""
        settings = {**_INSERT, "insert_deduplication_token": token}
        self._ask(
            lambda client: client.raw_insert(
                table, insert_block=data, settings=settings, fmt="ArrowStream"
            )
        )

    def rows(
        self, sql: str, settings: Mapping[str, Any] | None = None
    ) -> tuple[list[str], list[Sequence[Any]]]:
        """Return the names of a query's columns, and its rows."""
        found = self._ask(lambda client: client.query(sql, settings=dict(settings or {})))
        return list(found.column_names), found.result_rows

    def stream(self, sql: str) -> tuple[list[str], Iterator[Sequence[Any]]]:
        """Return the names of a query's columns, and its rows as they come; it changes nothing."""
        opened = self._ask(lambda client: client.query_rows_stream(sql, settings=_READING))
        return list(opened.source.column_names), self._streamed(opened)

    def _streamed(self, opened: Any) -> Iterator[Sequence[Any]]:
        with opened as rows:
            while (row := self._ask(lambda _: next(rows, None))) is not None:
                yield row

    def arrow(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Any:
        """Return a query's result as a pyarrow.Table."""
        return self._ask(
            lambda client: client.query_arrow(
                sql, parameters=dict(parameters or {}), use_strings=True
            )
        )

    def close(self) -> None:
        """Close the connection."""
        client, self._client = self._client, None
        if client:
            client.close()

    def _ask(self, what: Callable[[Any], Any]) -> Any:
        driver = need("clickhouse_connect.driver", "clickhouse")
        errors = need("clickhouse_connect.driver.exceptions", "clickhouse")
        http = need("urllib3.exceptions", "clickhouse")
        try:
            if self._client is None:
                self._client = self._connect(driver)
            return what(self._client)
        except (errors.ClickHouseError, http.HTTPError, OSError) as error:
            raise ServerError(
                f"{self.address}: {_said(error)}", getattr(error, "code", None)
            ) from error

    def _connect(self, driver: Any) -> Any:
        logging.getLogger("clickhouse_connect").setLevel(logging.CRITICAL)  # we say it
        logging.getLogger("urllib3").setLevel(logging.CRITICAL)
        who = self._who
        files = {
            "ca_cert": who.ca_certificate,
            "client_cert": who.client_certificate,
            "client_cert_key": who.client_key,
        }
        return driver.create_client(
            interface="https" if self.address.secure else "http",
            host=self.address.host,
            port=self.address.port,
            username=who.user,
            password=who.password,
            database=self._database,
            client_name="tcprism",
            connect_timeout=_CONNECTING,
            send_receive_timeout=self._answering,
            autogenerate_session_id=False,
            dedicated_pool=True,
            **{name: path for name, path in files.items() if path},
        )


def _said(error: BaseException) -> str:
    """Return what the server says or, if it does not answer, why; in one line."""
    _, answered, text = str(error).rpartition("server response: ")
    if not answered and (first := _first(error)):
        text = first.strerror or str(first)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300].rstrip(".")


def _first(error: BaseException) -> OSError | None:
    """Return the operating system's error that has led to this one."""
    found, each = None, error.__cause__ or error.__context__
    while each:
        found = each if isinstance(each, OSError) else found
        each = each.__cause__ or each.__context__
    return found


def literal(text: str) -> str:
    """Return a text as SQL has it."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
