"""A recording, looked at as events, as NumPy columns and as an Arrow table.

Run: python examples/read_recording.py run.tcpr
"""

import sys

import pyarrow

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

    # As an Arrow table; polars.DataFrame(batch) and duckdb take a batch as it is.
    only_http = tcprism.Filter(port=8080)
    messages = tcprism.open(path, kinds={"send", "recv"}, filters=only_http)
    tables = [batch.to_arrow() for batch in messages.batches()]
    table = pyarrow.concat_tables(tables).unify_dictionaries()
    sums = table.group_by(["comm", "kind"]).aggregate([("bytes", "sum")])
    for row in sums.to_pylist():
        print(f"{row['bytes_sum']:>10} bytes by {row['kind']} of {row['comm']}")


if __name__ == "__main__":
    main(sys.argv[1])
