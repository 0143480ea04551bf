"""What one store object has begun: an exception that leaves its `with` block fails what is still running of it."""

from __future__ import annotations

import traceback

from n4a_fast.engine.workspace import Workspace
from n4a_fast.errors import StoreError


class Begun:
    """Runs and pipelines begun through one `WorkspaceStore`."""

    def __init__(self) -> None:
        self._runs: list[str] = []
        self._pipelines: list[str] = []

    def run(self, run_id: str) -> str:
        """Note a run; its id."""
        self._runs.append(run_id)
        return run_id

    def pipeline(self, pipeline_id: str) -> str:
        """Note a pipeline; its id."""
        self._pipelines.append(pipeline_id)
        return pipeline_id

    def fail(self, workspace: Workspace, error: BaseException) -> None:
        """Let what is still running fail with the error's text, in one commit. What stands in the way of that is added
        to the error as a note: it must not take its place.
        """
        text = "".join(traceback.format_exception_only(error)).strip()
        try:
            with workspace.transaction():
                running = workspace.pipelines.begun()
                for pipeline_id in self._pipelines:
                    if pipeline_id in running:
                        workspace.fail_pipeline(pipeline_id, text)
                for run_id in self._runs:
                    if (workspace.runs.find(run_id) or {}).get("status") == "running":
                        workspace.runs.fail(run_id, text)
        except StoreError as obstacle:
            error.add_note(f"n4a_fast: what was running in {workspace.root} could not be noted as failed: {obstacle}")
