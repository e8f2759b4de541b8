#!/usr/bin/env bash
# Fails when the committed stubs differ from what proto/ gives.
set -euo pipefail
cd "$(dirname "$0")/.."
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
hack/update-proto.sh "$tmp"
if ! diff -ru --exclude=__pycache__ --exclude=__init__.py "$tmp/llmop/api" controller/llmop/api; then
  echo "The generated stubs are stale. Run: hack/update-proto.sh" >&2
  exit 1
fi
