"""The Arrow schema of every table that is written in batches, in the order of its DDL."""

from __future__ import annotations

import pyarrow as pa

_TEXT, _INT, _BIG, _REAL, _TIME = pa.string(), pa.int32(), pa.int64(), pa.float64(), pa.timestamp("us")


def _schema(**columns: pa.DataType) -> pa.Schema:
    return pa.schema(list(columns.items()))


RUNS = _schema(
    run_id=_TEXT,
    name=_TEXT,
    config=_TEXT,
    datasets=_TEXT,
    status=_TEXT,
    created_at=_TIME,
    completed_at=_TIME,
    summary=_TEXT,
    error=_TEXT,
    project_id=_TEXT,
)
PROJECTS = _schema(project_id=_TEXT, name=_TEXT, description=_TEXT, color=_TEXT, created_at=_TIME, updated_at=_TIME)
PIPELINES = _schema(
    pipeline_id=_TEXT,
    run_id=_TEXT,
    name=_TEXT,
    expanded_config=_TEXT,
    generator_choices=_TEXT,
    dataset_name=_TEXT,
    dataset_hash=_TEXT,
    status=_TEXT,
    created_at=_TIME,
    completed_at=_TIME,
    best_val=_REAL,
    best_test=_REAL,
    metric=_TEXT,
    duration_ms=_BIG,
    error=_TEXT,
    original_template=_TEXT,
)
CHAINS = _schema(
    chain_id=_TEXT,
    pipeline_id=_TEXT,
    steps=_TEXT,
    model_step_idx=_INT,
    model_class=_TEXT,
    preprocessings=_TEXT,
    fold_strategy=_TEXT,
    fold_artifacts=_TEXT,
    shared_artifacts=_TEXT,
    branch_path=_TEXT,
    source_index=_INT,
    created_at=_TIME,
    input=_TEXT,
)
CHAIN_ARTIFACTS = _schema(chain_id=_TEXT, artifact_id=_TEXT, released=pa.bool_())
PREDICTIONS = _schema(
    prediction_id=_TEXT,
    pipeline_id=_TEXT,
    chain_id=_TEXT,
    dataset_name=_TEXT,
    model_name=_TEXT,
    model_class=_TEXT,
    fold_id=_TEXT,
    partition=_TEXT,
    val_score=_REAL,
    test_score=_REAL,
    train_score=_REAL,
    metric=_TEXT,
    task_type=_TEXT,
    n_samples=_INT,
    n_features=_INT,
    scores=_TEXT,
    best_params=_TEXT,
    preprocessings=_TEXT,
    branch_id=_INT,
    branch_name=_TEXT,
    exclusion_count=_INT,
    exclusion_rate=_REAL,
    refit_context=_TEXT,
    created_at=_TIME,
    nk=pa.uint64(),
    id_key=pa.uint64(),
)
PREDICTION_VALUES = _schema(
    prediction_id=_TEXT,
    y_pred=pa.list_(_REAL),
    y_pred_width=_INT,
    y_proba=pa.list_(_REAL),
    y_proba_width=_INT,
    y_true_hash=_TEXT,
    sample_indices_hash=_TEXT,
    weights_hash=_TEXT,
    id_key=pa.uint64(),
    classes=_TEXT,
)
SHARED_ARRAYS = _schema(content_hash=_TEXT, array_values=pa.list_(_REAL), width=_INT)
SHARED_INDICES = _schema(content_hash=_TEXT, array_values=pa.list_(_BIG))
PREDICTION_METADATA = _schema(prediction_id=_TEXT, content_hash=_TEXT)
SHARED_METADATA = _schema(content_hash=_TEXT, content=_TEXT)
CARRIED = _schema(table_name=_TEXT, row_id=_TEXT, content=_TEXT)
STORED_ARTIFACTS = _schema(
    artifact_id=_TEXT,
    artifact_path=_TEXT,
    content_hash=_TEXT,
    operator_class=_TEXT,
    artifact_type=_TEXT,
    format=_TEXT,
    size_bytes=_BIG,
    chain_path_hash=_TEXT,
    input_data_hash=_TEXT,
    dataset_hash=_TEXT,
    created_at=_TIME,
    origin=_TEXT,
    libraries=_TEXT,
)
ARTIFACT_HOLDS = _schema(artifact_id=_TEXT, holder=_TEXT)
COMPILED_CHAINS = _schema(
    chain_id=_TEXT,
    sources=_TEXT,
    made_with=_TEXT,
    recipe=_TEXT,
    arrays=pa.list_(_TEXT),
    weights=pa.list_(_REAL),
    intercept=pa.list_(_REAL),
)
COMPILED_ARRAYS = _schema(content_hash=_TEXT, array_values=pa.list_(_REAL), width=_INT)
LOGS = _schema(
    log_id=_TEXT,
    pipeline_id=_TEXT,
    step_idx=_INT,
    operator_class=_TEXT,
    event=_TEXT,
    duration_ms=_BIG,
    message=_TEXT,
    details=_TEXT,
    level=_TEXT,
    created_at=_TIME,
)

METRICS = _schema(name=_TEXT, higher_is_better=pa.bool_(), source=_TEXT)
# the same where JSON is what this package has encoded: DuckDB need not parse it again, a tenth of inserting predictions
_JSON = pa.field("", _TEXT, metadata={"ARROW:extension:name": "arrow.json", "ARROW:extension:metadata": ""})
PREDICTIONS_ENCODED = pa.schema(
    [_JSON.with_name(field.name) if field.name in ("scores", "best_params") else field for field in PREDICTIONS]
)

LOOKUP_COLUMNS = ("nk", "id_key")  # of the predictions tables; not part of what is documented
# SQL: one of these within two bounds. Their type is said: of Python's numbers DuckDB makes signed ones, and casts the
# bounds of each row group before it compares (6.6 ms instead of 2.2 among nine million rows)
WITHIN = "BETWEEN ?::UBIGINT AND ?::UBIGINT"
# SQL: the prediction with this key and id; that two rows are of one prediction. DuckDB looks a key up in its index
# where it asks a table for nothing else, so the id is compared by a term of two columns, the second never NULL
THIS_PREDICTION = "{0}.id_key = ?::UBIGINT AND ({0}.prediction_id = ? OR {0}.id_key IS NULL)"
SAME_PREDICTION = "{0}.id_key = {1}.id_key AND ({0}.prediction_id = {1}.prediction_id OR {0}.id_key IS NULL)"

ALL = {
    "runs": RUNS,
    "projects": PROJECTS,
    "pipelines": PIPELINES,
    "chains": CHAINS,
    "chain_artifacts": CHAIN_ARTIFACTS,
    "predictions": PREDICTIONS,
    "prediction_values": PREDICTION_VALUES,
    "shared_arrays": SHARED_ARRAYS,
    "shared_indices": SHARED_INDICES,
    "prediction_metadata": PREDICTION_METADATA,
    "shared_metadata": SHARED_METADATA,
    "carried": CARRIED,
    "stored_artifacts": STORED_ARTIFACTS,
    "artifact_holds": ARTIFACT_HOLDS,
    "logs": LOGS,
    "compiled_chains": COMPILED_CHAINS,
    "compiled_arrays": COMPILED_ARRAYS,
    "metrics": METRICS,
}


def table_of(rows: list[tuple[object, ...]], schema: pa.Schema) -> pa.Table:
    """An Arrow table of `schema` from row tuples."""
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(schema)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)
