"""Everything that differs between operating systems, behind one interface; no other module asks which system this is.

Files      `open_regular`, `read_at`, `write_at`, `write_pieces`, `identity` (device and
           number), `pin`, `mount_point`, `is_writable_folder`
Syncs      `sync_data`, `sync_file`, `sync_path`, `start_writing`, `syncs_as_a_whole`, `sync_file_system`
Names      `publish_new` (only where the name is free), `replace`, `exchange`, `remove`
Locks      `FileLock`: shared or exclusive, tried or waited for, on a file or a folder; `try_record_lock`
Processes  `keep_for_ever`, `openssl_sha256`, `runs_threads_named`

What a system cannot do is decided here: a sync that it has no call for becomes a stronger one, never none. A call for
which there is nothing like it says so by its result. A system is one module with the functions of `posix`.
"""

from n4a_fast.platform.interpreter import keep_for_ever, openssl_sha256
from n4a_fast.platform.locks import FileLock, LocksUnsupportedError
from n4a_fast.platform.posix import (
    exchange,
    identity,
    identity_of,
    is_writable_folder,
    mount_point,
    open_regular,
    pin,
    publish_new,
    read_at,
    remove,
    replace,
    runs_threads_named,
    start_writing,
    sync_data,
    sync_file,
    sync_file_system,
    sync_path,
    syncs_as_a_whole,
    try_record_lock,
    write_at,
    write_pieces,
)

__all__ = [
    "FileLock",
    "LocksUnsupportedError",
    "exchange",
    "identity",
    "identity_of",
    "is_writable_folder",
    "keep_for_ever",
    "mount_point",
    "open_regular",
    "openssl_sha256",
    "pin",
    "publish_new",
    "read_at",
    "remove",
    "replace",
    "runs_threads_named",
    "start_writing",
    "sync_data",
    "sync_file",
    "sync_file_system",
    "sync_path",
    "syncs_as_a_whole",
    "try_record_lock",
    "write_at",
    "write_pieces",
]
