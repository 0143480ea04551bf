"""Every table and view of a store file, format version 2.

The seven documented names (runs pipelines chains predictions prediction_arrays artifacts logs)
have their documented columns and types. Two of them are views: `prediction_arrays` joins the
arrays stored per prediction with those stored once per content, and `artifacts` counts its
references from the chains. There are no primary or foreign keys: they cost two to four times
on insert and make an atomic cascade impossible, so the store itself checks ids.
"""

from __future__ import annotations

CHAIN_INPUT = "ALTER TABLE chains ADD COLUMN input JSON"
COMPILE_ANEW = "DELETE FROM compiled_chains"  # derived; older ones do not know their input
METRICS = """CREATE TABLE metrics (name VARCHAR, higher_is_better BOOLEAN, source VARCHAR)"""

# One row for each chain, data set and metric, from the chain's own folds: averaged predictions and refits do not count.
# A fold has the score of its own partition, or else the one its other rows name. `missing_folds` are folds without
# a finite validation score and those of which there is a model but no prediction.
_FOLDS_OF_CHAINS = """
    SELECT chain_id, dataset_name, metric, fold_id,
        {val} AS val, {test} AS test, {train} AS train,
        any_value(n_samples) FILTER (partition = 'val') AS n_val,
        any_value(model_name) AS model_name, any_value(task_type) AS task_type
    FROM ({predictions})
    WHERE chain_id IS NOT NULL AND refit_context IS NULL AND NOT suffix(fold_id, '_agg')
        AND fold_id NOT IN ('avg', 'w_avg', 'final')
    GROUP BY chain_id, dataset_name, metric, fold_id"""
_OF_PARTITION = "coalesce(avg({0}_score) FILTER (partition = '{0}'), avg({0}_score))"
# favg: the order in which threads add must not decide between equal chains
# sums of squares beyond 1e300 are out of DuckDB's range
_SPREAD = "CASE WHEN max(abs(val)) < 1e150 THEN stddev_samp(val) FILTER (abs(val) < 1e150) END"
_SCORES_OF_CHAINS = """SELECT f.chain_id, f.dataset_name, f.metric, f.model_name, f.task_type,
        CASE WHEN f.unscored = 0 AND f.missing = 0 THEN f.val END AS val_score, f.sd AS val_sd, f.folds,
        f.unscored + f.missing AS missing_folds, f.test_score, f.train_score, f.rmsecv
    FROM (
        SELECT s.*, greatest(len(list_filter(json_keys(c.fold_artifacts),
            lambda name: regexp_full_match(name, '(fold_?)?[0-9]+'))) - s.folds, 0) AS missing
        FROM (
            SELECT chain_id, dataset_name, metric, min(model_name) AS model_name, min(task_type) AS task_type,
                favg(val) FILTER (isfinite(val)) AS val, {spread} AS sd, count(*) AS folds,
                count(*) FILTER (val IS NULL OR NOT isfinite(val)) AS unscored,
                favg(test) FILTER (isfinite(test)) AS test_score, favg(train) FILTER (isfinite(train)) AS train_score,
                CASE WHEN metric = 'rmse' AND max(abs(val)) < 1e150
                    THEN sqrt(sum(n_val * val * val) FILTER (abs(val) < 1e150) / sum(n_val)) END AS rmsecv
            FROM ({folds}) GROUP BY chain_id, dataset_name, metric) s
        LEFT JOIN chains c ON c.chain_id = s.chain_id) f"""


def scores_of_chains(predictions: str, val: str, test: str, train: str) -> str:
    """SELECT of `chain_scores` from rows of predictions, with these expressions as the scores of a fold."""
    folds = _FOLDS_OF_CHAINS.format(predictions=predictions, val=val, test=test, train=train)
    return _SCORES_OF_CHAINS.format(folds=folds, spread=_SPREAD)


CHAIN_SCORES = "CREATE VIEW chain_scores AS " + scores_of_chains(
    "FROM predictions", *(_OF_PARTITION.format(name) for name in ("val", "test", "train"))
)

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

_TABLES = (
    # store_id: log segments carry it; rewrites: a vacuum's file has one more than the one whose path it takes;
    # began_as: the format that the file was made with
    """CREATE TABLE store_info (
        format_version INTEGER, written_by VARCHAR, created_at TIMESTAMP, store_id VARCHAR, rewrites INTEGER,
        began_as INTEGER)""",
    # by name of a log segment, the number of its last record that is in the tables
    """CREATE TABLE log_positions (segment VARCHAR, applied UBIGINT)""",
    # runs that a process may still have rows of in its log: they go as they come
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
    # who uses which artifact: one row for each chain and artifact
    """CREATE TABLE chain_artifacts (chain_id VARCHAR, artifact_id VARCHAR)""",
    # nk: hash of the natural key (pipeline, chain, fold, partition, model name, branch), for replacing on a re-save;
    # id_key: prediction_id as a number; both in the order of time, so that zone maps find rows among millions
    """CREATE TABLE predictions (
        prediction_id VARCHAR, pipeline_id VARCHAR, chain_id VARCHAR, dataset_name VARCHAR, model_name VARCHAR,
        model_class VARCHAR, fold_id VARCHAR, partition VARCHAR, val_score DOUBLE, test_score DOUBLE,
        train_score DOUBLE,
        metric VARCHAR, task_type VARCHAR, n_samples INTEGER, n_features INTEGER, scores JSON, best_params JSON,
        preprocessings VARCHAR, branch_id INTEGER, branch_name VARCHAR, exclusion_count INTEGER, exclusion_rate DOUBLE,
        refit_context VARCHAR, created_at TIMESTAMP, nk UBIGINT, id_key UBIGINT)""",
    # values are row-major; *_width is the number of columns of a 2-D array, NULL for 1-D
    """CREATE TABLE prediction_values (
        prediction_id VARCHAR, y_pred DOUBLE[], y_pred_width INTEGER, y_proba DOUBLE[], y_proba_width INTEGER,
        y_true_hash VARCHAR, sample_indices_hash VARCHAR, weights_hash VARCHAR, id_key UBIGINT)""",
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
)

# `which` limits the chains: a filter on the view itself would be applied only after all means were computed
CHAIN_SUMMARY = """SELECT s.* EXCLUDE (final_test_score, final_train_score, final_scores, final_agg_test_score,
final_agg_train_score,
    final_agg_scores, run_id, pipeline_status),
    m.cv_scores, s.final_test_score, s.final_train_score, s.final_scores, s.final_agg_test_score,
    s.final_agg_train_score, s.final_agg_scores, s.run_id, s.pipeline_status
FROM (FROM v_chain_scores WHERE {which}) s
LEFT JOIN (
    SELECT chain_id, to_json(map(list(partition ORDER BY partition), list(means ORDER BY partition))) AS cv_scores
    FROM (
        SELECT chain_id, partition, map(list(name ORDER BY name), list(round(mean, 6) ORDER BY name)) AS means
        FROM (
            SELECT chain_id, partition, score.key AS name, avg(CAST(score.value AS DOUBLE)) AS mean
            FROM (
                SELECT chain_id, partition, unnest(map_entries(CAST(
                    CASE WHEN json_type(scores, partition) = 'OBJECT' THEN scores->partition ELSE scores END AS
                    MAP(VARCHAR, JSON)))) AS score
                FROM predictions
                WHERE {which} AND refit_context IS NULL AND partition IN ('train', 'val', 'test') AND NOT
                suffix(fold_id, '_agg')
                    AND fold_id NOT IN ('avg', 'w_avg') AND json_type(scores) = 'OBJECT')
            WHERE json_type(score.value) IN ('DOUBLE', 'BIGINT', 'UBIGINT') AND isfinite(CAST(score.value AS DOUBLE))
            GROUP BY ALL)
        GROUP BY chain_id, partition)
    GROUP BY chain_id) m ON m.chain_id = s.chain_id"""

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

_VIEWS = (
    """CREATE VIEW prediction_arrays AS
        SELECT v.prediction_id, t.array_values AS y_true, v.y_pred, v.y_proba, i.array_values AS sample_indices,
            w.array_values AS weights
        FROM prediction_values v
        LEFT JOIN shared_arrays t ON t.content_hash = v.y_true_hash
        LEFT JOIN shared_indices i ON i.content_hash = v.sample_indices_hash
        LEFT JOIN shared_arrays w ON w.content_hash = v.weights_hash""",
    """CREATE VIEW artifacts AS
        SELECT a.artifact_id, a.artifact_path, a.content_hash, a.operator_class, a.artifact_type, a.format,
        a.size_bytes,
            CAST(coalesce(r.users, 0) AS INTEGER) AS ref_count,
            a.chain_path_hash, a.input_data_hash, a.dataset_hash, a.created_at
        FROM stored_artifacts a
        LEFT JOIN (
            SELECT artifact_id, count(*) AS users
            FROM (SELECT artifact_id FROM chain_artifacts UNION ALL SELECT artifact_id FROM artifact_holds)
            GROUP BY artifact_id) r ON r.artifact_id = a.artifact_id""",
    AGGREGATED_VIEW,
    # one row per chain with predictions; folds count without their averages, and scores that are no number count as
    # missing
    """CREATE VIEW v_chain_scores AS
        SELECT c.chain_id, c.pipeline_id, c.model_class, c.model_step_idx, s.model_name, c.preprocessings,
        c.branch_path,
            c.source_index, s.metric, s.task_type, s.best_params, l.dataset_name, s.cv_val_score, s.cv_test_score,
            s.cv_train_score, s.cv_fold_count, s.final_test_score, s.final_train_score, s.final_scores,
            s.final_agg_test_score, s.final_agg_train_score, s.final_agg_scores, l.run_id, l.status AS pipeline_status
        FROM chains c
        JOIN pipelines l ON l.pipeline_id = c.pipeline_id
        JOIN (
            SELECT chain_id,
                arg_min(model_name, place) AS model_name, arg_min(metric, place) AS metric,
                arg_min(task_type, place) AS task_type, arg_min(best_params, place) FILTER (best_params <> '{}') AS
                best_params,
                avg(val_score) FILTER (is_fold AND NOT isnan(val_score)) AS cv_val_score,
                avg(test_score) FILTER (is_fold AND NOT isnan(test_score)) AS cv_test_score,
                avg(train_score) FILTER (is_fold AND NOT isnan(train_score)) AS cv_train_score,
                CAST(count(DISTINCT nullif(fold_id, '')) FILTER (is_fold) AS INTEGER) AS cv_fold_count,
                arg_min(test_score, place) FILTER (is_final AND partition = 'test') AS final_test_score,
                coalesce(arg_min(train_score, place) FILTER (is_final AND partition = 'test'),
                    arg_min(train_score, place) FILTER (is_final AND partition = 'train')) AS final_train_score,
                coalesce(arg_min(scores, place) FILTER (is_final AND partition = 'test'),
                    arg_min(scores, place) FILTER (is_final AND partition = 'train')) AS final_scores,
                arg_min(test_score, place) FILTER (fold_id = 'final_agg' AND partition = 'test') AS
                final_agg_test_score,
                arg_min(train_score, place) FILTER (fold_id = 'final_agg' AND partition = 'test') AS
                final_agg_train_score,
                arg_min(scores, place) FILTER (fold_id = 'final_agg' AND partition = 'test') AS final_agg_scores
            FROM (
                SELECT *, {'refit': refit_context IS NOT NULL, 'at': created_at, 'id': prediction_id} AS place,
                    refit_context IS NULL AND NOT suffix(fold_id, '_agg') AND fold_id NOT IN ('avg', 'w_avg') AS
                    is_fold,
                    refit_context IS NOT NULL AND fold_id = 'final' AS is_final
                FROM predictions WHERE chain_id IS NOT NULL)
            GROUP BY chain_id) s ON s.chain_id = c.chain_id""",
    # the same with the folds' mean of every metric that is a number, which costs more
    f"CREATE VIEW v_chain_summary AS {CHAIN_SUMMARY.format(which='true')}",
    CHAIN_SCORES,
)

STATEMENTS = (*_TABLES, *_VIEWS)
DOCUMENTED_NAMES = ("runs", "pipelines", "chains", "predictions", "prediction_arrays", "artifacts", "logs")
