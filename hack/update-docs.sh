#!/usr/bin/env bash
# Regenerates the generated pages of docs/ (update-docs.sh [output directory]).
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-docs}
python=${PYTHON:-.venv/bin/python}
mkdir -p "$out/reference"
"$python" hack/make-kinds-page >"$out/reference/kinds.md"
for program in llmctl llmop; do
  "$python" hack/make-command-page "$program" >"$out/reference/$program.md"
done
