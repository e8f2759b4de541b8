"""Runs benchmarks: python hack/bench [NAME...]. Without a name, all of them."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import bench

_NOT_BENCHMARKS = {"__main__", "bench"}


def main(names: list[str]) -> int:
    known = sorted(
        path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in _NOT_BENCHMARKS
    )
    unknown = [name for name in names if name not in known]
    if unknown:
        print(f"no benchmark called {', '.join(unknown)}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    results = []
    for name in names or known:
        print(f"running {name}", flush=True)
        result = importlib.import_module(name).run()
        print(f"  written to {bench.write(result).relative_to(bench.ROOT)}", flush=True)
        results.append(result)
    print(bench.table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
