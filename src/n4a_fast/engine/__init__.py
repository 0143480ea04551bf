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

Order of locks. Workspaces, then the lease, then the claims, then DuckDB; nobody waits for an earlier one with a later
one in hand, and who needs several workspaces keeps none while it waits for another: its thread may be about to open
this one. A block that uses the workspace of another block, which uses this one's, is told after `lock_timeout`. The
registry's lock is held for moments in which nothing is waited for.
The background only tries. It lets the file go after a second without use, and drains what is logged so rarely that it
takes a hundredth of the time, or a minute passes (tests/engine/test_background.py). A thread that waits for the file
lets others have the workspace meanwhile, except inside a unit of work (tests/engine/test_threads.py,
tests/engine/test_schedules.py, tests/processes/test_taking_turns.py).

Drains. What fills the memory is drained by a thread of its own while calls that save go on. Whoever needs the file,
or lets it go, waits for that thread first, with the lock of the workspace in hand, which that one never takes
(tests/memtable/test_beside.py).

Units. What spans tables is one unit: what was saved before it is drained first, then it changes, looks at doomed
files again under the lock of the claims, commits, and unlinks. A kill anywhere leaves before or after. A unit that
only saves is one record of the log. Units nest: an inner one joins the outer one, and is given up alone if it raises
before it used the tables (tests/engine/test_unit.py, tests/test_store.py).

Exit. Calls that save end first, later ones raise; each store is closed under its lock; one failure hinders no other
and is told. This holds for a return, an exception, `sys.exit`, a handled signal and workers of multiprocessing
(tests/engine/test_exit.py). An exception that leaves `with WorkspaceStore(...)` fails what this store began; one that
nobody has any more is closed by the background (tests/engine/test_handles.py).

Fork. A child starts with nothing of its parent's; one forked inside a unit is told so by its first call, one whose
parent had used Polars by each call that gives a frame (tests/engine/test_fork.py).

The file heals: what a kill or a power loss cut is made whole before it is attached (tests/crash).
"""
