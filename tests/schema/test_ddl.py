"""The file has the documented names, columns and types, for any DuckDB client."""

from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from helpers import PREDICTION, begin_sweep, plain_rows, predict

from n4a_fast import WorkspaceStore
from n4a_fast.schema import ddl
from n4a_fast.schema.columns import ALL, PREDICTIONS, table_of

DOCUMENTED = {
    "runs": "run_id name config datasets status created_at completed_at summary error",
    "pipelines": (
        "pipeline_id run_id name expanded_config generator_choices dataset_name dataset_hash status created_at"
        " completed_at best_val best_test metric duration_ms error"
    ),
    "chains": (
        "chain_id pipeline_id steps model_step_idx model_class preprocessings fold_strategy fold_artifacts"
        " shared_artifacts branch_path source_index created_at"
    ),
    "predictions": (
        "prediction_id pipeline_id chain_id dataset_name model_name model_class fold_id partition val_score test_score"
        " train_score metric task_type n_samples n_features scores best_params preprocessings branch_id branch_name"
        " exclusion_count exclusion_rate created_at"
    ),
    "prediction_arrays": "prediction_id y_true y_pred y_proba sample_indices weights",
    "artifacts": (
        "artifact_id artifact_path content_hash operator_class artifact_type format size_bytes ref_count created_at"
        " chain_path_hash input_data_hash dataset_hash"
    ),
    "logs": "log_id pipeline_id step_idx operator_class event duration_ms message details level created_at",
}
TYPES = {
    "DOUBLE": "best_val best_test val_score test_score train_score exclusion_rate",
    "INTEGER": "model_step_idx source_index n_samples n_features branch_id exclusion_count ref_count step_idx",
    "BIGINT": "duration_ms size_bytes",
    "DOUBLE[]": "y_true y_pred y_proba weights",
    "BIGINT[]": "sample_indices",
    "JSON": (
        "config datasets summary expanded_config generator_choices steps fold_artifacts shared_artifacts branch_path"
        " scores best_params details"
    ),
    "TIMESTAMP": "created_at completed_at",
}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed store file with one prediction and its arrays."""
    root = tmp_path_factory.mktemp("file")
    with WorkspaceStore(root) as store:
        sweep = begin_sweep(store)
        prediction = predict(store, sweep.pipeline, sweep.chain)
        store.save_prediction_arrays(
            prediction, np.arange(5.0), np.arange(5.0), np.full((5, 2), 0.5), np.arange(5), np.ones(3)
        )
    return root / "store.duckdb"


def test_the_documented_names_are_those_of_the_package() -> None:
    assert set(ddl.DOCUMENTED_NAMES) == set(DOCUMENTED)


@pytest.mark.parametrize("table", DOCUMENTED)
def test_a_plain_client_finds_the_documented_columns_and_types(file: Path, table: str) -> None:
    described = {name: kind for name, kind, *_ in plain_rows(file, f"DESCRIBE {table}")}
    assert set(DOCUMENTED[table].split()) <= set(described)
    documented_type = {name: kind for kind, names in TYPES.items() for name in names.split()}
    for name in DOCUMENTED[table].split():
        assert described[name] == documented_type.get(name, "VARCHAR"), name


def test_a_plain_client_reads_arrays_as_lists(file: Path) -> None:
    rows = plain_rows(file, "SELECT y_true, y_pred, y_proba, sample_indices, weights FROM prediction_arrays")
    assert rows == [([0.0, 1, 2, 3, 4], [0.0, 1, 2, 3, 4], [0.5] * 10, [0, 1, 2, 3, 4], [1.0] * 3)]


def test_a_plain_client_reads_inside_json(file: Path) -> None:
    assert plain_rows(
        file, "SELECT CAST(scores->'val'->>'rmse' AS DOUBLE), best_params->>'n_components' FROM predictions"
    ) == [(0.1, "3")]
    assert plain_rows(file, "SELECT datasets->0->>'name' FROM runs") == [("corn",)]


@pytest.mark.parametrize("table", ALL)
def test_ddl_and_arrow_schema_agree(file: Path, table: str) -> None:
    with duckdb.connect(str(file), read_only=True) as connection:
        stored = connection.sql(f"SELECT * FROM {table} LIMIT 0").to_arrow_table().schema
    assert stored.names == ALL[table].names
    for column, wanted in zip(stored, ALL[table], strict=True):
        assert _plain(column.type) == wanted.type, column.name


def _plain(kind: pa.DataType) -> pa.DataType:
    """DuckDB's type without what it adds: list field names, JSON as an extension of text."""
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    return pa.list_(kind.value_type) if pa.types.is_list(kind) else kind


def test_tables_that_are_not_batched_are_for_bookkeeping(file: Path) -> None:
    tables = {
        name
        for (name,) in plain_rows(
            file, "SELECT table_name FROM information_schema.tables WHERE table_type = 'BASE TABLE'"
        )
    }
    caches = {"stale_chains", "cached_chain_scores", "cached_chain_summaries"}
    assert tables - set(ALL) == {"store_info", "log_positions", "deleted_runs"} | caches


def test_there_are_no_keys_and_indexes_of_numbers_alone(file: Path) -> None:
    indexed = plain_rows(file, "SELECT table_name, is_unique, expressions FROM duckdb_indexes() ORDER BY 1")
    assert indexed == [("prediction_values", False, "[id_key]"), ("predictions", False, "[id_key]")]
    assert plain_rows(
        file,
        "SELECT count(*) FROM duckdb_constraints() WHERE constraint_type IN ('PRIMARY KEY', 'FOREIGN KEY', 'UNIQUE')",
    ) == [(0,)]


def test_the_save_prediction_fields_are_columns() -> None:
    assert set(PREDICTION) <= set(PREDICTIONS.names)


def test_a_table_of_no_rows_keeps_its_types() -> None:
    assert table_of([], PREDICTIONS).schema == PREDICTIONS
