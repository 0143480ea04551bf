"""A sample of the matrix (`make matrix` takes all): every way predicts what its estimator does, or names the step."""

from __future__ import annotations

import pytest
from matrix import WAYS, Cell, cases, estimators, measured

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore")]

# one of each kind: linear, kernel, ties, votes without probabilities, boosting, single precision, an operator
SAMPLE = [
    "KNeighborsClassifier",
    "PLSRegression",
    "RidgeClassifier",
    "SVR",
    "XGBRegressor",
    "chemotools AsLs",
]
VARIANTS = ("five folds", "target steps", "two targets", "text labels")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], list[Cell]]:
    made = estimators()
    listed = [case for name in SAMPLE if name in made for case in cases(name, made[name], VARIANTS)]
    return measured(listed, tmp_path_factory.mktemp("matrix"))


@pytest.mark.parametrize("name", SAMPLE)
def test_every_way_predicts_alike(found: dict[tuple[str, str], list[Cell]], name: str) -> None:
    if name not in estimators():
        pytest.skip(f"{name}: its library is not installed")
    cells = {variant: listed for (one, variant), listed in found.items() if one == name}
    assert cells
    assert all({cell.way for cell in listed} == set(WAYS) for listed in cells.values())
    assert [(variant, cell) for variant, listed in cells.items() for cell in listed if cell.wrong] == []


def test_what_is_refused_is_refused_for_a_reason(found: dict[tuple[str, str], list[Cell]]) -> None:
    refused = {(*key, cell.way) for key, listed in found.items() for cell in listed if cell.refused}
    in_files = ("bundle", "imported", "script")
    votes = {("RidgeClassifier", one) for one in ("five folds", "target steps", "text labels")}
    assert {one for one in refused if one[2] in in_files and one[:2] in votes} == {
        (*one, way) for one in votes for way in in_files
    }
    assert {one[:2] for one in refused if one[:2] not in votes} <= {
        (name, "two targets") for name in ("KNeighborsClassifier", "RidgeClassifier")
    }
