"""Exported scripts predict what the store does, in an interpreter that has neither this package nor more than they
say.
"""

from __future__ import annotations

import ast
import json
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundle_chains import CASES, WIDTH, case, save, spectra
from chemotools.derivative import SavitzkyGolay
from chemotools.scatter import MultiplicativeScatterCorrection, StandardNormalVariate
from helpers import DEADLINE
from sklearn.base import clone
from sklearn.cross_decomposition import PLSRegression
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.preprocessing import MinMaxScaler, Normalizer

from n4a_fast import WorkspaceStore
from n4a_fast.errors import ArtifactImportError, ReplayError

LINEAR = {"folds", "refit", "several_in_a_step", "target", "two_targets", "made"}
# Runs scripts given after the file of spectra, with nothing importable but what lies in the first argument's folder.
DRIVER = """
import json, runpy, sys
sys.path.insert(0, sys.argv[1])
try:
    import n4a_fast
except ImportError:
    pass
else:
    raise AssertionError("this package is in reach")
import numpy as np
X = np.load(sys.argv[2])
print(json.dumps([runpy.run_path(path)["predict"](X).tolist() for path in sys.argv[3:]]))
"""


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with numpy in "plain", and with joblib and scikit-learn beside it in "full": stand-ins for other
    environments.
    """
    folder = tmp_path_factory.mktemp("packages")
    for name, wanted in {
        "plain": ("numpy",),
        "full": ("numpy", "scipy", "joblib", "cloudpickle", "threadpoolctl", "scikit-learn", "narwhals"),
    }.items():
        (folder / name).mkdir()
        for distribution in wanted:
            files = metadata.files(distribution) or ()
            for top in {file.parts[0] for file in files if file.parts[0] not in ("..", "__pycache__")}:
                (folder / name / top).symlink_to(Path(str(metadata.distribution(distribution).locate_file(top))))
    return folder


def alone(packages: Path, *arguments: Any) -> subprocess.CompletedProcess[str]:
    """A process without site-packages."""
    return subprocess.run(
        [sys.executable, "-I", "-S", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


def predicted(packages: Path, X: np.ndarray[Any, Any], scripts: list[Path]) -> list[Any]:
    np.save(scripts[0].parent / "X.npy", X)
    done = alone(packages, "-c", DRIVER, packages, scripts[0].parent / "X.npy", *scripts)
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, empty_workspace: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A script of each case, and what the store predicts."""
    folder = tmp_path_factory.mktemp("scripts")
    shutil.copytree(empty_workspace, folder / "workspace")
    with WorkspaceStore(folder / "workspace") as store:
        chains = {name: save(store, *case(name)) for name in CASES}
        for name, chain in chains.items():
            assert store.export_chain(chain, folder / f"{name}.n4a.py", format="n4a.py") == folder / f"{name}.n4a.py"
        yield folder, {name: store.replay_chain(chain, spectra()) for name, chain in chains.items()}


def compare(found: list[Any], expected: list[Any]) -> None:
    for one, other in zip(found, expected, strict=True):
        if other.dtype.kind == "U":
            assert one == other.tolist()
        else:
            np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.long
def test_linear_chains_run_with_numpy_alone(packages: Path, exported: tuple[Path, dict[str, Any]]) -> None:
    folder, expected = exported
    compare(
        predicted(packages / "plain", spectra(), [folder / f"{name}.n4a.py" for name in sorted(LINEAR)]),
        [expected[name] for name in sorted(LINEAR)],
    )


def test_other_chains_run_with_what_their_operators_import(
    packages: Path, exported: tuple[Path, dict[str, Any]]
) -> None:
    folder, expected = exported
    others = sorted(set(CASES) - LINEAR)
    compare(
        predicted(packages / "full", spectra(), [folder / f"{name}.n4a.py" for name in others]),
        [expected[name] for name in others],
    )
    done = alone(packages, "-c", DRIVER, packages / "plain", folder / "X.npy", folder / f"{others[0]}.n4a.py")
    assert "this script needs numpy, joblib, scikit-learn (written with" in done.stderr


class FirstColumn:
    """A model of a class that another release does not have."""

    def predict(self, X: Any) -> Any:
        return np.asarray(X)[:, 0]


def test_a_class_that_another_release_does_not_have_is_told_with_what_to_install(
    store: WorkspaceStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = save(store, [], {"0": FirstColumn()})
    script, bundle = (store.export_chain(chain, tmp_path / "model", format=kind) for kind in ("n4a.py", "n4a"))
    predict = runpy.run_path(str(script))["predict"]
    with WorkspaceStore(tmp_path / "other", trusted=[f"{__name__}.FirstColumn"]) as other:
        imported = other.import_chain(bundle)
        monkeypatch.delattr(sys.modules[__name__], "FirstColumn")
        with pytest.raises(ArtifactImportError, match="FirstColumn.*; install what it was made with, in that release"):
            other.replay_chain(imported, spectra())
    with pytest.raises(ImportError, match=r"FirstColumn.*; this script needs numpy, joblib"):
        predict(spectra())


@pytest.mark.parametrize("name", CASES)
def test_a_script_says_what_it_carries(exported: tuple[Path, dict[str, Any]], name: str) -> None:
    text = (exported[0] / f"{name}.n4a.py").read_text(encoding="utf-8")
    told = ast.get_docstring(ast.parse(text, feature_version=(3, 9))) or ""
    assert ("nothing is unpickled" in told) == (name in LINEAR)
    assert ("run it only if you trust" in told) == (name not in LINEAR)
    assert ("joblib" in text) == (name not in LINEAR)


def test_a_preprocessed_pls_of_700_wavelengths_is_a_few_kilobytes(
    store: WorkspaceStore, packages: Path, tmp_path: Path
) -> None:
    X = 1.0 + 0.3 * np.cumsum(np.random.default_rng(0).normal(size=(60, 700)), axis=1) / 10
    y = X[:, 100] - X[:, 300]
    scripts, expected = [], []
    for first in (StandardNormalVariate().fit(X), MultiplicativeScatterCorrection().fit(X)):
        savgol = SavitzkyGolay().fit(X)
        smooth = savgol.transform(first.transform(X))
        scaler = MinMaxScaler().fit(smooth)
        models = {str(fold): PLSRegression(10).fit(scaler.transform(smooth)[fold::5], y[fold::5]) for fold in range(5)}
        chain = save(store, [("transform", first), ("transform", savgol), ("transform", scaler)], models)
        scripts.append(store.export_chain(chain, tmp_path / f"{type(first).__name__}.n4a.py", format="n4a.py"))
        expected.append(store.replay_chain(chain, X))
    compare(predicted(packages / "plain", X, scripts), expected)
    assert scripts[0].stat().st_size < 30_000


@pytest.mark.parametrize("model", [LinearRegression(), PLSRegression(3)], ids=["LinearRegression", "PLSRegression"])
def test_weights_keep_the_digits_of_spectra_next_to_zero(store: WorkspaceStore, tmp_path: Path, model: Any) -> None:
    absorbances = spectra(60, 1)
    X = 1e-8 * np.diff(absorbances, axis=1)  # as second derivatives of a fine axis are
    y = 25.0 + absorbances[:, 0]
    chain = save(store, [], {str(fold): clone(model).fit(X[fold::3], y[fold::3]) for fold in range(3)})
    script = store.export_chain(chain, tmp_path / "model.n4a.py", format="n4a.py")
    assert "It needs numpy alone" in script.read_text()
    expected = store.replay_chain(chain, X)
    assert np.abs(runpy.run_path(str(script))["predict"](X) - expected).max() <= 1e-13 * np.abs(expected).max()


def test_the_same_chain_gives_the_same_text_and_suffixes_are_kept(store: WorkspaceStore, tmp_path: Path) -> None:
    chain = save(store, *case("curved_target"))
    first = store.export_chain(chain, tmp_path / "model", format="n4a.py")
    assert first == tmp_path / "model.n4a.py"
    text = first.read_bytes()
    assert store.export_chain(chain, first, format=".n4a.py") == first
    assert first.read_bytes() == text
    assert store.export_chain(chain, tmp_path / "mine.py", format="n4a.py") == tmp_path / "mine.py"
    assert store.export_chain(chain, tmp_path / "other") == tmp_path / "other.n4a"


def test_names_cannot_leave_the_docstring(store: WorkspaceStore, tmp_path: Path) -> None:
    steps, models = case("folds")
    chain = save(store, steps, models)
    row = store.get_chain(chain)
    assert row is not None
    fields = {
        name: row[name] for name in ("steps", "model_step_idx", "fold_strategy", "fold_artifacts", "shared_artifacts")
    }
    evil = store.save_chain(
        row["pipeline_id"], model_class='a"""\\', preprocessings='"""\nimport os; os.mkdir("x")\\', **fields
    )
    assert (
        runpy.run_path(str(store.export_chain(evil, tmp_path / "evil.n4a.py", format="n4a.py")))["N_FEATURES"] == WIDTH
    )


def test_what_a_file_cannot_hold_is_refused_and_leaves_no_file(store: WorkspaceStore, tmp_path: Path) -> None:
    class_name = "sklearn.preprocessing.StandardScaler"
    chain = save(store, [("made", class_name)], case("folds")[1])
    for kind in ("n4a", "n4a.py"):
        with pytest.raises(ReplayError, match="step 1"):
            store.export_chain(chain, tmp_path / "model", format=kind)
    assert [path.name for path in tmp_path.iterdir()] == ["workspace"]


# -- tables ---------------------------------------------------------------------------------

NUMBERS = [[f"{value:.6f}" for value in row] for row in spectra(3).tolist()]
AXIS = [str(1100 + 2 * number) for number in range(WIDTH)]
NAMES = ["one", "two", "three"]


def rows(
    separator: str, header: list[str] | None = None, names: bool = False, decimal: str = ".", corner: str = ""
) -> str:
    body = [
        ([NAMES[number]] if names else []) + [cell.replace(".", decimal) for cell in row]
        for number, row in enumerate(NUMBERS)
    ]
    top = [([corner] if names else []) + header] if header else []
    return "\n".join(separator.join(line) for line in (*top, *body)) + "\n"


@pytest.mark.parametrize(
    "text",
    [
        rows(","),
        rows(";"),
        rows("\t"),
        rows(" "),
        rows(";", decimal=","),
        rows("\t", decimal=","),
        rows(",", AXIS),
        rows(",", AXIS[::-1]),
        rows(",", [f"w{name}" for name in AXIS]),
        rows(",", [f'"{name}"' for name in AXIS]),
        rows(",", names=True),
        rows(",", AXIS, names=True, corner="sample"),
        rows(";", AXIS, names=True, decimal=","),
        "\ufeff" + rows(",", AXIS),
        rows(",").replace("\n", "\r\n\r\n"),
    ],
    ids=[
        "comma",
        "semicolon",
        "tab",
        "space",
        "decimal comma",
        "tab and decimal comma",
        "wavelengths",
        "falling wavelengths",
        "words",
        "quoted",
        "names",
        "both",
        "both with decimal comma",
        "byte order mark",
        "empty lines",
    ],
)
def test_tables_are_read_with_or_without_header_and_names(
    exported: tuple[Path, dict[str, Any]], tmp_path: Path, text: str
) -> None:
    script = runpy.run_path(str(exported[0] / "folds.n4a.py"))
    (tmp_path / "in.csv").write_text(text, encoding="utf-8", newline="")
    expected = script["predict"](np.array(NUMBERS, dtype=np.float64))
    np.testing.assert_array_equal(script["predict_from_file"](tmp_path / "in.csv", tmp_path / "out.csv"), expected)
    written = (tmp_path / "out.csv").read_text(encoding="utf-8").split()
    assert written[0] == ("sample,prediction" if "one" in text else "prediction")
    assert [float(line.rpartition(",")[2]) for line in written[1:]] == expected.tolist()
    assert [line.partition(",")[0] for line in written[1:]] == (NAMES if "one" in text else written[1:])


def test_spectra_that_look_like_an_axis_can_be_told_apart(
    exported: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    script = runpy.run_path(str(exported[0] / "folds.n4a.py"))
    (tmp_path / "in.csv").write_text("1,2,3,4,5,6\n" + rows(","), encoding="utf-8")
    assert len(script["predict_from_file"](tmp_path / "in.csv")) == 3
    assert len(script["predict_from_file"](tmp_path / "in.csv", skip_header=False)) == 4


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no rows"),
        (rows(",").replace(NUMBERS[1][2], "high"), "line 2 holds 'high'"),
        ("1,2,5\n3,4,4\n", "has 3 values, expected 6"),
        (rows(",").replace(NUMBERS[1][2], ""), "line 2 holds an empty or infinite value"),
    ],
)
def test_what_is_wrong_with_a_table_is_said(
    exported: tuple[Path, dict[str, Any]], tmp_path: Path, text: str, reason: str
) -> None:
    (tmp_path / "in.csv").write_text(text, encoding="utf-8")
    script = runpy.run_path(str(exported[0] / "folds.n4a.py"))
    with pytest.raises(ValueError, match=reason):
        script["predict_from_file"](tmp_path / "in.csv", tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


def test_the_command_line(packages: Path, exported: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text(rows(",", AXIS, names=True), encoding="utf-8")
    run = (
        f"import runpy, sys; sys.path.insert(0, {str(packages / 'plain')!r}); sys.argv = sys.argv[1:];"
        " runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    script = exported[0] / "folds.n4a.py"
    printed = alone(packages, "-c", run, script, tmp_path / "in.csv")
    written = alone(packages, "-c", run, script, tmp_path / "in.csv", tmp_path / "out.csv")
    assert (printed.returncode, written.returncode, written.stdout) == (0, 0, "")
    assert printed.stdout.split() == (tmp_path / "out.csv").read_text().split()
    missing, usage = alone(packages, "-c", run, script, tmp_path / "no.csv"), alone(packages, "-c", run, script)
    assert (missing.returncode, usage.returncode) == (1, 2)
    assert "no.csv" in missing.stderr
    assert "spectra.csv predictions.csv" in usage.stdout


@pytest.mark.parametrize(
    "X",
    [
        np.zeros(WIDTH),
        np.zeros((2, WIDTH + 1)),
        np.full((1, WIDTH), np.nan),
        np.zeros((0, WIDTH)),
        np.ma.masked_less(np.zeros((2, WIDTH)), 1.0),
        np.zeros((2, WIDTH), complex),
    ],
)
def test_spectra_that_do_not_fit_are_refused(exported: tuple[Path, dict[str, Any]], X: np.ndarray[Any, Any]) -> None:
    for name in ("folds", "curved_target"):
        with pytest.raises(ValueError, match="X"):
            runpy.run_path(str(exported[0] / f"{name}.n4a.py"))["predict"](X)


def test_a_row_that_cannot_be_corrected_is_named(exported: tuple[Path, dict[str, Any]]) -> None:
    with pytest.raises(ValueError, match=r"row 1 of X cannot be corrected \(norm\)"):
        runpy.run_path(str(exported[0] / "made.n4a.py"))["predict"](np.vstack([spectra(1), np.zeros((1, WIDTH))]))


CORRECTIONS = [
    *(Normalizer(norm) for norm in ("l1", "l2", "max")),
    StandardNormalVariate(),
    MultiplicativeScatterCorrection(),
]


@pytest.mark.parametrize("correction", CORRECTIONS, ids=str)
def test_every_correction_of_rows_is_that_of_the_store(
    packages: Path, store: WorkspaceStore, tmp_path: Path, correction: Any
) -> None:
    X = spectra(40, 1)
    Z = np.asarray(correction.fit(X).transform(X))
    chain = save(store, [("transform", correction)], {"0": Ridge().fit(Z, X[:, 0])})
    script = store.export_chain(chain, tmp_path / "model.n4a.py", format="n4a.py")
    compare(predicted(packages / "plain", X, [script]), [store.replay_chain(chain, X)])
    row = 1e-16 * X[0] if isinstance(correction, Normalizer) else np.full(WIDTH, 0.1)
    with pytest.raises(ValueError, match="row 1 of X cannot be corrected"):
        runpy.run_path(str(script))["predict"](np.vstack([X[0], row]))
