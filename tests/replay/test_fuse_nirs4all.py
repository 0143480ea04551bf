"""The registry's entries for nirs4all, where it is installed: what they say holds, and what must not fuse does not."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

import numpy as np
import pytest
from replay_chains import ChainMaker, spectra, target
from sklearn.linear_model import Ridge

from n4a_fast.replay import execute
from n4a_fast.replay.fused.compile import compile_chain
from n4a_fast.replay.fused.compiled import CompiledChain, PlainChain
from n4a_fast.replay.fused.known_operators import ENTRIES
from n4a_fast.replay.fused.linear_operators import version_of
from n4a_fast.replay.fused.stages import Bench
from n4a_fast.replay.plan.folds import weights_of

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("nirs4all") is None, reason="nirs4all is not installed; `make test-embedded` runs it"
    ),
    pytest.mark.filterwarnings("ignore"),
]
TRANSFORMS, MODELS = "nirs4all.operators.transforms", "nirs4all.operators.models.sklearn"
X = spectra(48, 32, seed=1)
y = target(X) + np.random.default_rng(0).normal(0, 0.1, len(X))
NEW = spectra(17, 32, seed=2)

FUSED: list[tuple[str, dict[str, Any]]] = [
    (f"{TRANSFORMS}.scalers.StandardNormalVariate", {}),
    (f"{TRANSFORMS}.scalers.StandardNormalVariate", {"ddof": 1}),
    (f"{TRANSFORMS}.nirs.AreaNormalization", {}),
    (f"{TRANSFORMS}.nirs.AreaNormalization", {"method": "abs_sum"}),
    (f"{TRANSFORMS}.nirs.AreaNormalization", {"method": "trapz"}),
    (f"{TRANSFORMS}.nirs.SavitzkyGolay", {"deriv": 1}),
    (f"{TRANSFORMS}.nirs.FirstDerivative", {}),
    (f"{TRANSFORMS}.nirs.SecondDerivative", {}),
    (f"{TRANSFORMS}.nirs.Wavelet", {"wavelet": "db3"}),
    (f"{TRANSFORMS}.nirs.Haar", {}),
    (f"{TRANSFORMS}.nirs.WaveletPCA", {}),
    (f"{TRANSFORMS}.nirs.WaveletSVD", {}),
    (f"{TRANSFORMS}.nirs.MultiplicativeScatterCorrection", {}),
    (f"{TRANSFORMS}.nirs.MultiplicativeScatterCorrection", {"scale": False}),
    (f"{TRANSFORMS}.signal.Detrend", {}),
    (f"{TRANSFORMS}.signal.Gaussian", {}),
    (f"{TRANSFORMS}.signal.Baseline", {}),
    (f"{TRANSFORMS}.scalers.SimpleScale", {}),
    (f"{TRANSFORMS}.scalers.Normalize", {}),
    (f"{TRANSFORMS}.scalers.Normalize", {"feature_range": (0, 2)}),
    (f"{TRANSFORMS}.features.CropTransformer", {"start": 3, "end": 28}),
    (f"{TRANSFORMS}.features.ResampleTransformer", {"num_samples": 20}),
    (f"{TRANSFORMS}.signal_conversion.PercentToFraction", {}),
    (f"{TRANSFORMS}.signal_conversion.FractionToPercent", {}),
    (f"{TRANSFORMS}.feature_selection.FlexiblePCA", {"n_components": 4}),
    (f"{TRANSFORMS}.feature_selection.FlexibleSVD", {"n_components": 4}),
    (f"{TRANSFORMS}.feature_selection.CARS", {"n_components": 3, "n_sampling_runs": 5}),
    (f"{TRANSFORMS}.feature_selection.MCUVE", {"n_components": 3}),
    (f"{MODELS}.simpls.SIMPLS", {"n_components": 3}),
    (f"{MODELS}.sparsepls.SparsePLS", {"n_components": 3}),
    (f"{MODELS}.robust_pls.RobustPLS", {"n_components": 3}),
    (f"{MODELS}.recursive_pls.RecursivePLS", {"n_components": 3}),
    (f"{MODELS}.ipls.IntervalPLS", {"n_components": 3}),
    (f"{MODELS}.ikpls.IKPLS", {"n_components": 3}),
    (f"{MODELS}.opls.OPLS", {"n_components": 1}),
]
NEWER: list[tuple[str, dict[str, Any]]] = [  # since nirs4all 1; scatter corrections look at the row since then
    (f"{TRANSFORMS}.nirs.ExtendedMultiplicativeScatterCorrection", {}),
    (f"{TRANSFORMS}.norris_williams.NorrisWilliams", {}),
    (f"{TRANSFORMS}.orthogonalization.OSC", {}),
    (f"{TRANSFORMS}.orthogonalization.OSC", {"scale": False}),
]
# each looks at several rows at once, clips, or is not linear
PLAIN: list[tuple[str, dict[str, Any]]] = [
    (f"{TRANSFORMS}.scalers.Derivate", {}),
    (f"{TRANSFORMS}.scalers.StandardNormalVariate", {"axis": 0}),
    (f"{TRANSFORMS}.scalers.StandardNormalVariate", {"with_std": False}),
    (f"{TRANSFORMS}.scalers.RobustStandardNormalVariate", {}),
    (f"{TRANSFORMS}.scalers.LocalStandardNormalVariate", {}),
    (f"{TRANSFORMS}.nirs.LogTransform", {}),
    (f"{TRANSFORMS}.nirs.WaveletFeatures", {}),
    (f"{TRANSFORMS}.signal_conversion.KubelkaMunk", {"source_type": "reflectance"}),
]


def made(name: str, params: dict[str, Any]) -> Any:
    module, _, kind = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), kind)(**params).fit(X, y)
    except ImportError as error:
        pytest.skip(f"an optional package is missing: {error}")


def compiled(maker: ChainMaker) -> CompiledChain | PlainChain:
    plan = maker.load()
    return compile_chain(plan, weights_of(tuple(plan.model.fold_ids), None), NEW[:3], None, Bench(maker.shelf))


@pytest.mark.parametrize(("name", "params"), [*FUSED, *NEWER])
def test_a_registered_operator_of_nirs4all_fuses(name: str, params: dict[str, Any]) -> None:
    if (name, params) in NEWER and version_of("nirs4all") < "1":
        pytest.skip("this release has another operator, or none, of that name")
    operator = made(name, params)
    if hasattr(operator, "predict"):
        maker = ChainMaker().model(operator)
    else:
        maker = ChainMaker().step(operator).model(Ridge(1e-3).fit(operator.transform(X.copy()), y))
    found = compiled(maker)
    assert isinstance(found, CompiledChain), found.notes
    assert found.start == 0, found.notes
    np.testing.assert_allclose(found.apply(NEW), execute(maker.load(), NEW), rtol=0, atol=1e-10 * abs(y).max())


@pytest.mark.parametrize(("name", "params"), PLAIN)
def test_an_operator_that_must_not_fuse_runs_plainly(name: str, params: dict[str, Any]) -> None:
    operator = made(name, params)
    found = compiled(ChainMaker().step(operator).model(Ridge().fit(operator.transform(X.copy()), y)))
    assert isinstance(found, PlainChain) or found.start == 1, found.notes


@pytest.mark.parametrize("labels", [[0, 1], [1, 2, 3], [False, True]])
@pytest.mark.parametrize("n_folds", [1, 3])
def test_pls_discriminant_analysis_fuses(labels: list[Any], n_folds: int) -> None:
    kind = importlib.import_module(f"{MODELS}.plsda").PLSDA
    classes = np.array(labels)[np.digitize(y, np.quantile(y, np.linspace(0, 1, len(labels) + 1)[1:-1]))]
    folds = [kind(n_components=4).fit(X[fold::4], classes[fold::4]) for fold in range(n_folds)]
    maker = ChainMaker().model(*folds)
    found = compiled(maker)
    assert isinstance(found, CompiledChain), found.notes
    assert found.start == 0, found.notes
    assert np.array_equal(found.answer(NEW), execute(maker.load(), NEW))
    plain = execute(maker.load(), NEW, return_proba=True)
    np.testing.assert_allclose(found.answer(NEW, True), plain, rtol=0, atol=1e-12)


def test_every_entry_for_nirs4all_is_tried_here() -> None:
    untried = {entry.name for entry in ENTRIES if entry.name.startswith("nirs4all")} - {
        name for name, _ in (*FUSED, *NEWER)
    }
    # fitted with wavelengths: tried in the next test; EPO with what it is to remove
    assert untried - {f"{MODELS}.plsda.PLSDA"} == {
        f"{TRANSFORMS}.resampler.Resampler",
        f"{TRANSFORMS}.orthogonalization.EPO",
    }


@pytest.mark.parametrize("method", ["linear", "cubic", "nearest"])
def test_a_resampler_fuses(method: str) -> None:
    kind = importlib.import_module(f"{TRANSFORMS}.resampler").Resampler
    axis = np.linspace(1000.0, 2000.0, X.shape[1])
    operator = kind(target_wavelengths=np.linspace(1010.0, 1980.0, 21), method=method).fit(X, wavelengths=axis)
    found = compiled(ChainMaker().step(operator).model(Ridge().fit(operator.transform(X), y)))
    assert isinstance(found, CompiledChain), found.notes
    assert found.start == 0, found.notes
