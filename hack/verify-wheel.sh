#!/usr/bin/env bash
# Builds the wheel and checks that what lies outside the package travels with it.
set -euo pipefail
cd "$(dirname "$0")/.."
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
.venv/bin/python -m hatchling build -t wheel -d "$tmp" >/dev/null
listing=$(.venv/bin/python -m zipfile -l "$tmp"/llmop-*.whl)
for file in llmop/store/migrations/env.py llmop/runtimes/builtin/tgi.yaml llmop/runtimes/profiles/cpu.yaml llmop/agent/agent.py \
  llmop/gateway/page/static/{index.html,style.css,main.js,icon.svg}; do
  if ! grep -qF "$file" <<<"$listing"; then
    echo "the wheel lacks $file: see [tool.hatch.build.targets.wheel] in pyproject.toml" >&2
    exit 1
  fi
done
