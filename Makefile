# make demo, make test, make lint, make gate: each builds what it needs in .venv, from a bare clone.

PYTHON ?= python3
# .venv is that of the first Python; another one that is named, make test PYTHON=python3.13, has its own: .venv-3.13
VENV := .venv
ifneq ($(filter command environment,$(origin PYTHON)),)
VENV := $(shell $(PYTHON) -c 'import pathlib, sys; own = "%d.%d" % sys.version_info[:2]; first = pathlib.Path(".venv/pyvenv.cfg"); \
    print(".venv" if not first.exists() or f"version = {own}." in first.read_text() else f".venv-{own}")')
ifeq ($(VENV),)
$(error $(PYTHON) is no Python that starts here; give the path of one, make PYTHON=/path/to/python3.13)
endif
endif
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check
READY := $(VENV)/.ready
SWEEP_SIZES := 2
RELEASES := 0.7.1 1.4.10
SWEEPS := few
BOOSTERS := lightgbm xgboost-cpu catboost
SANITIZED := build/sanitized
# an editable install knows its modules by name: this file changes when one comes or goes
MODULES := build/.modules
$(shell mkdir -p build && find src/n4a_fast -name '*.py' | sort > $(MODULES).now && { cmp -s $(MODULES).now $(MODULES) || cp $(MODULES).now $(MODULES); })
BUILD_INPUTS := Makefile CMakeLists.txt pyproject.toml src/n4a_fast/version.py $(wildcard src/n4a_fast_environment.*) $(MODULES) $(shell find src/_native -type f)

# what was compiled is kept, whatever the shell says: a thousand interpreters are started, and each would compile it again
export PYTHONDONTWRITEBYTECODE :=

BENCHMARK_OPTIONS := -p no:xdist -p no:cacheprovider --benchmark-quiet

# three at once on two cores: each waits for the disk or for a process a third of its time
TESTS := $(BIN)/python -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder --by-folder

MINUTES := 2
STEPS := 100000
# where there is a disk in memory with some room (a container's may have 64 MB), thousands of stores do not wait for syncs
IN_MEMORY := $(shell df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 && $$4 > 6000000 { print "TMPDIR=/dev/shm" }')

.PHONY: demo docs wheels-check test slow quick lint crash crash-scan limits machine verify-scan test-bundles test-conversion test-embedded test-sweeps test-nirs4all test-upstream gate bench numbers peers environments sanitize fuzz clean

demo: $(READY)
	@$(BIN)/n4a-fast demo

# Every test but the slow ones, a line for each folder, and why some were skipped.
test: $(READY)
	@$(IN_MEMORY) $(TESTS) -rs -m 'not slow'

# The slow ones: more cases of what kills and refuses, wheel and sdist built from nothing, the gate on a store made worse,
# the rules of other systems, a file larger than the memory of a cluster's workers.
slow: $(READY)
	@$(TESTS) -rs -m slow

.PHONY: thorough
# All tests, those of properties with so many times their examples: make thorough [EXAMPLES=20]
thorough: $(READY)
	@N4A_EXAMPLES=$(or $(EXAMPLES),20) $(TESTS) -rs

# A look at everything that needs no process of its own and no killed one, at one case of each test and few examples of
# each property: within a minute.
quick: $(READY)
	@$(IN_MEMORY) N4A_EXAMPLES=0.1 $(TESTS) -n 2 -rs -m 'not slow and not long' --without-processes --few-cases 1 \
	    --ignore tests/crash --ignore tests/environments --ignore tests/processes --ignore tests/docs

.PHONY: matrix
# Every estimator in every way of predicting; writes the table of docs/replay.md: make matrix [MATRIX='--minutes 7'].
matrix: $(VENV)/.matrix .venv-nirs4all-1.4.10/.ready
	@N4A_PACKAGES_BESIDE=$$(.venv-nirs4all-1.4.10/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') \
	    OMP_NUM_THREADS=1 $(BIN)/python tests/replay/matrix_table.py $(MATRIX)

$(VENV)/.matrix: $(READY) pyproject.toml
	@$(PIP) install $$($(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["matrix"][1:])')
	@touch $@

# Writers that are killed, and disks that refuse, at random: make crash MINUTES=60 [SEED=7]
crash: $(READY)
	@$(BIN)/python tests/crash/campaign.py --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

# 10,000 openings leave nothing behind; 2,000 shards are merged with 250 descriptors (the tests take 60 of each)
limits: $(READY)
	@N4A_OPENINGS=10000 N4A_SHARDS=2000 $(BIN)/python -m pytest -q -n 0 tests/engine/test_session.py tests/merging/test_merge.py -k "many_openings or many_shards"

.PHONY: schedules
# Random schedules of everything that locks, by threads and processes, some of which are killed: make schedules [MINUTES=15] [SEED=7]
schedules: $(READY)
	@$(IN_MEMORY) $(BIN)/python tests/engine/schedules.py --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

# Any order of calls by several handles, threads and processes against a plain model: make machine [STEPS=100000]
machine: $(READY)
	@N4A_MACHINE_STEPS=$(STEPS) $(BIN)/python -m pytest -q -n 0 tests/equivalence/test_machine.py

lint: $(READY)
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet
	@$(BIN)/mypy --no-error-summary

# Every write torn, power lost before every sync: all states of all programs take about a quarter of an hour on two cores.
# Another call goes on where the last one ended, as long as the sources are the same: make crash-scan [MINUTES=20]
crash-scan: $(READY)
	@$(IN_MEMORY) PYTHONPATH=tests $(BIN)/python tests/crash/whole_scan.py build/crash-scan $(MINUTES)

# Every file operation of every writing call refused: full disk, broken disk, read-only, no permission.
fault-grid: $(READY)
	@$(IN_MEMORY) N4A_FAULT_STRIDE=1 $(BIN)/python -m pytest -q -rP -n 2 tests/crash/test_fault_grid.py

# A thousand workspaces damaged at random: each damage is found, or changes nothing that a reader sees.
verify-scan: $(READY)
	@$(IN_MEMORY) N4A_VERIFY_CASES=1000 $(BIN)/python -m pytest -q -n 2 tests/maintenance/test_verify.py

gate: $(READY)
	@$(BIN)/python -m pytest -q -m gate $(BENCHMARK_OPTIONS) --results build/gate.json benchmarks

bench: $(READY)
	@$(BIN)/python -m pytest -q $(BENCHMARK_OPTIONS) --results build/bench.json benchmarks; status=$$?; \
	    $(BIN)/python benchmarks/page.py build/bench.json && exit $$status

.PHONY: bench-million
# 1,000 chains on a million spectra beside what the disk can do: 15 GB of disk; make bench-million SPECTRA=100000 takes less.
bench-million: $(READY)
	@$(BIN)/python benchmarks/million_spectra.py --spectra $(or $(SPECTRA),1000000)

.PHONY: bench-10m
# Ten million predictions beside SQLite and h5py by hand: half an hour, 35 GB; make bench-10m ROWS=1000000 takes less.
bench-10m: $(READY)
	@$(PIP) install h5py
	@$(BIN)/python benchmarks/scale.py --rows $(or $(ROWS),10000000)

# The table between the markers of docs/benchmarks.md, from the newest line of benchmarks/history.jsonl.
numbers: $(READY)
	@$(BIN)/python benchmarks/page.py --numbers

# The documentation site, into docs/_build/html: warnings are errors, nothing is fetched while it is built. Tutorials and
# the demo, whose report is the sample, are run for it.
docs: $(READY) $(VENV)/.docs
	@OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "open docs/_build/html/index.html"

$(VENV)/.docs: pyproject.toml
	@$(PIP) install $$($(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"])')
	@touch $@

# The extensions compiled for Linux and macOS on both processors, each warning an error; nothing of it is run.
wheels-check: $(READY)
	@$(PIP) install ziglang 'cython>=3.2'
	@$(BIN)/python tools/cross_compile.py

.PHONY: arm64
# Instructions of the kernels beside numpy's on arm64, under qemu's user mode (apt-get install qemu-user; a Debian).
arm64:
	@PYTHON=$(PYTHON) tools/arm64.sh build/arm64

# A part of the suite with Windows' own Python and libraries under Wine, built for it here; what needs a fork or a signal is skipped
# with its reason. A quarter of an hour; make test-windows WINDOWS_TESTS=tests/artifacts takes that folder.
WINDOWS := build/windows
WINDOWS_TESTS := $(addprefix tests/,durable log memtable merging native platform schema tables values bundles/test_archive.py bundles/test_importer.py)
.PHONY: test-windows
test-windows: $(READY)
	@tools/windows.sh $(WINDOWS)
	@$(WINDOWS)/python -m pytest -q -rs -n 0 -p no:cacheprovider --by-folder -m 'not slow' $(WINDOWS_TESTS)

# The suite without what macOS lacks, imitated on Linux (tests/systems): a check of our rules for it, no proof of macOS.
.PHONY: test-macos
test-macos: $(READY)
	@$(IN_MEMORY) N4A_STRICT=macos PYTHONPATH=$(CURDIR)/tests/systems $(TESTS) -rs -m 'not slow' -k 'not other_system' $(MACOS_TESTS)

# A wheel for every Linux since glibc 2.28, and the sdist, in build/wheels/dist; installed without a compiler, and used.
.PHONY: wheels
wheels:
	@PYTHON=$(PYTHON) tools/wheels.sh build/wheels

# The lower bounds of pyproject.toml: an environment with exactly these releases, and a part of the suite.
LOWEST := .venv-lowest
.PHONY: test-lowest
test-lowest:
	@test -x $(LOWEST)/bin/python || $(PYTHON) -m venv $(LOWEST)
	@$(LOWEST)/bin/python tools/lowest.py > build/lowest.txt
	@$(LOWEST)/bin/python -m pip -qq --disable-pip-version-check install -c build/lowest.txt . pandas pytest pytest-xdist hypothesis scikit-learn
	@$(LOWEST)/bin/python -m pytest -q -n 0 -p no:cacheprovider tests/platform tests/log tests/native tests/test_store.py tests/predictions

# The package is installed in place: Python sources are live, and only a change of what is compiled, or a new module, installs again.
$(READY): $(BUILD_INPUTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "n4a_fast needs Python 3.11 or later; give one with make PYTHON=...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "building and installing n4a_fast into $(VENV) (the first time takes a minute or two)"
	@$(PIP) install -e '.[test,lint]'
	@touch $@

# Bundles and configurations that this package exports, used by both releases of nirs4all.
test-bundles: $(READY) environments
	@$(BIN)/python -m pytest -q -n 0 tests/environments/test_exports_in_nirs4all.py

# Workspaces of both releases converted, and nirs4all's own answers about the results.
test-conversion: $(READY) environments
	@$(BIN)/python tests/environments/check_converted.py .venv-nirs4all-1.4.10/bin/python .venv-nirs4all-0.7.1/bin/python

# Sweeps of nirs4all on this store and on its own, compared: a few of two releases; `make test-nirs4all` takes all.
test-embedded: $(READY) $(RELEASES:%=.venv-nirs4all-%/.ready) $(RELEASES:%=.venv-embedded-%/.ready)
	@N4A_RELEASES='$(RELEASES)' N4A_SWEEPS='$(SWEEPS)' $(BIN)/python -m pytest -q -n 0 tests/environments/test_releases_of_nirs4all.py

# Operators of nirs4all 0.7.1 in chains, its sweep of 100 variants (here of 20), and what else its users do.
test-sweeps: $(READY) .venv-embedded-0.7.1/.ready
	@N4A_PACKAGES_BESIDE=$$(.venv-nirs4all-0.7.1/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') \
	    $(BIN)/python -m pytest -q -rs -n 0 tests/replay/test_fuse_nirs4all.py tests/replay/test_reference_chains.py
	@N4A_SWEEP_SIZES=$(SWEEP_SIZES) $(BIN)/python -m pytest -q -n 0 tests/environments/test_sweeps_in_nirs4all.py

# Processor time of nirs4all 1.4.10's calls on 11,340 predictions, with this store and its own, and how many times as fast;
# each has a floor.
.PHONY: times-nirs4all
times-nirs4all: $(READY) .venv-embedded-1.4.10/.ready
	@$(BIN)/python benchmarks/inside_nirs4all.py compare .venv-embedded-1.4.10/bin/python .venv-nirs4all-1.4.10/bin/python

# The store's share of a sweep of 100 variants, as the difference to the same sweep without a store: a minute for each turn.
.PHONY: share-nirs4all
share-nirs4all: $(READY) .venv-embedded-1.4.10/.ready
	@N4A_FAST_INSTALL=1 OMP_NUM_THREADS=1 MPLBACKEND=Agg .venv-embedded-1.4.10/bin/python -W ignore benchmarks/share_of_sweep.py $(or $(TURNS),5)

# nirs4all's own storage tests on this store, from a checkout of its repository: make test-upstream FOLDER=../nirs4all
test-upstream: $(READY) .venv-embedded-1.4.10/.ready
	@$(BIN)/python tests/environments/upstream_tests.py $(FOLDER)

test-nirs4all: test-bundles test-conversion
	@$(MAKE) --no-print-directory SWEEP_SIZES=10 test-sweeps
	@$(MAKE) --no-print-directory RELEASES='0.7.1 1.0.4 1.2.1 1.4.10' SWEEPS=all test-embedded
	@$(MAKE) --no-print-directory times-nirs4all

# Both releases of nirs4all, each in an environment of its own.
environments: .venv-nirs4all-0.7.1/.ready .venv-nirs4all-1.4.10/.ready

# What some reports compare with: nirs4all's own stores, and ONNX Runtime beside this package.
peers: $(READY) environments
	@$(PIP) install onnxruntime skl2onnx

# nirs4all in an environment of its own, for tests of what both read and write: make .venv-nirs4all-0.7.1/.ready
.venv-nirs4all-%/.ready:
	@test -x .venv-nirs4all-$*/bin/python || $(PYTHON) -m venv .venv-nirs4all-$*
	@echo "installing nirs4all $* into .venv-nirs4all-$* (takes some minutes)"
	@.venv-nirs4all-$*/bin/python -m pip -qq --disable-pip-version-check install nirs4all==$* $(if $(filter 0.%,$*),'duckdb<2') $(BOOSTERS)
	@$(if $(filter 1.4.10,$*),.venv-nirs4all-$*/bin/python -m pip -qq --disable-pip-version-check install shap || echo "no shap here: explain is not tried",:)
	@touch $@

# A release of nirs4all as it is installed above, with this package and its DuckDB 2 found before what lies beside nirs4all.
.venv-embedded-%/.ready: $(READY) .venv-nirs4all-%/.ready
	@test -x $(@D)/bin/python || $(PYTHON) -m venv --without-pip $(@D)
	@for place in $(VENV) .venv-nirs4all-$*; do \
	    $$place/bin/python -c 'import sysconfig; print("import site; site.addsitedir(" + repr(sysconfig.get_path("purelib")) + ")")'; \
	done > $$(ls -d $(@D)/lib/python3*/site-packages)/both.pth
	@touch $@

# A hundred thousand mutated files of every kind, from their seeds, or as many as come in some minutes:
# make fuzz [SEED=7] [INPUTS=1000] [FUZZ_MINUTES=8]
fuzz: $(READY)
	@OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz/fuzzing.py --inputs $(or $(INPUTS),100000) --seed $(or $(SEED),0) --minutes $(or $(FUZZ_MINUTES),120)

# libstdc++ beside it: what DuckDB throws goes through the sanitizer, which must find where it goes on
UNDER_SANITIZER := LD_PRELOAD="$$($${CC:-cc} -print-file-name=libasan.so) $$($${CC:-cc} -print-file-name=libstdc++.so)" OMP_NUM_THREADS=1 PYTHONMALLOC=malloc \
    ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 $(SANITIZED)/bin/python

# Leaks are left to the counter of live allocations in tests/native: CPython itself does not free everything at exit,
# which would drown any report. PYTHONMALLOC=malloc lets the sanitizer see Python's own objects too.
sanitize: $(READY)
	@rm -rf $(SANITIZED) && $(PYTHON) -m venv --without-pip $(SANITIZED)
	@$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > $$(ls -d $(SANITIZED)/lib/python3*/site-packages)/dependencies.pth
	@$(PIP) --python $(SANITIZED)/bin/python install --no-deps . -C cmake.build-type=RelWithDebInfo -C cmake.define.N4A_SANITIZE=ON -C install.strip=false
	@$(UNDER_SANITIZER) -m pytest -q -p no:cacheprovider tests/native
	@for kind in artifact 'compiled chain' bundle log; do $(UNDER_SANITIZER) tests/fuzz/fuzzing.py --only "$$kind" --inputs $(or $(INPUTS),2000) --seed $(or $(SEED),0) || exit 1; done

clean:
	@rm -rf .venv .venv-* build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
	@find src/n4a_fast -name '*.so' -delete
