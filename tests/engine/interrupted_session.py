"""A session that Ctrl-C hits again and again, at random moments, and that goes on: python interrupted_session.py FOLDER
SEED TIMES.

After each interrupt it counts what is stored against what its calls had returned: of the one call that
was interrupted a row may be there or not, of all others exactly one. Prints the number of rows.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading

import numpy as np

from n4a_fast import WorkspaceStore
from n4a_fast.platform.interrupts import start

PREDICTION = ("corn", "PLS", "PLSRegression")
SCORES = (0.1, 0.1, 0.1, "rmse", "regression", 3, 4, {}, {}, None, None, 0, 0.0)


class Session:
    """Rows saved, as far as the calls told."""

    def __init__(self, store: WorkspaceStore) -> None:
        self.store, self.run = store, store.begin_run("interrupted", {}, [])
        self.predictions = self.logs = 0

    def work(self) -> None:
        while True:
            pipeline = self.store.begin_pipeline(self.run, "p", {}, [], "corn", "")
            for fold in range(40):
                # type: ignore[arg-type]
                prediction = self.store.save_prediction(pipeline, None, *PREDICTION, str(fold), "val", *SCORES)
                self.predictions += 1
                self.store.save_prediction_arrays(
                    prediction, np.full(3, float(fold)), np.full(5, float(self.predictions))[:3]
                )
                self.store.log_step(pipeline, fold, "SNV", "end")
                self.logs += 1
                if fold % 5 == 4:
                    self.store.query_predictions(pipeline_id=pipeline, limit=1)
                if fold % 7 == 6:
                    self.store.flush()
            self.store.complete_pipeline(pipeline, 0.1, 0.1, "rmse", 1)

    def check(self) -> None:
        """What is there is what was saved, and the interrupted call's row or not; from then on it counts as saved."""
        for table, saved in (("predictions", self.predictions), ("logs", self.logs)):
            found = self.store.sql(f"SELECT count(*) FROM {table}").item()
            assert found - saved in (0, 1), f"{table}: {found} for {saved}"
            setattr(self, table, found)
        torn = (
            "SELECT count(*) FROM prediction_arrays JOIN predictions USING (prediction_id) WHERE y_true[1] <>"
            " fold_id::INTEGER OR len(y_pred) <> len(y_true)"
        )
        assert self.store.sql(torn).item() == 0


def main(folder: str, seed: int, times: int) -> None:
    moments = random.Random(seed)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    store = WorkspaceStore(folder)
    session = Session(store)
    for _ in range(times):
        timer = threading.Timer(moments.uniform(0.005, 0.06), os.kill, (os.getpid(), signal.SIGINT))
        try:
            start(timer)  # which an interrupt that comes at once would cut within Python's own locks
            session.work()
        except KeyboardInterrupt:
            session.check()
    store.close()
    print(session.predictions, session.logs)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
