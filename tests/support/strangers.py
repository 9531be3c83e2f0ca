"""Loads strangers' directories, each in a process of its own: `python strangers.py DIR PLAN...`, a JSON report printed.

A plan is `cases:FIRST:COUNT` (drawn by number), `attacks:FIRST:STEP` (hand-made ones), `types:FIRST:STEP` (model types
in every place), or the name of a single case, attack or type as the report has it, such as `case 17`.

The parent writes the honest directories, learns from honest loads what loading does, and forks for each case.
"""

import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

work = Path(sys.argv[1]).resolve() if __name__ == "__main__" else None
if work is not None:  # before anything reads them
    quiet = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
    os.environ |= {**quiet, "HF_HOME": str(work / "home"), "VLADVA_CLIP_CACHE": str(work / "home")}

import hub_server  # noqa: E402
import stranger_child  # noqa: E402
import stranger_plans  # noqa: E402
import torch  # noqa: E402
from huggingface_hub.utils import close_session  # noqa: E402
from stranger_cases import FAMILIES, HUB_BASE, Case, write_honest  # noqa: E402
from stranger_entries import ADAPTER_REPO, ENTRIES, PUSHED_REPO  # noqa: E402
from stranger_guard import Guard  # noqa: E402

SECONDS = 1.0  # of CPU time for one load; an honest one takes a twentieth
BYTES = 200 << 20  # beyond the peak of the honest load
SERVED = 4 << 20  # bytes of a file that the Hub serves at most: it keeps them in memory
GOOD = ("right", "ValueError", "foreign")


class Runner:
    """Runs plans and keeps the book."""

    def __init__(self, work: Path, hub: hub_server.Hub) -> None:
        self.work, self.hub = work, hub
        self.outside = work / "outside"
        self.outside.mkdir()
        (self.outside / "secret.json").write_text('{"secret": 1}')
        self.guard = Guard(work / "case")
        self.honest: dict[tuple[str, str], dict[str, Any]] = {}
        self.results: list[dict[str, Any]] = []

    def case(self, family: str) -> Case:
        return Case(self.work / "case", family, self.work / "honest" / family, self.outside)

    def learn(self) -> None:
        """Load everything as it should be: twice here, for what is imported; then as a case is, for its figures."""
        for family in FAMILIES:
            for name, entry in ENTRIES.items():
                for _ in range(2):
                    self._serve(self.case(family).lay_out(entry.adapter))
                    with self.guard.learn():
                        entry.check(entry.load(self.work / "case"), self.work / "case")
                close_session()
                found = self._run(stranger_plans.Plan("honest", family, name, ()))
                if found["outcome"] != "right" or found["events"]:
                    raise RuntimeError(f"an honest load failed: {name} of {family}: {found}")
                self.honest[family, name] = found

    def run(self, plan: stranger_plans.Plan) -> None:
        """Run one plan and judge it."""
        found = self._run(plan)
        result = {key: found[key] for key in ("outcome", "error", "seconds", "bytes")}
        result |= {"name": plan.name, "entry": f"{plan.entry} of {plan.family}", "done": found["done"]}
        result["problems"] = self._problems(plan, found)
        self.results.append(result)
        if result["problems"]:
            print(f"{plan.name} ({result['entry']}): {'; '.join(result['problems'])}", file=sys.stderr, flush=True)

    def _run(self, plan: stranger_plans.Plan) -> dict[str, Any]:
        entry, case = ENTRIES[plan.entry], self.case(plan.family)
        case.lay_out(entry.adapter)
        done = [change(case) for change in plan.changes]
        if entry.asks:
            self._serve(case)
        self.hub.requests.clear()
        found = stranger_child.run(entry, case.root, self.guard, self.work / "log")
        return {**found, "done": [text for text in done if text]}

    def _serve(self, case: Case) -> None:
        self.hub.repos.pop(PUSHED_REPO, None)
        for side, repo in (("base", HUB_BASE), ("adapter", ADAPTER_REPO)):
            paths = [path for path in (case.root / side).rglob("*") if path.is_file() and not path.is_symlink()]
            paths = [path for path in paths if path.stat().st_size <= SERVED]
            files = {path.relative_to(case.root / side).as_posix(): path.read_bytes() for path in paths}
            self.hub.repos[repo] = hub_server.Repo(repo, files)

    def _problems(self, plan: stranger_plans.Plan, found: dict[str, Any]) -> list[str]:
        honest = self.honest[plan.family, plan.entry]
        problems = list(found["events"])
        if found["outcome"] not in GOOD:
            problems.append(f"{found['outcome']}: {found['error']}")
        if found["seconds"] > SECONDS:
            problems.append(f"{found['seconds']:.2f} s")
        if found["bytes"] > honest["bytes"] + BYTES:
            problems.append(f"{found['bytes'] >> 20} MiB, honestly {honest['bytes'] >> 20}")
        if self.hub.requests and not ENTRIES[plan.entry].asks:
            problems.append(f"asked the Hub for {self.hub.requests[0]}")
        if (self.outside / "sprung").exists():
            (self.outside / "sprung").unlink()
            problems.append("a trap sprang")
        if found["outcome"] == "right" and plan.expect == "refused":
            problems.append("loaded, though to be refused")
        if found["outcome"] == "right" and plan.expect == "same" and found["features"] != honest["features"]:
            problems.append("loaded with other features")
        if found["outcome"] == "ValueError" and found["messages"] and plan.silent:
            problems.append(f"spoke before it refused: {found['messages'][0]:.60}")
        return problems

    def report(self) -> dict[str, Any]:
        """What the results come to."""
        failures = [result for result in self.results if result["problems"]]
        figures = [
            {key: result[key] for key in ("name", "entry", "done", "seconds", "bytes")} for result in self.results
        ]
        tops = {key: sorted(figures, key=lambda one: -one[key])[:5] for key in ("seconds", "bytes")}
        honest = {
            f"{name} of {family}": {key: found[key] for key in ("seconds", "bytes")}
            for (family, name), found in self.honest.items()
        }
        outcomes = Counter(result["outcome"] for result in self.results)
        results = {one["name"]: {key: one[key] for key in ("done", "outcome", "problems")} for one in self.results}
        return {"outcomes": outcomes, "failures": failures, **tops, "honest": honest, "results": results}


def main() -> None:
    """The command line."""
    torch.set_num_threads(1)
    write_honest(work)
    with hub_server.start() as hub:
        hub.tokens = {hub_server.client.TOKEN}
        with hub_server.online(hub, cache_dir=work / "case/cache"):
            runner = Runner(work, hub)
            sys.addaudithook(runner.guard.hook)
            runner.guard.listen()
            runner.learn()
            for plan in stranger_plans.plans(sys.argv[2:]):
                runner.run(plan)
    print(json.dumps(runner.report()))


if __name__ == "__main__":
    main()
