#!/usr/bin/env bash
# Regenerates the generated pages of docs/ (update-docs.sh [output directory]).
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-docs}
python=${PYTHON:-.venv/bin/python}
mkdir -p "$out/reference"
"$python" hack/make-kinds-page >"$out/reference/kinds.md"
"$python" hack/make-llmctl-page >"$out/reference/llmctl.md"
