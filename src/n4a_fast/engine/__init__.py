"""One workspace in this process, and its promises.

Identity. A workspace is its file (device, number) and the id stored in it, not its path. Before anything is
acknowledged the path is asked whether it still means that file; if not, `StoreMovedError`, and nothing is
acknowledged. A vacuum by another process is followed. A log segment carries the id of its store
(`tests/engine/test_identity.py`, `tests/log/test_recovery.py`).

Life. A process is alive while it holds the lock on its session file; pid, host name and clock decide nothing. Its
log, its claims and what it holds hang from the session (`tests/engine/test_session.py`,
`tests/platform/test_locks.py`). A disk without locks is refused for writing.

Durability. Append, sync, acknowledge. A new name is acknowledged after its folder is synced; a sync that failed is
repeated, or the write is void. A segment is reused or removed only after the commit that applied it. A torn tail is
cut, damage before it is told by name, and a damaged record hides no whole one behind it (`tests/log`,
`tests/durable`). A format is brought up under the lease, before its log is read (`tests/schema`).
"""
