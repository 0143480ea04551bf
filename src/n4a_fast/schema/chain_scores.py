"""What is known of each chain from its predictions: the definitions, and the tables that hold what they give.

`chain_scores` has a row for each chain, data set and metric and is what chains are ranked by; `v_chain_summary` has
one for each chain. Both are views, right at every moment: rows of the chains in `stale_chains` are computed from the
predictions, all others come from the tables `cached_...`. Whoever changes predictions, chains or pipelines notes the
chains as stale in the same commit; whoever reads may refresh them (`tables/stale_chains`). One text defines the rows,
for the views, for the refresh and for `verify`.
"""

from __future__ import annotations

_SCORED = "coalesce(metric, '') <> ''"  # what is predicted of new spectra is kept with its chain, and scores nothing
# A fold has the score of its own partition, or else the one its other rows name. `missing_folds` are folds without
# a finite validation score and those of which there is a model but no prediction. Where rows of a fold differ, the
# same one is told each time, whatever the order in which threads read.
_FOLDS = """SELECT chain_id, dataset_name, metric, fold_id, {val} AS val, {test} AS test, {train} AS train,
        max(n_samples) FILTER (partition = 'val') AS n_val, min(model_name) AS model_name, min(task_type) AS task_type
    FROM ({predictions})
    WHERE chain_id IS NOT NULL AND refit_context IS NULL AND NOT suffix(fold_id, '_agg')
        AND fold_id NOT IN ('avg', 'w_avg', 'final') AND {scored}
    GROUP BY chain_id, dataset_name, metric, fold_id"""
_OF_PARTITION = "coalesce(avg({0}_score) FILTER (partition = '{0}'), avg({0}_score))"
# sums of squares beyond 1e300 are out of DuckDB's range
_SPREAD = "CASE WHEN max(abs(val)) < 1e150 THEN stddev_samp(val) FILTER (abs(val) < 1e150) END"
_MODELS = """len(list_filter(json_keys(c.fold_artifacts),
        lambda name: regexp_full_match(name, '(fold_?)?[0-9]+')))"""
# favg: the order in which threads add must not decide between equal chains
_SCORES = """SELECT s.chain_id, s.dataset_name, s.metric, l.run_id, c.pipeline_id, l.status AS pipeline_status,
    c.created_at, c.model_class, c.preprocessings, s.model_name, s.task_type, s.val_sd, s.folds,
    s.unscored + greatest({models} - s.folds, 0) AS missing_folds,
    CASE WHEN missing_folds = 0 THEN s.val END AS val_score, s.test_score, s.train_score, o.final_score, s.rmsecv,
    o.best_params
FROM (
    SELECT chain_id, dataset_name, metric, min(model_name) AS model_name, min(task_type) AS task_type,
        favg(val) FILTER (isfinite(val)) AS val, {spread} AS val_sd, count(*) AS folds,
        count(*) FILTER (val IS NULL OR NOT isfinite(val)) AS unscored,
        favg(test) FILTER (isfinite(test)) AS test_score, favg(train) FILTER (isfinite(train)) AS train_score,
        CASE WHEN metric = 'rmse' AND max(abs(val)) < 1e150
            THEN sqrt(sum(n_val * val * val) FILTER (abs(val) < 1e150) / sum(n_val)) END AS rmsecv
    FROM ({folds}) GROUP BY chain_id, dataset_name, metric) s
JOIN chains c ON c.chain_id = s.chain_id
JOIN pipelines l ON l.pipeline_id = c.pipeline_id
JOIN (
    SELECT chain_id, favg(test_score) FILTER (refit_context IS NOT NULL AND fold_id = 'final' AND partition = 'test'
            AND isfinite(test_score)) AS final_score,
        arg_min(best_params, {{'at': created_at, 'id': prediction_id}}) FILTER (best_params <> '{{}}') AS best_params
    FROM ({predictions}) GROUP BY chain_id) o ON o.chain_id = s.chain_id"""

# folds count without their averages, and scores that are no number count as missing
_SUMMARIES = """SELECT c.chain_id, c.pipeline_id, c.model_class, c.model_step_idx, s.model_name, c.preprocessings,
    c.branch_path, c.source_index, s.metric, s.task_type, s.best_params, l.dataset_name,
    s.cv_val_score, s.cv_test_score, s.cv_train_score, s.cv_fold_count, m.cv_scores,
    s.final_test_score, s.final_train_score, s.final_scores,
    s.final_agg_test_score, s.final_agg_train_score, s.final_agg_scores, l.run_id, l.status AS pipeline_status,
    s.first_nk, s.last_nk, s.predictions
FROM (
    SELECT chain_id,
        arg_min(model_name, place) AS model_name, arg_min(metric, place) AS metric,
        arg_min(task_type, place) AS task_type,
        arg_min(best_params, place) FILTER (best_params <> '{{}}') AS best_params,
        favg(val_score) FILTER (is_fold AND NOT isnan(val_score)) AS cv_val_score,
        favg(test_score) FILTER (is_fold AND NOT isnan(test_score)) AS cv_test_score,
        favg(train_score) FILTER (is_fold AND NOT isnan(train_score)) AS cv_train_score,
        CAST(count(DISTINCT nullif(fold_id, '')) FILTER (is_fold) AS INTEGER) AS cv_fold_count,
        arg_min(test_score, place) FILTER (is_final AND partition = 'test') AS final_test_score,
        coalesce(arg_min(train_score, place) FILTER (is_final AND partition = 'test'),
            arg_min(train_score, place) FILTER (is_final AND partition = 'train')) AS final_train_score,
        coalesce(arg_min(scores, place) FILTER (is_final AND partition = 'test'),
            arg_min(scores, place) FILTER (is_final AND partition = 'train')) AS final_scores,
        arg_min(test_score, place) FILTER (fold_id = 'final_agg' AND partition = 'test') AS final_agg_test_score,
        arg_min(train_score, place) FILTER (fold_id = 'final_agg' AND partition = 'test') AS final_agg_train_score,
        arg_min(scores, place) FILTER (fold_id = 'final_agg' AND partition = 'test') AS final_agg_scores,
        min(nk) AS first_nk, max(nk) AS last_nk, count(*) AS predictions
    FROM (
        SELECT *,
            {{'new': NOT {scored}, 'refit': refit_context IS NOT NULL, 'at': created_at, 'id': prediction_id}} AS place,
            refit_context IS NULL AND NOT suffix(fold_id, '_agg') AND fold_id NOT IN ('avg', 'w_avg') AND {scored}
                AS is_fold,
            refit_context IS NOT NULL AND fold_id = 'final' AS is_final
        FROM ({predictions}) WHERE chain_id IS NOT NULL)
    GROUP BY chain_id) s
JOIN chains c ON c.chain_id = s.chain_id
JOIN pipelines l ON l.pipeline_id = c.pipeline_id
LEFT JOIN ({means}) m ON m.chain_id = s.chain_id"""
# the folds' mean of every metric that is a number
_MEANS = """SELECT chain_id,
    to_json(map(list(partition ORDER BY partition), list(means ORDER BY partition))) AS cv_scores
FROM (
    SELECT chain_id, partition, map(list(name ORDER BY name), list(round(mean, 6) ORDER BY name)) AS means
    FROM (
        SELECT chain_id, partition, score.key AS name, favg(CAST(score.value AS DOUBLE)) AS mean
        FROM (
            SELECT chain_id, partition, unnest(map_entries(CAST(
                CASE WHEN json_type(scores, partition) = 'OBJECT' THEN scores->partition ELSE scores END AS
                MAP(VARCHAR, JSON)))) AS score
            FROM ({predictions})
            WHERE refit_context IS NULL AND partition IN ('train', 'val', 'test') AND NOT suffix(fold_id, '_agg')
                AND fold_id NOT IN ('avg', 'w_avg') AND json_type(scores) = 'OBJECT')
        WHERE json_type(score.value) IN ('DOUBLE', 'BIGINT', 'UBIGINT') AND isfinite(CAST(score.value AS DOUBLE))
        GROUP BY ALL)
    GROUP BY chain_id, partition)
GROUP BY chain_id"""


def scores_of(predictions: str, val: str | None = None, test: str | None = None, train: str | None = None) -> str:
    """SELECT of the rows of `chain_scores` from a SELECT of predictions; other expressions than their own scores may
    be given as the scores of a fold.
    """
    given = {"val": val, "test": test, "train": train}
    scores = {name: text or _OF_PARTITION.format(name) for name, text in given.items()}
    folds = _FOLDS.format(predictions=predictions, scored=_SCORED, **scores)
    return _SCORES.format(folds=folds, spread=_SPREAD, models=_MODELS, predictions=predictions)


def summaries_of(predictions: str) -> str:
    """SELECT of the rows of `cached_chain_summaries` from a SELECT of predictions."""
    return _SUMMARIES.format(means=_MEANS.format(predictions=predictions), predictions=predictions, scored=_SCORED)


_STALE = "FROM predictions SEMI JOIN stale_chains USING (chain_id)"
BOOKKEEPING = "first_nk, last_nk, predictions"  # where the predictions of a chain are, and how many

TABLES = (
    # chains whose cached rows are not to be used, with the first and last `nk` and the number of the predictions that
    # changed; NULL: not known
    "CREATE TABLE stale_chains (chain_id VARCHAR, first_nk UBIGINT, last_nk UBIGINT, predictions BIGINT)",
    f"CREATE TABLE cached_chain_scores AS SELECT * FROM ({scores_of('FROM predictions')}) LIMIT 0",
    f"CREATE TABLE cached_chain_summaries AS SELECT * FROM ({summaries_of('FROM predictions')}) LIMIT 0",
)
# what the two views give; asked of the tables, since a view of a file finds the file's macros before DuckDB's functions
ALL_SCORES = f"""FROM cached_chain_scores ANTI JOIN stale_chains USING (chain_id)
        UNION ALL SELECT * FROM ({scores_of(_STALE)})"""
ALL_SUMMARIES = f"""SELECT * EXCLUDE ({BOOKKEEPING}) FROM cached_chain_summaries ANTI JOIN stale_chains USING (chain_id)
        UNION ALL SELECT * EXCLUDE ({BOOKKEEPING}) FROM ({summaries_of(_STALE)})"""
VIEWS = (f"CREATE VIEW chain_scores AS {ALL_SCORES}", f"CREATE VIEW v_chain_summary AS {ALL_SUMMARIES}")
NOTE_ALL = """INSERT INTO stale_chains SELECT chain_id, min(nk), max(nk), count(*) FROM predictions
    WHERE chain_id IS NOT NULL GROUP BY chain_id"""
# of format 2: nothing is cached yet
CACHED = (
    "DROP VIEW v_chain_scores",
    "DROP VIEW v_chain_summary",
    *TABLES,
    *VIEWS,
    NOTE_ALL,
)
