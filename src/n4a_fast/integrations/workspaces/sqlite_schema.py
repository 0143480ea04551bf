"""The tables of a nirs4all 1.4 workspace, schema 5, as far as nirs4all does not make them itself.

Names, types and defaults are those that nirs4all's statements rely on. What it adds to an older
workspace when it opens one (indexes for speed, its own text of the view) is left to it.
"""

from __future__ import annotations

from collections.abc import Mapping

VERSION = 5

_NOW = "TIMESTAMP DEFAULT current_timestamp"
_SCORES = (
    "cv_val_score",
    "cv_test_score",
    "cv_train_score",
    "final_test_score",
    "final_train_score",
    "final_agg_test_score",
    "final_agg_train_score",
)
SUMMARY = (
    "model_name",
    "metric",
    "task_type",
    "best_params",
    "dataset_name",
    "cv_val_score",
    "cv_test_score",
    "cv_train_score",
    "cv_fold_count",
    "cv_scores",
    "final_test_score",
    "final_train_score",
    "final_scores",
    "final_agg_test_score",
    "final_agg_train_score",
    "final_agg_scores",
)
REPLAY = ("relation_replay_manifest", "relation_replay_version", "relation_replay_fingerprint")
RELATION = (
    "prediction_scope",
    "prediction_level",
    "evaluation_scope",
    "reduction_role",
    "reduction_id",
    "physical_sample_id",
    "origin_sample_id",
    "derived_unit_id",
    "unit_level",
    "unit_id",
    "row_id",
    "sample_influence_weight",
)
_PLACE = ("run_id", "pipeline_id", "chain_id")

# columns by table; TEXT where nothing else is said below
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "runs": (
        "run_id",
        "name",
        "config",
        "datasets",
        "status",
        "created_at",
        "completed_at",
        "summary",
        "error",
        "project_id",
    ),
    "pipelines": (
        "pipeline_id",
        "run_id",
        "name",
        "expanded_config",
        "original_template",
        "generator_choices",
        "dataset_name",
        "dataset_hash",
        "status",
        "created_at",
        "completed_at",
        "best_val",
        "best_test",
        "metric",
        "duration_ms",
        "error",
    ),
    "chains": (
        "chain_id",
        "pipeline_id",
        "steps",
        "model_step_idx",
        "model_class",
        "preprocessings",
        "fold_strategy",
        "fold_artifacts",
        "shared_artifacts",
        "branch_path",
        "source_index",
        *SUMMARY,
        *REPLAY,
        "created_at",
    ),
    "predictions": (
        "prediction_id",
        "pipeline_id",
        "chain_id",
        "dataset_name",
        "model_name",
        "model_class",
        "fold_id",
        "partition",
        "val_score",
        "test_score",
        "train_score",
        "metric",
        "task_type",
        "n_samples",
        "n_features",
        "scores",
        "best_params",
        "preprocessings",
        "branch_id",
        "branch_name",
        "exclusion_count",
        "exclusion_rate",
        "refit_context",
        *RELATION,
        "created_at",
    ),
    "artifacts": (
        "artifact_id",
        "artifact_path",
        "content_hash",
        "operator_class",
        "artifact_type",
        "format",
        "size_bytes",
        "ref_count",
        "chain_path_hash",
        "input_data_hash",
        "dataset_hash",
        "created_at",
    ),
    "logs": (
        "log_id",
        "pipeline_id",
        "step_idx",
        "operator_class",
        "event",
        "duration_ms",
        "message",
        "details",
        "level",
        "created_at",
    ),
    "projects": ("project_id", "name", "description", "color", "created_at", "updated_at"),
    "conformal_results": (
        "conformal_id",
        "name",
        *_PLACE,
        "prediction_id",
        "artifact_fingerprint",
        "result_fingerprint",
        "target_name",
        "coverages",
        "artifact_json",
        "result_json",
        "metadata",
        "created_at",
    ),
    "tuning_results": (
        "tuning_id",
        "name",
        *_PLACE,
        "tuning_fingerprint",
        "result_fingerprint",
        "engine",
        "metric",
        "direction",
        "best_value",
        "n_trials",
        "tuning_json",
        "result_json",
        "metadata",
        "created_at",
    ),
    "robustness_results": (
        "robustness_id",
        "name",
        *_PLACE,
        "conformal_id",
        "prediction_id",
        "result_fingerprint",
        "mode",
        "scenario_count",
        "slice_by",
        "report_json",
        "metadata",
        "created_at",
    ),
}
_TYPES: Mapping[str, str] = {
    **dict.fromkeys(
        (
            "best_val",
            "best_test",
            "val_score",
            "test_score",
            "train_score",
            "best_value",
            "sample_influence_weight",
            *_SCORES,
        ),
        "REAL",
    ),
    **dict.fromkeys(
        (
            "duration_ms",
            "model_step_idx",
            "source_index",
            "n_samples",
            "n_features",
            "branch_id",
            "size_bytes",
            "step_idx",
        ),
        "INTEGER",
    ),
    **dict.fromkeys(("relation_replay_version", "n_trials", "scenario_count"), "INTEGER"),
    "created_at": _NOW,
    "updated_at": _NOW,
    "completed_at": "TIMESTAMP",
    "status": "TEXT DEFAULT 'running'",
    "level": "TEXT DEFAULT 'info'",
    "preprocessings": "TEXT DEFAULT ''",
    "fold_strategy": "TEXT DEFAULT 'per_fold'",
    "format": "TEXT DEFAULT 'joblib'",
    "description": "TEXT DEFAULT ''",
    "color": "TEXT DEFAULT '#14b8a6'",
    "cv_fold_count": "INTEGER DEFAULT 0",
    "ref_count": "INTEGER DEFAULT 1",
    "exclusion_count": "INTEGER DEFAULT 0",
    "exclusion_rate": "REAL DEFAULT 0.0",
}
_KEY = (
    "CREATE UNIQUE INDEX idx_predictions_natural_key_v2 ON predictions(pipeline_id, chain_id, fold_id, partition,"
    " model_name, branch_id)"
)


def type_of(name: str) -> str:
    """The type of a column: TEXT, INTEGER, REAL or TIMESTAMP."""
    return _TYPES.get(name, "TEXT").partition(" ")[0]


def statements() -> list[str]:
    """DDL of an empty workspace."""
    tables = [
        f"CREATE TABLE {table} ({', '.join(_column(name, place) for place, name in enumerate(names))})"
        for table, names in COLUMNS.items()
    ]
    hidden = ("steps", "fold_strategy", "fold_artifacts", "shared_artifacts", "created_at")
    shown = ", ".join(f"c.{name}" for name in COLUMNS["chains"] if name not in hidden)
    view = f"""CREATE VIEW v_chain_summary AS SELECT {shown}, l.run_id, l.status AS pipeline_status
        FROM chains c JOIN pipelines l ON l.pipeline_id = c.pipeline_id WHERE c.chain_id IN (SELECT chain_id FROM
        predictions)"""
    return [*tables, _KEY, view, f"PRAGMA user_version = {VERSION}"]


def _column(name: str, place: int) -> str:
    return f"{name} {_TYPES.get(name, 'TEXT')}{'' if place else ' PRIMARY KEY'}"
