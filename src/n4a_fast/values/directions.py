"""Metrics whose direction is known: whether a higher value is the better one.

Names are compared without case, with spaces and hyphens as underscores, and with "²" as "2". A metric whose
best value lies in the middle, such as bias, has no direction.
"""

from __future__ import annotations

from n4a_fast.values import checks

_HIGHER = """
accuracy accuracy_score balanced_accuracy balanced_accuracy_score top_k_accuracy f1 f1_score f1_micro f1_macro
f1_weighted f1_samples precision precision_score precision_micro precision_macro precision_weighted precision_samples
average_precision balanced_precision recall recall_score recall_micro recall_macro recall_weighted recall_samples
balanced_recall sensitivity specificity auc roc_auc roc_auc_ovr roc_auc_ovo roc_auc_ovr_weighted roc_auc_ovo_weighted
kappa cohen_kappa cohen_kappa_score jaccard jaccard_score jaccard_samples jaccard_micro jaccard_macro jaccard_weighted
matthews_corrcoef mcc npv ppv g_mean r2 r2_score q2 r2cv r2p explained_variance explained_variance_score
d2_absolute_error_score d2_pinball_score d2_tweedie_score d2_log_loss_score d2_brier_score d2 pearson_r pearsonr
spearman_r spearmanr correlation positive_likelihood_ratio adjusted_mutual_info_score
adjusted_rand_score rand_score completeness_score homogeneity_score v_measure_score fowlkes_mallows_score
mutual_info_score normalized_mutual_info_score
silhouette_score calinski_harabasz_score ccc concordance lin_ccc nse kge rpd rpiq rer consistency
"""
_LOWER = """
rmse rmsecv rmsep rmsec mse mae medae median_ae median_absolute_error mean_absolute_error mean_squared_error
root_mean_squared_error mean_squared_log_error root_mean_squared_log_error msle rmsle max_error
mean_absolute_percentage_error mape smape nrmse nmse nmae sep secv sec see rse rrmse mean_pinball_loss
mean_poisson_deviance mean_gamma_deviance error error_rate misclassification hamming_loss hinge_loss zero_one_loss
log_loss logloss cross_entropy brier brier_score brier_score_loss loss
negative_likelihood_ratio davies_bouldin_score
"""
_KNOWN = dict.fromkeys(_HIGHER.split(), True) | dict.fromkeys(_LOWER.split(), False)


def same_name(metric: str) -> str:
    """The form under which names of a metric are compared."""
    return checks.text(metric, "metric").strip().lower().replace("²", "2").replace(" ", "_").replace("-", "_")


def known_direction(metric: str) -> bool | None:
    """Whether higher values of this metric are better; None for a name that is not known.

    Negated errors (`neg_...`), the names of scikit-learn's scorers for them, are better when they are higher.
    """
    name = same_name(metric)
    if name.startswith("neg_") and _KNOWN.get(name.removeprefix("neg_")) is False:
        return True
    return _KNOWN.get(name)
