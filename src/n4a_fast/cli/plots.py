"""Plots of held-out predictions, as PNG files.

Owns the figures' look. Promises a file at the path it returns. Leaves scores and predictions to
the caller. Figures are made without pyplot, so they need no display and leave no global state.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from n4a_fast.cli.datasets import Array, Course, Dataset


def plot_regression(path: Path, dataset: Dataset, title: str, y_pred: Array, course_pred: Array | None) -> Path:
    """Predicted against measured with the 1:1 line; next to it the prediction over time, if there is a course."""
    figure = Figure(figsize=(11, 5) if course_pred is not None else (5.5, 5), layout="constrained")
    panels = figure.subplots(1, 2 if course_pred is not None else 1, squeeze=False)[0]
    _draw_scatter(panels[0], dataset, y_pred)
    if course_pred is not None and dataset.course is not None:
        _draw_course(panels[1], dataset.course, course_pred, dataset.quantity)
    figure.suptitle(title)
    figure.savefig(path, dpi=120)
    return path


def plot_confusion(path: Path, dataset: Dataset, title: str, y_pred: Array) -> Path:
    """Confusion matrix of the held-out samples: how many of each class were called what."""
    count = len(dataset.classes)
    matrix = np.zeros((count, count), dtype=int)
    np.add.at(matrix, (dataset.y_test.astype(int), y_pred.astype(int)), 1)
    figure = Figure(figsize=(5.5, 5), layout="constrained")
    axes = figure.subplots()
    axes.imshow(matrix, cmap="Blues", vmin=0)
    for (row, column), number in np.ndenumerate(matrix):
        axes.text(
            column,
            row,
            str(number),
            ha="center",
            va="center",
            fontsize=14,
            color="white" if number > matrix.max() / 2 else "black",
        )
    axes.set_xticks(range(count), dataset.classes)
    axes.set_yticks(range(count), dataset.classes)
    axes.set_xlabel(f"predicted {dataset.quantity}")
    axes.set_ylabel(f"true {dataset.quantity}")
    axes.set_title(f"{np.trace(matrix)} of {matrix.sum()} held-out samples right", fontsize=10)
    figure.suptitle(title)
    figure.savefig(path, dpi=120)
    return path


def _draw_scatter(axes: Axes, dataset: Dataset, y_pred: Array) -> None:
    measured = dataset.y_test
    error = y_pred - measured
    rmse = float(np.sqrt(np.mean(error**2)))
    r2 = 1 - float(np.sum(error**2) / np.sum((measured - measured.mean()) ** 2))
    low, high = min(measured.min(), y_pred.min()), max(measured.max(), y_pred.max())
    margin = 0.05 * (high - low)
    limits = (low - margin, high + margin)
    axes.plot(limits, limits, color="0.6", linewidth=1, label="1:1")
    axes.scatter(measured, y_pred, s=28, alpha=0.8, edgecolor="none")
    axes.set(
        xlim=limits,
        ylim=limits,
        aspect="equal",
        xlabel=f"measured {dataset.quantity}",
        ylabel=f"predicted {dataset.quantity}",
    )
    axes.set_title(f"{len(measured)} held-out samples: RMSE {rmse:.2f}, R² {r2:.3f}", fontsize=10)
    axes.legend(frameon=False)


def _draw_course(axes: Axes, course: Course, predicted: Array, quantity: str) -> None:
    axes.plot(
        course.hours,
        predicted,
        color="tab:blue",
        linewidth=0.6,
        alpha=0.7,
        label=f"predicted from {len(predicted):,} spectra",
    )
    axes.scatter(course.reference_hours, course.reference, color="black", s=22, zorder=3, label="measured (HPLC)")
    axes.set(xlabel="hours", ylabel=quantity)
    axes.set_title("the whole fermentation, replayed from the store", fontsize=10)
    axes.legend(frameon=False)
