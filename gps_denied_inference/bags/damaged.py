"""Image messages of bag files that broke off: what is there, up to and around what is not.

A recorder that lost power leaves an MCAP without its index, or a SQLite file shorter than it says.
Both are read from their beginning, without the index.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

Record = tuple[str, str, int, bytes]
"""Topic, message type, ns of recording, CDR."""

_MOST_BYTES = 1 << 30  # of one record: more is a broken length, not an image


def records(file: Path, faults: list[str]) -> Iterator[Record]:
    """Yield every message that can be read, in the order of the file.

    Args:
        file: ``.mcap`` or ``.db3``.
        faults: takes one line for each place that cannot be read.
    """
    try:
        yield from (_mcap if file.suffix == ".mcap" else _sqlite)(file, faults)
    except Exception as error:  # noqa: BLE001 - damaged bytes: any error of the libraries
        faults.append(str(error) or type(error).__name__)


def recovery(file: Path) -> str:
    """Return the command that makes a whole file of a damaged one."""
    if file.suffix == ".mcap":
        return f"mcap recover {file.name} -o recovered.mcap"
    return f"sqlite3 {file.name} .recover | sqlite3 recovered.db3"


def _mcap(file: Path, faults: list[str]) -> Iterator[Record]:
    from mcap.records import Channel, Chunk, Message, Schema
    from mcap.stream_reader import StreamReader, breakup_chunk

    schemas: dict[int, str] = {}
    channels: dict[int, tuple[str, str]] = {}

    def take(record: object) -> Record | None:
        if isinstance(record, Schema):
            schemas[record.id] = record.name
        elif isinstance(record, Channel):
            channels[record.id] = (record.topic, schemas.get(record.schema_id, ""))
        elif isinstance(record, Message) and record.channel_id in channels:
            topic, kind = channels[record.channel_id]
            return topic, kind, record.log_time, bytes(record.data)
        return None

    with open(file, "rb") as stream:
        for record in _until_fault(stream, StreamReader, faults):
            if isinstance(record, Chunk):
                try:
                    inside = breakup_chunk(record, validate_crc=True)
                except Exception as error:  # noqa: BLE001 - zstd's, lz4's, struct's own
                    faults.append(f"a chunk is damaged: {error}")
                    continue
            else:
                inside = [record]
            for entry in inside:
                message = take(entry)
                if message is not None:
                    yield message


def _until_fault(stream: IO[bytes], reader: Any, faults: list[str]) -> Iterator[Any]:
    try:
        yield from reader(stream, emit_chunks=True, record_size_limit=_MOST_BYTES).records
    except Exception as error:  # noqa: BLE001 - EndOfFile, InvalidMagic, struct.error, ...
        at = stream.tell()
        what = str(error) or type(error).__name__
        faults.append(f"it breaks off at byte {at}: {what}")


def _sqlite(file: Path, faults: list[str]) -> Iterator[Record]:
    wal = file.with_name(file.name + "-wal")
    if wal.exists() and wal.stat().st_size:
        faults.append(f"{wal.name} beside it holds messages that were not written into it")
    connection = sqlite3.connect(f"file:{quote(str(file.absolute()))}?immutable=1", uri=True)
    try:
        # Reads a file that is shorter than its header says, instead of refusing it.
        connection.execute("PRAGMA writable_schema = ON")
        topics = {
            key: (str(name), str(kind))
            for key, name, kind in connection.execute("SELECT id, name, type FROM topics")
        }
        rows = connection.execute("SELECT topic_id, timestamp, data FROM messages NOT INDEXED")
        while True:
            try:
                row = rows.fetchone()
            except sqlite3.DatabaseError as error:
                faults.append(f"it breaks off: {error}")
                return
            if row is None:
                return
            if row[0] in topics and isinstance(row[2], bytes):
                topic, kind = topics[row[0]]
                yield topic, kind, int(row[1]), row[2]
    finally:
        connection.close()
