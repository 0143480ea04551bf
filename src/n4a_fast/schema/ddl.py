"""Every table and view of a store file, format version 2.

The seven documented names (runs pipelines chains predictions prediction_arrays artifacts logs)
have their documented columns and types. Two of them are views: `prediction_arrays` joins the
arrays stored per prediction with those stored once per content, and `artifacts` counts its
references from the chains. There are no primary or foreign keys: they cost two to four times
on insert and make an atomic cascade impossible, so the store itself checks ids. Predictions and their arrays have an
index each, of a number: only by an index does DuckDB read one row, where it reads 2,048 otherwise.
"""

from __future__ import annotations

from n4a_fast.schema import chain_scores

CHAIN_INPUT = "ALTER TABLE chains ADD COLUMN input JSON"
COMPILE_ANEW = "DELETE FROM compiled_chains"  # derived; older ones do not know their input
_LABEL = "CASE WHEN isnan(code) THEN NULL ELSE labels[CAST(code AS INTEGER) + 1] END"
LABELS = f"""CREATE VIEW prediction_labels AS
    SELECT prediction_id, labels AS classes,
        list_transform(codes_true, lambda code: {_LABEL}) AS y_true,
        list_transform(y_pred, lambda code: {_LABEL}) AS y_pred
    FROM (
        SELECT v.prediction_id, from_json(v.classes, '["VARCHAR"]') AS labels, t.array_values AS codes_true, v.y_pred
        FROM prediction_values v LEFT JOIN shared_arrays t ON t.content_hash = v.y_true_hash
        WHERE v.classes IS NOT NULL)"""
CLASSES = ("ALTER TABLE prediction_values ADD COLUMN classes VARCHAR", LABELS)
METRICS = """CREATE TABLE metrics (name VARCHAR, higher_is_better BOOLEAN, source VARCHAR)"""

# of format 2: which store this is, and how far its log has been applied
IDENTITY = (
    "ALTER TABLE store_info ADD COLUMN store_id VARCHAR",
    "ALTER TABLE store_info ADD COLUMN rewrites INTEGER",
    "ALTER TABLE store_info ADD COLUMN began_as INTEGER",
    "UPDATE store_info SET store_id = CAST(uuid() AS VARCHAR), rewrites = 0, began_as = 1",
    "CREATE TABLE log_positions (segment VARCHAR, applied UBIGINT)",
    "INSERT INTO log_positions SELECT journal, placed FROM journals",
    "DROP TABLE journals",
)

INDEXED = ("predictions", "prediction_values")  # by their `id_key`
_INDEX = {table: f"CREATE INDEX {table}_by_id ON {table} (id_key)" for table in INDEXED}
INDEXES = tuple(_INDEX.values())
INDEX_ANEW = {table: (f"DROP INDEX IF EXISTS {table}_by_id", create) for table, create in _INDEX.items()}

_TABLES = (
    # store_id: log segments carry it; rewrites: a vacuum's file has one more than the one whose path it takes;
    # began_as: the format that the file was made with
    """CREATE TABLE store_info (
        format_version INTEGER, written_by VARCHAR, created_at TIMESTAMP, store_id VARCHAR, rewrites INTEGER,
        began_as INTEGER)""",
    # by name of a log segment, the number of its last record that is in the tables
    """CREATE TABLE log_positions (segment VARCHAR, applied UBIGINT)""",
    # runs, and pipelines that had not ended, of which a process may still have rows in its log: they go as they come
    """CREATE TABLE deleted_runs (run_id VARCHAR)""",
    """CREATE TABLE runs (
        run_id VARCHAR, name VARCHAR, config JSON, datasets JSON, status VARCHAR,
        created_at TIMESTAMP, completed_at TIMESTAMP, summary JSON, error VARCHAR, project_id VARCHAR)""",
    """CREATE TABLE projects (
        project_id VARCHAR, name VARCHAR, description VARCHAR, color VARCHAR, created_at TIMESTAMP,
        updated_at TIMESTAMP)""",
    """CREATE TABLE pipelines (
        pipeline_id VARCHAR, run_id VARCHAR, name VARCHAR, expanded_config JSON, generator_choices JSON,
        dataset_name VARCHAR, dataset_hash VARCHAR, status VARCHAR, created_at TIMESTAMP, completed_at TIMESTAMP,
        best_val DOUBLE, best_test DOUBLE, metric VARCHAR, duration_ms BIGINT, error VARCHAR,
        original_template JSON)""",
    # input: what the chain was trained on, as far as it is known
    """CREATE TABLE chains (
        chain_id VARCHAR, pipeline_id VARCHAR, steps JSON, model_step_idx INTEGER, model_class VARCHAR,
        preprocessings VARCHAR, fold_strategy VARCHAR, fold_artifacts JSON, shared_artifacts JSON,
        branch_path JSON, source_index INTEGER, created_at TIMESTAMP, input JSON)""",
    # who uses which artifact: one row for each chain and artifact; a chain that has released one does not keep it
    """CREATE TABLE chain_artifacts (chain_id VARCHAR, artifact_id VARCHAR, released BOOLEAN)""",
    # nk: hash of the natural key (pipeline, chain, fold, partition, model name, branch), for replacing on a re-save;
    # id_key: prediction_id as a number; both in the order of time, so that zone maps find rows among millions, and an
    # index grows at its end
    """CREATE TABLE predictions (
        prediction_id VARCHAR, pipeline_id VARCHAR, chain_id VARCHAR, dataset_name VARCHAR, model_name VARCHAR,
        model_class VARCHAR, fold_id VARCHAR, partition VARCHAR, val_score DOUBLE, test_score DOUBLE,
        train_score DOUBLE,
        metric VARCHAR, task_type VARCHAR, n_samples INTEGER, n_features INTEGER, scores JSON, best_params JSON,
        preprocessings VARCHAR, branch_id INTEGER, branch_name VARCHAR, exclusion_count INTEGER, exclusion_rate DOUBLE,
        refit_context VARCHAR, created_at TIMESTAMP, nk UBIGINT, id_key UBIGINT)""",
    # values are row-major; *_width is the number of columns of a 2-D array, NULL for 1-D; classes: JSON, the labels
    # that the targets are places among, NULL for numbers
    """CREATE TABLE prediction_values (
        prediction_id VARCHAR, y_pred DOUBLE[], y_pred_width INTEGER, y_proba DOUBLE[], y_proba_width INTEGER,
        y_true_hash VARCHAR, sample_indices_hash VARCHAR, weights_hash VARCHAR, id_key UBIGINT, classes VARCHAR)""",
    # arrays that many predictions share, once per content
    """CREATE TABLE shared_arrays (content_hash VARCHAR, array_values DOUBLE[], width INTEGER)""",
    """CREATE TABLE shared_indices (content_hash VARCHAR, array_values BIGINT[])""",
    # what is known of each sample of a prediction, once per content
    """CREATE TABLE prediction_metadata (prediction_id VARCHAR, content_hash VARCHAR)""",
    """CREATE TABLE shared_metadata (content_hash VARCHAR, content JSON)""",
    # what a converted workspace held that has no column here, by row, so that it can be written back
    """CREATE TABLE carried (table_name VARCHAR, row_id VARCHAR, content JSON)""",
    # origin: saved, registered or imported; what was imported is unpickled with care. libraries: JSON, name to version
    """CREATE TABLE stored_artifacts (
        artifact_id VARCHAR, artifact_path VARCHAR, content_hash VARCHAR, operator_class VARCHAR, artifact_type VARCHAR,
        format VARCHAR, size_bytes BIGINT, chain_path_hash VARCHAR, input_data_hash VARCHAR, dataset_hash VARCHAR,
        created_at TIMESTAMP, origin VARCHAR, libraries VARCHAR)""",
    # a session that saved an artifact keeps it until its pipelines have ended
    """CREATE TABLE artifact_holds (artifact_id VARCHAR, holder VARCHAR)""",
    # linear chains as weights, kept under the hashes of what they were made from; derived, so they may be deleted at
    # any time
    """CREATE TABLE compiled_chains (
        chain_id VARCHAR, sources VARCHAR, made_with VARCHAR, recipe JSON, arrays VARCHAR[], weights DOUBLE[],
        intercept DOUBLE[])""",
    """CREATE TABLE compiled_arrays (content_hash VARCHAR, array_values DOUBLE[], width INTEGER)""",
    """CREATE TABLE logs (
        log_id VARCHAR, pipeline_id VARCHAR, step_idx INTEGER, operator_class VARCHAR, event VARCHAR,
        duration_ms BIGINT,
        message VARCHAR, details JSON, level VARCHAR, created_at TIMESTAMP)""",
    # whether higher values of a metric are better, where a user or a program has said so
    METRICS,
    *chain_scores.TABLES,
)

# grouped by the four keys alone, everything in one list, and joined afterwards: a third of the time and half of the
# memory of grouping by all columns. `within` limits the chains: a filter on the view itself would be applied to groups
AGGREGATED = """SELECT l.run_id, c.pipeline_id, g.chain_id, c.model_class, c.model_step_idx, c.preprocessings,
    c.branch_path, c.source_index, g.model_name, g.metric, g.dataset_name,
    len(list_distinct(list_transform(g.places, lambda place: place.fold_id))) AS fold_count,
    len(list_distinct(list_transform(g.places, lambda place: place.partition))) AS partition_count,
    list_sort(list_distinct(list_transform(g.places, lambda place: place.partition))) AS partitions,
    g.* EXCLUDE (chain_id, model_name, metric, dataset_name, places),
    list_transform(g.places, lambda place: place.prediction_id) AS prediction_ids,
    list_transform(g.places, lambda place: place.fold_id) AS fold_ids
FROM (
    SELECT chain_id, model_name, metric, dataset_name,
        min(val_score) AS min_val_score, max(val_score) AS max_val_score, avg(val_score) AS avg_val_score,
        min(test_score) AS min_test_score, max(test_score) AS max_test_score, avg(test_score) AS avg_test_score,
        min(train_score) AS min_train_score, max(train_score) AS max_train_score, avg(train_score) AS avg_train_score,
        list_sort(list({{'partition': partition, 'number': coalesce(TRY_CAST(fold_id AS INTEGER), 2147483647),
            'fold_id': fold_id, 'prediction_id': prediction_id}})) AS places
    FROM predictions WHERE refit_context IS NULL AND chain_id IS NOT NULL{within} GROUP BY ALL) g
JOIN chains c ON c.chain_id = g.chain_id JOIN pipelines l ON l.pipeline_id = c.pipeline_id"""

AGGREGATED_VIEW = f"CREATE OR REPLACE VIEW v_aggregated_predictions AS {AGGREGATED.format(within='')}"

ARTIFACTS = """SELECT a.artifact_id, a.artifact_path, a.content_hash, a.operator_class, a.artifact_type, a.format,
        a.size_bytes,
            CAST(coalesce(r.users, 0) AS INTEGER) AS ref_count,
            a.chain_path_hash, a.input_data_hash, a.dataset_hash, a.created_at
        FROM stored_artifacts a
        LEFT JOIN (
            SELECT artifact_id, count(*) AS users
            FROM (
                SELECT artifact_id FROM chain_artifacts WHERE released IS NOT TRUE
                UNION ALL SELECT artifact_id FROM artifact_holds)
            GROUP BY artifact_id) r ON r.artifact_id = a.artifact_id"""

ARTIFACTS_VIEW = f"CREATE OR REPLACE VIEW artifacts AS {ARTIFACTS}"
RELEASES = (
    "ALTER TABLE chain_artifacts ADD COLUMN released BOOLEAN",
    "UPDATE chain_artifacts SET released = false",
    ARTIFACTS_VIEW,
)

_VIEWS = (
    """CREATE VIEW prediction_arrays AS
        SELECT v.prediction_id, t.array_values AS y_true, v.y_pred, v.y_proba, i.array_values AS sample_indices,
            w.array_values AS weights
        FROM prediction_values v
        LEFT JOIN shared_arrays t ON t.content_hash = v.y_true_hash
        LEFT JOIN shared_indices i ON i.content_hash = v.sample_indices_hash
        LEFT JOIN shared_arrays w ON w.content_hash = v.weights_hash""",
    ARTIFACTS_VIEW,
    AGGREGATED_VIEW,
    LABELS,
    *chain_scores.VIEWS,
)

STATEMENTS = (*_TABLES, *INDEXES, *_VIEWS)
DOCUMENTED_NAMES = ("runs", "pipelines", "chains", "predictions", "prediction_arrays", "artifacts", "logs")
