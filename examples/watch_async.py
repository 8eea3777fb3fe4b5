"""The first retransmissions of this machine, one event after the other, in asyncio.

Run as root: python examples/watch_async.py [COUNT]
"""

import asyncio
import sys

import tcprism


async def watch(count: int) -> None:
    """Print events until there were enough."""
    with tcprism.Monitor(kinds={"retransmit", "drop"}) as monitor:
        async for event in monitor:
            print(event.time, event.kind, event.comm, event.remote_ip, event.cause or event.reason)
            count -= 1
            if not count:
                return


if __name__ == "__main__":
    asyncio.run(watch(int(sys.argv[1]) if len(sys.argv) > 1 else 10))
