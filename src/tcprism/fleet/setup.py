"""Making the tables of a fleet, and bringing them up to date."""

from __future__ import annotations

from collections.abc import Iterator

from tcprism.errors import MachineError, ServerError
from tcprism.fleet import schema
from tcprism.fleet.address import Address, Credentials
from tcprism.fleet.server import UNKNOWN_DATABASE, UNKNOWN_TABLE, Server, literal
from tcprism.version import __version__


def version_of(server: Server) -> int:
    """Return the version of the schema that a server has; 0: none. Raises ServerError."""
    try:
        _, rows = server.rows("SELECT max(version) FROM schema_versions")
    except ServerError as error:
        if error.code in (UNKNOWN_TABLE, UNKNOWN_DATABASE):
            return 0
        raise
    return int(rows[0][0])


def initialise(address: Address, who: Credentials) -> Iterator[str]:
    """Make the database and its tables, or bring them up to date; yield what was done, in lines.

    Raises ServerError, and MachineError when a newer tcprism made them.
    """
    first = Server(address, who, database=False)
    first.command(f"CREATE DATABASE IF NOT EXISTS {address.database}")
    first.close()
    server = Server(address, who)
    server.command(schema.VERSIONS)
    there, ours = version_of(server), schema.versions()
    if there > max(ours):
        raise MachineError(
            f"{address} has version {there} of the schema and this tcprism knows {max(ours)}:"
            " use the newer tcprism that made it"
        )
    for version, text in ours.items():
        if version > there:
            for statement in schema.statements(text):
                server.command(statement)
            server.command(
                "INSERT INTO schema_versions (version, tcprism)"
                f" VALUES ({version}, {literal(__version__)})"
            )
            yield f"{address}: version {version} of the schema was applied"
    for text in schema.views():
        for statement in schema.statements(text):
            server.command(statement)
    if there == max(ours):
        yield f"{address}: the schema is up to date (version {there})"
    server.close()
