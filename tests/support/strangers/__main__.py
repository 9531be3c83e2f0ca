"""Loads strangers' directories, each in a process of its own, and prints a JSON report.

The command is `python -m tests.support.strangers DIR PLAN...`.

A plan is `cases:FIRST:COUNT` (drawn by number), `attacks:FIRST:STEP` (hand-made ones), `types:FIRST:STEP` (model types
in every place), or the name of a single case, attack or type as the report has it, such as `case 17`.

The parent writes the honest directories, learns from honest loads what loading does, and forks for each case.
"""

import contextlib
import functools
import gc
import itertools
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

work = Path(sys.argv[1]).resolve() if __name__ == "__main__" else None
if work is not None:  # before anything reads them
    quiet = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
    os.environ |= {**quiet, "HF_HOME": str(work / "home"), "VLADVA_CLIP_CACHE": str(work / "home")}
    os.environ["TMPDIR"] = str(work / "tmp")
    (work / "tmp").mkdir(parents=True)

import torch  # noqa: E402
from huggingface_hub.utils import close_session  # noqa: E402

from tests.support import hub_server  # noqa: E402
from tests.support.strangers import child  # noqa: E402
from tests.support.strangers import plans as stranger_plans  # noqa: E402
from tests.support.strangers.cases import FAMILIES, HUB_BASE, UNREAD, Case, write_honest  # noqa: E402
from tests.support.strangers.entries import ADAPTER_REPO, ENTRIES, PUSHED_REPO  # noqa: E402
from tests.support.strangers.guard import Guard  # noqa: E402
from vladva_clip.encoder import backbones  # noqa: E402

SECONDS = 1.0  # of CPU time for one load; an honest one takes a twentieth
BYTES = 200 << 20  # beyond the peak of the honest load
# what transformers imports for older files, and to tell of an error, is learned from these
TEACHERS = (
    *("SentencePiece alone: is a small one", "SentencePiece alone: is text", "SentencePiece alone: is damaged, 0"),
    "tokenizer.json: version is None",
    # Qwen2-VL's published one, for which transformers looks into the first family that has it
    "class tokenizer_class Qwen2Tokenizer",
    # families of which there is no stranger: their code is imported when a config.json names them, or none is there
    *(f"type {kind} as the model of llava" for kind in backbones.FAMILIES),
)
TOGETHER = 16  # loads in one process, as a fork takes as long as a load
SERVED = 4 << 20  # bytes of a file that the Hub serves at most: it keeps them in memory
BUILDS = ("create", "from_pretrained", "export", "open_clip", "pinned", "hub")  # entries that build a model
GOOD = ("right", "ValueError", "late", "foreign")


class Runner:
    """Runs plans and keeps the book."""

    def __init__(self, work: Path, hub: hub_server.Hub) -> None:
        self.work, self.hub = work, hub
        self.outside = work / "outside"
        self.outside.mkdir()
        (self.outside / "secret.json").write_text('{"secret": 1}')
        os.utime(self.outside / "secret.json", UNREAD)
        self.guard = Guard(work / "case", work / "tmp")
        self.honest: dict[tuple[str, str], dict[str, Any]] = {}
        self.results: list[dict[str, Any]] = []

    def case(self, family: str) -> Case:
        return Case(self.work / "case", family, self.work / "honest" / family, self.outside)

    def learn(self) -> None:
        """Load everything as it should be: once here, for what is imported; then as a case is, for its figures."""
        for name in backbones.FAMILIES:  # where no config.json is, all are asked, also those that no bare base has
            backbones.backbone_class(name)
        for family in FAMILIES:
            for entry in ENTRIES.values():
                self._serve(self.case(family).lay_out(entry.adapter))
                with self.guard.learn():
                    entry.check(entry.load(self.work / "case"), self.work / "case")
                close_session()
        for family, name in itertools.product(FAMILIES, TEACHERS):
            stranger_plans.BY_NAME[name].apply(self.case(family).lay_out())
            with self.guard.learn(), contextlib.suppress(ValueError):
                ENTRIES["create base"].load(self.work / "case")
        gc.collect()
        gc.freeze()  # or the first collection in a forked process would copy every page
        for family, name in itertools.product(FAMILIES, ENTRIES):  # each alone: a process grows by its first load only
            (found,) = self._results([stranger_plans.Plan("honest", family, name, ())])
            if found["outcome"] != "right" or found["events"]:
                raise RuntimeError(f"an honest load failed: {name} of {family}: {found}")
            self.honest[family, name] = found

    def run(self, plans: list[stranger_plans.Plan]) -> None:
        """Run plans and judge them."""
        for batch in self._batches(plans):
            self._judge(batch)

    def _batches(self, plans: list[stranger_plans.Plan]) -> Iterator[list[stranger_plans.Plan]]:
        """What goes together into one process; what asks the Hub goes alone, as this process serves its files."""
        local = [plan for plan in plans if not ENTRIES[plan.entry].asks]
        yield from (local[start : start + TOGETHER] for start in range(0, len(local), TOGETHER))
        yield from ([plan] for plan in plans if ENTRIES[plan.entry].asks)

    def _judge(self, plans: list[stranger_plans.Plan]) -> None:
        """Run plans in one process, and those that have problems there once more alone."""
        together = list(self._results(plans))
        elsewhere = self._elsewhere(plans[0])
        for plan, found in zip(plans, together, strict=True):
            problems = self._problems(plan, found) + elsewhere
            if problems and len(plans) > 1:
                (found,) = self._results([plan])
                alone = self._problems(plan, found) + self._elsewhere(plan)
                problems = alone or ([] if elsewhere else [*problems, "but not when it is alone"])
            self._keep(plan, found, problems)

    def _keep(self, plan: stranger_plans.Plan, found: dict[str, Any], problems: list[str]) -> None:
        result = {key: found[key] for key in ("outcome", "error", "seconds", "bytes", "done")}
        result |= {"name": plan.name, "entry": f"{plan.entry} of {plan.family}", "problems": problems}
        self.results.append(result)
        if problems:
            print(f"{plan.name} ({result['entry']}): {'; '.join(problems)}", file=sys.stderr, flush=True)

    def _elsewhere(self, plan: stranger_plans.Plan) -> list[str]:
        """What loads have done beyond their own process."""
        problems = []
        paths = [path for _, path in self.hub.requests if path != "/"]  # whether the Hub answers at all names nothing
        asked = [path for path in paths if not f"{path}/".startswith(self._named_base())]
        if asked and not ENTRIES[plan.entry].asks:
            problems.append(f"asked the Hub for {asked[0]}")
        for path in list(self.outside.iterdir()):
            if path.name == "sprung":
                path.unlink()
                problems.append("a trap sprang")
            elif path.stat().st_atime != UNREAD[0]:
                os.utime(path, UNREAD)
                problems.append(f"read outside/{path.name}")
        return problems

    def _named_base(self) -> str:
        """The beginning of what may be asked for: an adapter may name any base of the Hub."""
        try:
            name = json.loads((self.work / "case/adapter/vladva_config.json").read_bytes())["base"]["id"]
            return f"/api/models/{name.removeprefix('hf-hub:').partition('@')[0]}/"
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return "/api/models/none/"

    def _results(self, plans: list[stranger_plans.Plan]) -> Iterator[dict[str, Any]]:
        self.hub.requests.clear()
        jobs = []
        for plan in plans:
            prepare = functools.partial(self._prepare, plan)
            if ENTRIES[plan.entry].asks:
                done = self._prepare(plan)
                self._serve(self.case(plan.family))
                prepare = functools.partial(list, done)
            jobs.append(child.Job(ENTRIES[plan.entry], self.work / "case", prepare))
        return child.run(jobs, self.guard, self.work / "log")

    def _prepare(self, plan: stranger_plans.Plan) -> list[str]:
        case = self.case(plan.family).lay_out(ENTRIES[plan.entry].adapter)
        return [change(case) for change in plan.changes]

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
        if found["outcome"] == "right" and plan.entry.startswith(BUILDS):
            if plan.expect == "refused":
                problems.append("loaded, though to be refused")
            if plan.expect == "same" and found["features"] != honest["features"]:
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
            runner.run(list(stranger_plans.plans(sys.argv[2:])))
    print(json.dumps(runner.report()))


if __name__ == "__main__":
    main()
