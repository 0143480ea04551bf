"""The demo's real spectra, split into training and held-out rows.

Owns how the two data sets of the MIT package `chemotools` become arrays. Promises the same rows
on every call and spectra that are finite. Leaves preprocessing and models to `sweep`.

Fermentation: the on-line spectra carry no clock. The data set's documentation says one every
1.25 minutes, which makes 1,629 spectra last 33.9 h, as the HPLC samples do; each HPLC sample is
therefore compared with the nearest spectrum. The last three spectra are the same constant at
every wavenumber, hold no signal, and are left out.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from chemotools import datasets as chemotools_datasets
from sklearn.model_selection import train_test_split

Array = np.ndarray[Any, Any]

HOURS_PER_SPECTRUM = 1.25 / 60
SUGAR_BAND = (950.0, 1200.0)  # cm-1: the C-O stretching of sugars; outside of it the cell and water dominate
HELD_OUT_COFFEES = 18


@dataclass(frozen=True, slots=True)
class Course:
    """Spectra over time, `hours` after the start, with reference values at other times."""

    hours: Array
    X: Array
    reference_hours: Array
    reference: Array


@dataclass(frozen=True, slots=True)
class Dataset:
    """Spectra (rows) with reference values; the `test` rows are never seen in training.

    `test_rows` are the rows of the file that `X_test` was taken from, `band` the columns worth using,
    `classes` the names behind the numbers in y, empty for a regression.
    """

    name: str
    title: str
    quantity: str
    X_train: Array
    y_train: Array
    X_test: Array
    y_test: Array
    train_rows: Array
    test_rows: Array
    band: tuple[int, int]
    classes: tuple[str, ...] = ()
    course: Course | None = None

    @property
    def task(self) -> str:
        """ "classification" or "regression"."""
        return "classification" if self.classes else "regression"

    @property
    def hash(self) -> str:
        """sha256 over all arrays, in the order of the fields."""
        digest = hashlib.sha256()
        for array in (self.X_train, self.y_train, self.X_test, self.y_test):
            digest.update(np.ascontiguousarray(array).tobytes())
        return f"sha256:{digest.hexdigest()}"


def load_fermentation() -> Dataset:
    """Glucose (g/L): 21 laboratory mixtures to train on, the HPLC samples of a real fermentation held out."""
    spectra, reference = chemotools_datasets.load_fermentation_train(set_output="polars")
    online, hplc = chemotools_datasets.load_fermentation_test(set_output="polars")
    X_online = online.to_numpy()
    usable = np.flatnonzero(X_online.std(axis=1) > 0)
    hours = usable * HOURS_PER_SPECTRUM
    sampled, glucose = hplc["time"].to_numpy(), hplc["glucose"].to_numpy()
    nearest = np.abs(hours[None, :] - sampled[:, None]).argmin(axis=1)
    wavenumbers = np.array(spectra.columns, dtype=float)
    return Dataset(
        name="fermentation",
        title="glucose in a fermentation (mid-infrared)",
        quantity="glucose (g/L)",
        X_train=spectra.to_numpy(),
        y_train=reference["glucose"].to_numpy(),
        train_rows=np.arange(len(spectra)),
        X_test=X_online[usable[nearest]],
        y_test=glucose,
        test_rows=usable[nearest],
        band=(int(np.searchsorted(wavenumbers, SUGAR_BAND[0])), int(np.searchsorted(wavenumbers, SUGAR_BAND[1]))),
        course=Course(hours, X_online[usable], sampled, glucose),
    )


def load_coffee() -> Dataset:
    """Country of origin: 60 coffees of three countries, 18 of them held out, the countries in equal parts."""
    spectra, labels = chemotools_datasets.load_coffee(set_output="polars")
    X = spectra.to_numpy()
    classes, codes = np.unique(labels["labels"].to_numpy().astype(str), return_inverse=True)
    train, test = train_test_split(np.arange(len(X)), test_size=HELD_OUT_COFFEES, stratify=codes, random_state=0)
    train, test = np.sort(train), np.sort(test)
    return Dataset(
        name="coffee",
        title="country of origin of coffee (mid-infrared)",
        quantity="country",
        X_train=X[train],
        y_train=codes[train],
        train_rows=train,
        X_test=X[test],
        y_test=codes[test],
        test_rows=test,
        band=(0, X.shape[1]),
        classes=tuple(str(name) for name in classes),
    )
