#!/usr/bin/env bash
# The package as somebody has it who installed it, on Linux: run by hand, half an hour or so, and 7 GB of disk for each.
#
#     tests/packaging.sh            # the newest versions of what the package needs
#     tests/packaging.sh lowest     # the lowest that pyproject.toml admits
#
# An sdist is built, and from it a wheel; that is installed, not editable, into a fresh environment. Tests and notebooks run
# in a folder without the package's source, as a user who is not root, in the C locale, with warnings as errors: first with a
# home folder that cannot be written, then with none. PYTHON is the Python to try (one that other users may run, too), FOLDER
# where to work (default: a new folder, removed at the end); NICE_DATA_DIR, where set, adds the tests on the whole of MNIST;
# NOTEBOOKS which of them to run (default: all, "notebooks/0[0-4]*" are the quick ones). What fails is told at the end, too.
set -euo pipefail
versions=${1:-newest}
root=$(cd "$(dirname "$0")/.." && pwd)
work=${FOLDER:-$(mktemp -d)}
[ -n "${FOLDER:-}" ] || trap 'rm -rf "$work"' EXIT
mkdir -p "$work" && chmod 755 "$work"
cd "$work"

echo "== an sdist, and a wheel built from it"
rm -rf source dist elsewhere && mkdir source elsewhere
(cd "$root" && git ls-files -z | xargs -0 cp --parents -t "$work/source")
[ -x env/bin/python ] || "${PYTHON:-python3}" -m venv env
env/bin/pip install -q build
env/bin/python -m build -o dist source > build.log 2>&1 || { tail -20 build.log; exit 1; }
ls -l dist
env/bin/python - dist source <<'P'
import pathlib, sys, tarfile, zipfile
dist, source = map(pathlib.Path, sys.argv[1:])
wheel = set(zipfile.ZipFile(next(dist.glob("*.whl"))).namelist())
sdist = {name.partition("/")[2] for name in tarfile.open(next(dist.glob("*.tar.gz"))).getnames()}
wanted = {str(p.relative_to(source)) for p in (source / "nicelib").rglob("*") if p.is_file()}
for what, names in ("wheel", wheel), ("sdist", sdist):
    assert wanted <= names, f"the {what} lacks {sorted(wanted - names)}"
assert not [n for n in wheel if not n.startswith(("nicelib/", "nice_step_by_step-"))], "the wheel holds more than the package"
P

echo "== installed into a fresh environment: the $versions versions"
touch constraints.txt
if [ "$versions" = lowest ]; then
    env/bin/python - source/pyproject.toml > constraints.txt <<'P'
import re, sys, tomllib
project = tomllib.load(open(sys.argv[1], "rb"))["project"]
for requirement in project["dependencies"] + project["optional-dependencies"]["test"]:
    name, lowest = re.fullmatch(r"([\w-]+)(?:>=([\d.]+))?.*", requirement).groups()
    if lowest:
        print(f"{name}=={lowest}")
P
fi
env/bin/pip install -q --force-reinstall --no-deps dist/*.whl
env/bin/pip install -q -c constraints.txt "$(echo dist/*.whl)[test]"
env/bin/pip list 2>/dev/null | grep -iE "^(torch|torchvision|numpy|matplotlib|jupyterlab|ipywidgets|ipykernel|safetensors|pytest|nbval|hypothesis|pillow) "
env/bin/pip check

# What no line of this project can mend, as warnings say it: "ignore:message:category:module".
exempt=()
while IFS= read -r line; do [ "${line:0:1}" = "#" ] || exempt+=(-W "$line"); done < "$root/tests/packaging_warnings.txt"

cd source && cp -r tests notebooks docs results README.md conftest.py pyproject.toml ../elsewhere && cd ..
as=()
if [ "$(id -u)" = 0 ]; then
    chown -R nobody elsewhere
    as=(setpriv --reuid=nobody --regid=nogroup --clear-groups)
fi
mkdir -p scratch && chmod 1777 scratch
# run NAME HOME command...: HOME may be none
failed=()
run() {
    local home=(HOME="$2") name=$1
    [ "$2" != none ] || home=()
    shift 2
    echo "== $name ($(date +%T))"
    (cd elsewhere && "${as[@]}" env -i PATH="$work/env/bin:/usr/bin:/bin" "${home[@]}" TMPDIR="$work/scratch" LC_ALL=C PYTHONUTF8=0 \
        PYTHONCOERCECLOCALE=0 OMP_NUM_THREADS="${OMP_NUM_THREADS:-2}" NICE_DATA_DIR="${NICE_DATA_DIR:-}" JUPYTER_PLATFORM_DIRS=1 "$@") || { echo "== FAILED: $name"; failed+=("$name"); }
}
run "the package is the installed one" /proc/none python -W error -c "
import nicelib, sys
assert nicelib.__file__.startswith(sys.prefix), nicelib.__file__"
run "the command" none nicelib evaluate --draws 1
run "the command" /proc/none nicelib sample --out samples.png
# Left out: what reads the package's source, the pages and the measurements, and the browser.
own=(--ignore=tests/test_project.py --ignore=tests/test_results.py --ignore=tests/test_site.py --ignore=tests/test_packaging.py
    --ignore=tests/test_browser.py)
run "the tests, a home that cannot be written" /proc/none python -m pytest -q -p no:cacheprovider -W error "${exempt[@]}" "${own[@]}" tests
run "the package's doctests, no home" none python -m pytest -q -p no:cacheprovider -W error "${exempt[@]}" --pyargs nicelib
run "the notebooks, no home" none python -m pytest -q -p no:cacheprovider --nbval ${NOTEBOOKS:-notebooks}
run "a notebook, a home that cannot be written" /proc/none python -m pytest -q -p no:cacheprovider --nbval notebooks/01_masks.ipynb
[ ${#failed[@]} = 0 ] || { printf '== FAILED with the '"$versions"' versions: %s\n' "${failed[@]}"; exit 1; }
echo "== all of it passed, with the $versions versions"
