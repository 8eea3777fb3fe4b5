"""A recording, looked at as events, as NumPy columns and as a Polars data frame.

Run: python examples/read_recording.py run.tcpr
"""

import sys

import polars

import tcprism


def main(path: str) -> None:
    """Print something of each."""
    # One event after the other: typed, None where something is not known.
    for event in tcprism.open(path, kinds={"retransmit"}):
        print(event.time, event.comm, event.cause, event.bytes, "bytes again")

    # Whole columns at once: a masked array where a value may be missing.
    connects = tcprism.open(path, kinds={"connect"}).batches()
    slowest = max((int(batch["elapsed_ns"].max()) for batch in connects if len(batch)), default=0)
    print(f"slowest connect: {slowest / 1e6:.3f} ms")

    # Whatever takes Arrow takes a batch as it is.
    only_http = tcprism.Filter(port=8080)
    messages = tcprism.open(path, kinds={"send", "recv"}, filters=only_http)
    frame = polars.concat(map(polars.DataFrame, messages.batches()))
    print(frame.group_by("comm", "kind").agg(polars.col("bytes").sum()).sort("comm", "kind"))


if __name__ == "__main__":
    main(sys.argv[1])
