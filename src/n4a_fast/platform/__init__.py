"""Everything that differs between operating systems, behind one interface; no other module asks which system this is.

Files      `open_regular`, `open_unshared`, `is_in_use`, `read_at`, `write_at`, `write_pieces`, `copy_range`,
           `identity` (device and number), `pin`, `mount_point`, `is_writable_folder`, `is_name`, `forget_pages`,
           `temporary_folder`
Syncs      `sync_data`, `sync_file`, `sync_path`, `start_writing`, `syncs_as_a_whole`, `sync_file_system`
Names      `publish_new` (only where the name is free), `replace`, `exchange`, `remove`, `finish_removals`
Locks      `FileLock`: shared or exclusive, tried or waited for, on a file or a folder
Processes  `at_fork`, `keep_for_ever`, `openssl_sha256`, `runs_threads_named`

What a system cannot do is decided here: a sync that it has no call for becomes a stronger one, never none. A call for
which there is nothing like it says so by its result. A system is one module with the functions of `posix`.
"""

from n4a_fast.platform.choice import system
from n4a_fast.platform.interpreter import keep_for_ever, openssl_sha256
from n4a_fast.platform.locks import FileLock, LocksUnsupportedError

SHUTS_READERS_OUT = system.SHUTS_READERS_OUT
at_fork = system.at_fork
exchange = system.exchange
copy_range = system.copy_range
finish_removals = system.finish_removals
forget_pages = system.forget_pages
identity = system.identity
identity_of = system.identity_of
is_in_use = system.is_in_use
is_name = system.is_name
is_removed_name = system.is_removed_name
is_writable_folder = system.is_writable_folder
mount_point = system.mount_point
open_regular = system.open_regular
open_unshared = system.open_unshared
pin = system.pin
publish_new = system.publish_new
read_at = system.read_at
remove = system.remove
replace = system.replace
runs_threads_named = system.runs_threads_named
start_writing = system.start_writing
sync_data = system.sync_data
sync_file = system.sync_file
sync_file_system = system.sync_file_system
sync_path = system.sync_path
syncs_as_a_whole = system.syncs_as_a_whole
temporary_folder = system.temporary_folder
write_at = system.write_at
write_pieces = system.write_pieces

__all__ = [
    "SHUTS_READERS_OUT",
    "FileLock",
    "LocksUnsupportedError",
    "at_fork",
    "copy_range",
    "exchange",
    "finish_removals",
    "forget_pages",
    "identity",
    "identity_of",
    "is_in_use",
    "is_name",
    "is_removed_name",
    "is_writable_folder",
    "keep_for_ever",
    "mount_point",
    "open_regular",
    "open_unshared",
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
    "temporary_folder",
    "write_at",
    "write_pieces",
]
