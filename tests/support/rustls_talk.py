"""Clients with rustls 0.23, which have all that they send and receive from a server told by it.

    python rustls_talk.py obstore ADDRESS CONNECTIONS SIZE...   puts objects, and gets each back
    python rustls_talk.py polars ADDRESS PATH...   reads tables

obstore uses all connections at once. What it writes is in pieces: a head and a body.
"""

from __future__ import annotations

import asyncio
import os
import sys


def message(number: int, size: int) -> bytes:
    return bytes(97 + (number * 7 + k + k // 26) % 26 for k in range(size))


async def put_and_get(address: str, connections: int, sizes: list[int]) -> None:
    import obstore
    from obstore.store import HTTPStore

    async def exchange(store: HTTPStore, number: int, size: int) -> None:
        path, data = f"{number}/{size}", message(number, size)
        await obstore.put_async(store, path, data, use_multipart=False)
        found = await obstore.get_async(store, path)
        assert await found.bytes_async() == data

    stores = [
        HTTPStore.from_url(
            f"https://{address}/", client_options={"allow_invalid_certificates": True}
        )
        for _ in range(connections)
    ]
    for size in sizes:
        await asyncio.gather(*(exchange(store, k, size) for k, store in enumerate(stores)))


def read_tables(address: str, paths: list[str]) -> None:
    import polars

    for path in paths:
        assert len(polars.scan_csv(f"https://{address}{path}").collect())


if __name__ == "__main__":
    if sys.argv[1] == "obstore":
        numbers = [int(word) for word in sys.argv[3:]]
        asyncio.run(put_and_get(sys.argv[2], numbers[0], numbers[1:]))
    else:
        read_tables(sys.argv[2], sys.argv[3:])
    os._exit(0)  # where Python ends before a thread of Rust that still waits for it, it aborts
