#!/usr/bin/env bash
# Whether the tests would notice a wrong operator, comparison, constant or condition: three seeds over the
# trust-critical parts, one over the rest. About 90 minutes on 2 cores; see mutation.py for a part alone.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
out=${1:-mutation}
mkdir -p "$out"
for seed in 1 2 3; do
  python recipes/bench/mutation.py --parts trust --n 300 --seed "$seed" --out "$out/trust-$seed.jsonl"
done
python recipes/bench/mutation.py --parts rest --n 200 --seed 1 --out "$out/rest-1.jsonl"
