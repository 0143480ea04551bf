"""Tables as people write them: a script gives one prediction for each spectrum, or an error that names the line."""

from __future__ import annotations

import gzip
import runpy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundle_chains import save
from sklearn.linear_model import Ridge

from n4a_fast import WorkspaceStore

WIDTH, ROWS = 40, 5
NM = np.linspace(1000.0, 2500.0, WIDTH)
CM = np.round(1e7 / NM, 1)
FT = np.round(1e7 / np.linspace(1e4, 4000.0, WIDTH), 2)
TWO_DETECTORS = np.r_[np.arange(350.0, 1000.0, 50.0), np.linspace(1000.0, 2400.0, WIDTH - 13)]
CUT = np.r_[np.arange(1100.0, 1300.0, 10.0), np.arange(1500.0, 1700.0, 10.0)]
V = np.round(0.5 + 0.02 * np.random.default_rng(1).normal(size=(ROWS, WIDTH)).cumsum(axis=1), 5)

Predict = Callable[..., Any]


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return made(tmp_path_factory.mktemp("script"), WIDTH)


def made(folder: Path, width: int, **more: Any) -> dict[str, Any]:
    """The script of a chain over so many columns."""
    X = np.random.default_rng(width).normal(size=(30, width))
    with WorkspaceStore(folder / "workspace") as store:
        chain_id = save(store, [], {"0": Ridge().fit(X, X[:, 0] - X[:, -1])})
        if more:
            row = store.get_chain(chain_id) or {}
            names = ("pipeline_id", "steps", "model_step_idx", "model_class", "preprocessings", "fold_strategy")
            stored = {name: row[name] for name in (*names, "fold_artifacts", "shared_artifacts")}
            chain_id = store.save_chain(**stored, input=more)
        return runpy.run_path(str(store.export_chain(chain_id, folder / "model.n4a.py", "n4a.py")))


def text(rows: Sequence[Sequence[Any]], mark: str = ";") -> str:
    return "\n".join(mark.join(map(str, row)) for row in rows)


def named(first: Sequence[Any], *names: str) -> list[list[Any]]:
    return [[*first], *([names[place] if names else f"s{place}", *row] for place, row in enumerate(V))]


READ = {
    "no header": text(V),
    "even wavelengths": text([NM, *V]),
    "rounded wavenumbers of even wavelengths": text([CM, *V]),
    "rounded wavelengths of even wavenumbers": text([FT, *V]),
    "two detectors": text([TWO_DETECTORS, *V]),
    "a band cut out": text([CUT, *V]),
    "names and a corner": text(named(["id", *CM])),
    "names without a corner": text(named(CM)),
    "numbered rows and a corner": text(named(["id", *CM], *"01234")),
    "numbered rows without a corner": text(named(CM, *"01234")),
    "an empty corner": text(named(["", *CM], *"01234")),
    "quoted": text([[f'"{value}"' for value in CM], *V], ","),
    "names as R makes them": text([[f"X{value}" for value in CM], *V], ","),
    "a line that tells the separator": "sep=;\n" + text([NM, *V]),
    "a comment": "# exported; by, OPUS\n" + text([NM, *V]),
    "delimiters at the end": text([[*row, ""] for row in V]),
    "delimiters at the end, and a header": text([[*row, ""] for row in (NM, *V)]),
    "empty lines of a spreadsheet": text([*V, [""] * WIDTH, [""] * WIDTH]),
    "pipes": text([NM, *V], "|"),
    "decimal commas": text([NM, *V]).replace(".", ","),
    "quoted decimal commas": text([[f'"{value}"'.replace(".", ",") for value in row] for row in V], ","),
    "two columns of names": text([["id", "date", *NM], *([f"s{n}", "2024-05-01", *row] for n, row in enumerate(V))]),
    "spaces": text(V, "  "),
}
BYTES = {
    "UTF-8 with a mark": text([NM, *V]).encode("utf-8-sig"),
    "UTF-16": text([NM, *V], "\t").encode("utf-16"),
    "UTF-16 without a mark": text([NM, *V], "\t").encode("utf-16-le"),
    "Latin-1": text(named(["échant", *NM], *[f"blé{n}" for n in range(ROWS)])).encode("latin-1"),
    "gzip": gzip.compress(text([NM, *V]).encode()),
}


@pytest.mark.parametrize("content", [pytest.param(one.encode(), id=name) for name, one in READ.items()])
def test_every_spectrum_gets_its_prediction(script: dict[str, Any], tmp_path: Path, content: bytes) -> None:
    (tmp_path / "in.csv").write_bytes(content)
    np.testing.assert_array_equal(script["predict_from_file"](tmp_path / "in.csv"), script["predict"](V))


@pytest.mark.parametrize("content", [pytest.param(one, id=name) for name, one in BYTES.items()])
def test_usual_encodings_are_read(script: dict[str, Any], tmp_path: Path, content: bytes) -> None:
    (tmp_path / "in.csv").write_bytes(content)
    np.testing.assert_array_equal(script["predict_from_file"](tmp_path / "in.csv"), script["predict"](V))


REFUSED = {
    "transposed": (text(V.T), "line 1 has 5 values, expected 40"),
    "an empty cell": (text([NM, *V]).replace(f"{V[2, 3]};", ";", 1), "line 4 holds an empty"),
    "thousands": (text([["1.000,5"] * WIDTH] * 3), r"line 1 holds '1\.000,5'"),
    "two decimal marks": (text([[*map(str, V[0])], [str(value).replace(".", ",") for value in V[1]]]), "line 1 holds"),
    "targets behind the spectra": (text([[*NM, "protein"], *([*row, 12.5] for row in V)]), "values, expected 40"),
    "targets behind the spectra, no header": (text([[*row, 12.5] for row in V]), "nothing tells which"),
    "units below the header": (text([NM, ["nm"] * WIDTH, *V]), "line 2 holds 'nm'"),
    "a word in the first spectrum": (text(V).replace(str(V[0, 1]), "high", 1), "line 1 holds 'high'"),
    "one cell too many in a row": (text([*V[:2], [*V[2], 1.0], *V[3:]]), "line 3 has 41 values"),
    "a header alone": (text([[f"X{value}" for value in NM]]), "no spectra"),
    "counts that may be wavelengths": (
        text([np.sort(np.random.default_rng(0).uniform(800.0, 1500.0, WIDTH)).round(1), *(1000.0 * V)]),
        "line 1 may hold wavelengths or a spectrum",
    ),
}


@pytest.mark.parametrize(("content", "reason"), [pytest.param(*one, id=name) for name, one in REFUSED.items()])
def test_what_cannot_be_told_is_refused_by_its_line(
    script: dict[str, Any], tmp_path: Path, content: str, reason: str
) -> None:
    (tmp_path / "in.csv").write_text(content)
    with pytest.raises(ValueError, match=reason):
        script["predict_from_file"](tmp_path / "in.csv")


def test_the_caller_decides_what_the_first_row_is(
    script: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.csv").write_text(REFUSED["counts that may be wavelengths"][0])
    for word, rows in {"--header": ROWS, "--no-header": ROWS + 1}.items():
        assert script["main"]([str(tmp_path / "in.csv"), word]) == 0
        assert len(capsys.readouterr().out.split()) == rows + 1
    assert script["main"]([str(tmp_path / "in.csv")]) == 1
    assert "--no-header" in capsys.readouterr().err


@pytest.mark.parametrize("width", [3, 4, 6])
def test_short_rows_that_rise_are_spectra(tmp_path: Path, width: int) -> None:
    script = made(tmp_path, width)
    short = np.round(np.random.default_rng(width).uniform(0.2, 0.9, (4, width)), 3)
    short[0] = np.round(0.31 + 0.12 * np.arange(width) + 0.01 * np.arange(width) ** 2, 3)
    (tmp_path / "in.csv").write_text(text(short))
    np.testing.assert_array_equal(script["predict_from_file"](tmp_path / "in.csv"), script["predict"](short))


def test_a_header_must_name_the_columns_of_the_chain(tmp_path: Path) -> None:
    script = made(tmp_path / "axis", WIDTH, wavelengths=NM)
    (tmp_path / "in.csv").write_text(text([NM, *V]))
    assert len(script["predict_from_file"](tmp_path / "in.csv")) == ROWS
    for other in (NM[::-1], NM + 1.0):
        (tmp_path / "in.csv").write_text(text([other, *V]))
        with pytest.raises(ValueError, match=r"line 1 names other columns: column 1 .* trained on 1000\.0"):
            script["predict_from_file"](tmp_path / "in.csv")
    words = made(tmp_path / "words", WIDTH, columns=[f"band {number}" for number in range(1, WIDTH + 1)])
    (tmp_path / "in.csv").write_text(text([[f"band {number}" for number in range(1, WIDTH + 1)], *V]))
    assert len(words["predict_from_file"](tmp_path / "in.csv")) == ROWS
    (tmp_path / "in.csv").write_text(text([[f"band {number}" for number in range(WIDTH, 0, -1)], *V]))
    with pytest.raises(ValueError, match=r"column 1 .* 'band 40', the chain was trained on 'band 1'"):
        words["predict_from_file"](tmp_path / "in.csv")
