#!/usr/bin/env bash
# Regenerates the generated pages of docs/ (update-docs.sh [output directory]). A page whose generator fails stays as it was.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-docs}
python=${PYTHON:-.venv/bin/python}
mkdir -p "$out/reference"
fresh=$(mktemp -d "$out/reference/.fresh.XXXXXX")
trap 'rm -rf "$fresh"' EXIT

# page NAME COMMAND...: what the command prints, once it has printed all of it
page() {
  local name=$1
  shift
  "$@" >"$fresh/$name"
  mv "$fresh/$name" "$out/reference/$name"
}

page kinds.md "$python" hack/make-kinds-page
for program in llmctl llmop; do
  page "$program.md" "$python" hack/make-command-page "$program"
done
