"""Reading operations of calls refused, once or from then on: `folder faults call...`, with `unreadable.c` preloaded.

For each fault: the call raises an error of ours or does its work, and with the cause gone it works at once. A line of
JSON for each fault that went otherwise, and one with how many there were of each call.
"""

from __future__ import annotations

import ctypes
import errno
import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from faults import prepared
from sklearn.linear_model import Ridge

from n4a_fast import WorkspaceStore, inspect_bundle
from n4a_fast.errors import StoreError

KINDS = (errno.EIO, errno.EACCES, errno.ESTALE)
MANY = 10**9
_SHIM = ctypes.CDLL(None)
X, Y = np.random.default_rng(0).random((12, 3)), np.arange(12.0)


def _chain(store: WorkspaceStore) -> str:
    return str(store.sql("SELECT min(chain_id) FROM chains WHERE model_class = 'Ridge'").item())


def _prediction(store: WorkspaceStore) -> str:
    return str(store.query_predictions(fold_id="acknowledged")["prediction_id"][0])


def _place(store: WorkspaceStore) -> Path:
    return store.workspace_path.parent


def _transaction(store: WorkspaceStore) -> None:
    with store.transaction():
        store.begin_run("in a block", {}, [])


def _undrained(store: WorkspaceStore) -> int:
    with store.undrained():
        return store.list_runs().height


def _save_search(store: WorkspaceStore) -> None:
    from sklearn.model_selection import GridSearchCV  # which takes as long to import as all else

    search = GridSearchCV(Ridge(), {"alpha": [1.0, 2.0]}, cv=2).fit(X, Y)
    store.save_search(search, dataset="new")


# by the method that is called; those without a method's name are no methods, or go through several
CALLS: dict[str, Callable[[WorkspaceStore], object]] = {
    "open_readonly": lambda store: WorkspaceStore.open_readonly(_place(store) / "other").close(),
    "close": lambda store: WorkspaceStore(_place(store) / "other").close(),
    "transaction": _transaction,
    "progress": lambda store: store.progress(),
    "undrained": _undrained,
    "save_cross_validation": lambda store: store.save_cross_validation(Ridge(), X, Y, cv=2, dataset="new"),
    "save_search": _save_search,
    "estimator": lambda store: store.estimator(_chain(store)).predict(X),
    "iter_arrays": lambda store: list(store.iter_arrays(batch_size=1)),
    "get_prediction": lambda store: store.get_prediction(_prediction(store), load_arrays=True),
    "get_prediction_arrays": lambda store: store.get_prediction_arrays(_prediction(store)),
    "replay_chain": lambda store: store.replay_chain(_chain(store), X),
    "replay_chains": lambda store: store.replay_chains([_chain(store)], X),
    "replay_and_save": lambda store: store.replay_and_save([_chain(store)], X, dataset="new"),
    "replay_plan": lambda store: store.replay_plan(_chain(store), X),
    "restore": lambda store: WorkspaceStore.restore(_place(store) / "kept", _place(store) / "restored", replace=True),
    "load_artifact": lambda store: [store.load_artifact(each) for each in store.sql("FROM artifacts")["artifact_id"]],
    "verify": lambda store: store.verify(),
    "stats": lambda store: store.stats(),
    "merge": lambda store: store.merge(_place(store) / "other"),
    "report": lambda store: store.report(_place(store) / "report.html", charts=False),
    "export_chain": lambda store: store.export_chain(_chain(store), _place(store) / "exported.n4a"),
    "import_chain": lambda store: store.import_chain(_place(store) / "chain.n4a"),
    "inspect_bundle": lambda store: inspect_bundle(_place(store) / "chain.n4a"),
    "a store shown": repr,
    "a pickled store": lambda store: pickle.loads(pickle.dumps(store)).close(),
}


def unreadable(folder: Path, number: int, error: int, lasting: bool) -> None:
    _SHIM.crash_unreadable(str(folder).encode(), ctypes.c_long(number), error, lasting)


def looks(root: Path, name: str) -> int:
    """How many reading operations a call takes in a new store."""
    with WorkspaceStore(root / "workspace") as store:
        unreadable(root, MANY, errno.EIO, False)
        CALLS[name](store)
        done = int(_SHIM.crash_looks())
        unreadable(root, 0, 0, False)
    return done


def one(root: Path, name: str, number: int, error: int, lasting: bool) -> list[str]:
    """What went wrong."""
    wrong = []
    with WorkspaceStore(root / "workspace") as store:
        unreadable(root, number, error, lasting)
        try:
            CALLS[name](store)
        except StoreError:
            pass
        except Exception as other:
            wrong.append(f"the error is {type(other).__name__}: {other}")
        unreadable(root, 0, 0, False)
        try:
            CALLS[name](store)
        except Exception as other:
            wrong.append(f"afterwards: {type(other).__name__}: {other}")
    return wrong


def main(folder: str, faults: str, *names: str) -> None:
    root, done = Path(folder) / "root", {}
    prepared(root)
    for name in names:
        number_of = looks(root, name)
        # spread over the call, each kind and both ways in turn
        numbers = sorted({1 + place * (number_of - 1) // max(1, int(faults) - 1) for place in range(int(faults))})
        for place, number in enumerate(numbers if number_of else ()):
            error, lasting = KINDS[place % len(KINDS)], bool(place % 2)
            for problem in one(root, name, number, error, lasting):
                how = "from then on" if lasting else "once"
                print(json.dumps([f"{name}: look {number} of {number_of}, {errno.errorcode[error]} {how}", problem]))
        done[name] = len(numbers) if number_of else 0
    print(json.dumps(done))


if __name__ == "__main__":
    main(*sys.argv[1:])
