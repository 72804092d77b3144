"""What a comparison costs: all default candidates on the 64³ sample, opening the stored results again, the report.

python benchmarks/compare.py --jobs 1
"""

import argparse
import tempfile
import time

from napari_tinc import Comparison, samples
from napari_tinc.compare.candidates import candidates
from napari_tinc.compare.report import html_report


def run(cache: str, jobs: int, names: list[str] | None) -> tuple[Comparison, float]:
    volume, metadata = samples.load("brain")
    start = time.perf_counter()
    chosen = None if names is None else candidates(names, ["sperr"])
    comparison = Comparison(volume, metadata=metadata, candidates=chosen, cache=cache)
    for event in comparison.run(jobs):
        if event.result is not None and not event.result.stored:
            print(f"  {event.candidate.name:24} {time.perf_counter() - start:6.1f} s", flush=True)
    comparison.table()
    return comparison, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--strategies", nargs="+", help="these beside SPERR alone; by default all candidates")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        comparison, seconds = run(cache, args.jobs, args.strategies)
        print(f"{len(comparison.results)} candidates, fast, ratio 64, {args.jobs} at a time: {seconds:.0f} s")
        comparison, seconds = run(cache, args.jobs, args.strategies)
        print(f"opened again: {seconds:.2f} s")
        start = time.perf_counter()
        size = len(html_report(comparison).encode())
        print(f"HTML report: {size / 1e6:.2f} MB in {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
