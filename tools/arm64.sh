#!/bin/bash
# How many instructions the kernels and numpy take on arm64, counted under qemu's user mode: tools/arm64.sh [FOLDER]
#
# Debian's Python for arm64 and numpy's wheel are unpacked beside the project, nothing is installed. The kernels are built
# by zig's clang, as `make wheels` builds them. It needs qemu-user, a C compiler, and a Debian with its own archive.
set -euo pipefail
project=$(cd "$(dirname "$0")/.." && pwd)
folder=$(mkdir -p "${1:-$project/build/arm64}" && cd "${1:-$project/build/arm64}" && pwd)
python=${PYTHON:-python3}
native=$project/src/_native
debian=(python3.11-minimal libpython3.11-minimal libpython3.11-stdlib libc6 libexpat1 zlib1g libgcc-s1 libstdc++6 libssl3)
command -v qemu-aarch64 >/dev/null || { echo "needs qemu-aarch64: apt-get install qemu-user" >&2; exit 1; }

cd "$folder"
[ -x tools/bin/python ] || "$python" -m venv tools
tools/bin/python -m pip -qq --disable-pip-version-check install ziglang 'cython>=3.2'

if [ ! -x root/usr/bin/python3.11 ]; then
    mkdir -p state/lists/partial cache/archives/partial debs && touch state/status
    export APT_CONFIG=$folder/apt.conf
    cat > apt.conf <<C
APT::Architecture "arm64";
APT::Architectures { "arm64"; };
APT::Sandbox::User "root";
Dir::State "$folder/state";
Dir::State::status "$folder/state/status";
Dir::Cache "$folder/cache";
C
    apt-get -qq update
    (cd debs && apt-get -qq download "${debian[@]}")
    for package in debs/*.deb; do dpkg-deb -x "$package" root; done
    unset APT_CONFIG
fi
platforms=(--platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux2014_aarch64)
[ -d packages/numpy ] || tools/bin/python -m pip -qq --disable-pip-version-check install --target packages \
    "${platforms[@]}" --python-version 311 --only-binary=:all: numpy

tools/bin/python -m cython -3 --output-file kernels.c "$native/kernels.pyx"
headers=$(tools/bin/python -c 'import sysconfig; print(sysconfig.get_path("include"))')
mkdir -p built
tools/bin/python -m ziglang cc -target aarch64-linux-gnu.2.28 -std=c11 -O3 -fno-math-errno -DPy_LIMITED_API=0x030B0000 \
    -fPIC -shared "-I$native" -isystem "$headers" kernels.c "$native/row_map.c" "$native/forest.c" -lm -lpthread -o built/kernels.abi3.so
"${CC:-cc}" -O2 -Wall -Wextra -Werror -shared -fPIC -o count.so "$project/tools/arm64/count.c"
PYTHONDONTWRITEBYTECODE=1 qemu-aarch64 -plugin ./count.so -L root -E PYTHONPATH=packages:built -E OPENBLAS_NUM_THREADS=1 \
    root/usr/bin/python3.11 "$project/tools/arm64/kernels_beside_numpy.py" > cases 2> marks
"$python" "$project/tools/arm64/table.py" cases marks
