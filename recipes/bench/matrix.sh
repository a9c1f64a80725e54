#!/usr/bin/env bash
# The tests in four environments, from the oldest versions that advkit supports to the newest. Needs uv, and Python
# 3.11, 3.12 and 3.13 where uv finds them. Prints a row for each environment. After the whole suite the rows also
# replace those in README.md and docs/benchmarks.md.
#
#   recipes/bench/matrix.sh FOLDER            the whole suite; FOLDER keeps the environments
#   recipes/bench/matrix.sh FOLDER TESTS...   only these
set -euo pipefail
folder=$(mkdir -p "$1" && cd "$1" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
shift
export OMP_WAIT_POLICY=passive ADVKIT_HOME=$folder/home
unset PYTHONPATH
failed=0

row() {
  local name=$1 python=$2 inside=$folder/$1/bin/python
  shift 2
  [[ -e $inside ]] || uv venv -q --python "$python" "$folder/$name"
  uv pip install -q --python "$inside" --reinstall-package advkit "$@" '.[test]'
  "$inside" -m pytest -q "${tests[@]}" > "$folder/$name.log" 2>&1 || failed=1
  "$inside" -W ignore - "$name" "$(tail -n 1 "$folder/$name.log")" <<'PYTHON' | tee -a "$table"
import platform
import sys
from importlib import metadata

name, said = sys.argv[1:]
result = said.strip("= ").partition(" in ")[0]
torch, numpy = map(metadata.version, ("torch", "numpy"))
print(f"| {name} | {platform.python_version()} | {torch} | {numpy} | {platform.system()} | {result} |")
PYTHON
}

tests=("$@")
table=$folder/table.md
{
  echo "| versions | Python | torch | numpy | system | tests |"
  echo "| --- | --- | --- | --- | --- | --- |"
} | tee "$table"
row oldest 3.11 torch==2.4.1 torchvision==0.19.1 numpy==1.26.4
row lowest 3.11 --resolution lowest-direct
row middle 3.12 torch==2.7.1
row newest 3.13 --upgrade
if [[ ${#tests[@]} == 0 ]]; then
  sed -i -e "/<!-- matrix -->/,/<!-- end -->/{//!d}" -e "/<!-- matrix -->/r $table" README.md docs/benchmarks.md
fi
exit $failed
