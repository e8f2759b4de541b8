#!/usr/bin/env bash
# Fails when a generated page of docs/ differs from what the code gives.
set -euo pipefail
cd "$(dirname "$0")/.."
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
hack/update-docs.sh "$tmp"
while IFS= read -r page; do
  if ! diff -u "docs/$page" "$tmp/$page"; then
    echo "docs/$page is stale. Run: hack/update-docs.sh" >&2
    exit 1
  fi
done < <(cd "$tmp" && find . -type f -printf '%P\n')
