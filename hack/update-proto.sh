#!/usr/bin/env bash
# Regenerates controller/llmop/api/v1 from proto/ (update-proto.sh [output directory]).
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-controller}
python=${PYTHON:-.venv/bin/python}
mkdir -p "$out/llmop/api/v1"
rm -f "$out"/llmop/api/v1/*_pb2*
"$python" -m grpc_tools.protoc -I proto --python_out="$out" --pyi_out="$out" --grpc_python_out="$out" proto/llmop/api/v1/*.proto
