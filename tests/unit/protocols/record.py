"""Record what real clients and servers say: python record.py LISTEN_PORT SERVER_PORT FILE

Each line is what was read at once: the number of the connection, > from the client or < from the
server, and the bytes in hexadecimal.
"""

import asyncio
import sys
from itertools import count
from typing import TextIO


async def _copy(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, file: TextIO, head: str
) -> None:
    while data := await reader.read(1 << 20):
        file.write(f"{head}{data.hex()}\n")
        writer.write(data)
        await writer.drain()
    writer.close()


async def _record(listen: int, server: int, path: str) -> None:
    numbers = count()

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = next(numbers)
        of_server, to_server = await asyncio.open_connection("127.0.0.1", server)
        await asyncio.gather(
            _copy(reader, to_server, file, f"{number}>"),
            _copy(of_server, writer, file, f"{number}<"),
            return_exceptions=True,
        )

    with open(path, "w", buffering=1) as file:
        async with await asyncio.start_server(connection, "127.0.0.1", listen) as listener:
            await listener.serve_forever()


if __name__ == "__main__":
    asyncio.run(_record(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
