"""The loop of a run, and what happens between two steps."""

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import torch

from vladva_clip.hub.card import README, RECORD, is_ours, write_card
from vladva_clip.model import VladvaCLIP
from vladva_training.config import Recipe
from vladva_training.data.loader import Loader
from vladva_training.data.report import summary_of
from vladva_training.processes.distributed import Processes
from vladva_training.processes.errors import RunError
from vladva_training.processes.one_line import in_one_line
from vladva_training.processes.sharding import gathered_call, is_sharded
from vladva_training.processes.signals import EndedAtOnce, StopSignals
from vladva_training.run import state as states
from vladva_training.run.checkpoints import CheckpointStore, write_json
from vladva_training.run.measuring import Measuring
from vladva_training.run.product import ADAPTER, trained_model, training_record, write_product
from vladva_training.run.progress import Meter, Progress
from vladva_training.run.rescue import Whole, saved_first
from vladva_training.run.setting import Setting
from vladva_training.run.state import Trainer
from vladva_training.step.batches import Batch
from vladva_training.step.grad_cache import GlobalStep, StepResult
from vladva_training.step.optim import clip_gradients

INTERRUPTED, EVALUATED, IMPROVED = 0, 1, 2  # outcomes of an evaluation; all processes agree on the largest
KEYS_NAMED = 8  # keys of a batch that a message names; metrics.jsonl has all of them


@dataclass
class Run:
    """A run in progress: the loop over `trainer.state.step`, and what happens between two steps."""

    recipe: Recipe
    processes: Processes
    store: CheckpointStore
    setting: Setting
    trainer: Trainer
    gradients: GlobalStep
    loader: Loader
    measuring: Measuring
    progress: Progress
    total_steps: int
    meter: Meter = field(init=False)
    noted: set[str] = field(init=False, default_factory=set)  # notes that were already printed
    learned_long: bool = field(init=False, default=False)  # whether any step since the start had a long caption
    whole: Whole = field(init=False, default_factory=Whole)

    def __post_init__(self) -> None:
        self.meter = Meter(self.processes.device)

    def go(self, stop: StopSignals) -> int:
        """Take all remaining steps and write the adapter, or stop on a signal. Returns the exit status.

        Raises:
            RunError: any other end, after the state was saved.
        """
        with contextlib.closing(iter(self.loader)) as batches, saved_first(self):
            if self._evaluate_if_due(stop):  # the one of step 0, or one that a stop prevented
                self.save()
            status = self._stopped(stop)
            while status is None and self.trainer.state.step < self.total_steps:
                self._step(batches, stop)
                status = self._stopped(stop)
                if status is None:
                    self._evaluate_and_save_if_due(stop)
                    status = self._stopped(stop)
            if status is None:
                self._finish()
        return status or 0

    def _step(self, batches: Iterator[Batch], stop: StopSignals) -> None:
        started, state = time.perf_counter(), self.trainer.state
        batch = self._next(batches, stop)
        if batch is None:
            return
        states.seed_step(self.recipe.seed, state.step, self.processes.rank)
        self.trainer.optimizer.zero_grad()
        result = self.gradients(batch)
        norm = clip_gradients(self.trainer.module, self.recipe.optim.max_grad_norm)
        values = {"learning_rate": self.trainer.schedule.get_last_lr()[0], "grad_norm": float(norm)}
        skip = bool(self.processes.largest(not (result.finite and norm.isfinite())))
        if skip:
            self._meet_non_finite(batch, {**result.losses, **values})
        with self.whole.interrupted():
            if not skip:
                self._apply()
            self.trainer.advance_schedule()
            seconds = time.perf_counter() - started
            self._count(result, seconds, skip)
        self._show(result, seconds, values)

    def _next(self, batches: Iterator[Batch], stop: StopSignals) -> Batch | None:
        """Return the next batch, or None if a signal ended any process's wait for its batch.

        Raises:
            RunError: some process can't get its batch: too many bad records, a worker that died or hangs.
        """
        batch, failure = None, None
        try:
            with stop.at_once():
                batch = next(batches)
        except EndedAtOnce:
            raise
        except SystemExit:
            if stop.exit_code is None:
                raise
        except Exception as error:  # a missing batch ends the run in all processes at once
            failure = error
        met = self.processes.largest(2 if failure else int(batch is None))
        if met == 2:
            reasons = self.processes.collect([_reason(failure)] if failure else [])
            raise RunError(reasons[0], agreed=True) from failure
        return None if met else batch

    def _apply(self) -> None:
        self.trainer.optimizer.step()
        self.trainer.module.clamp_logit_scale()
        if self.trainer.ema is not None:
            self.trainer.ema.update()

    def _count(self, result: StepResult, seconds: float, skipped: bool) -> None:
        state = self.trainer.state
        state.step, state.seconds = state.step + 1, state.seconds + seconds
        state.pairs, state.tokens = state.pairs + result.pairs, state.tokens + result.tokens
        state.skipped += skipped

    def _show(self, result: StepResult, seconds: float, values: dict[str, float]) -> None:
        state = self.trainer.state
        values |= {"logit_scale": float(self.trainer.module.model.logit_scale.detach().exp())}
        values |= self.meter.rates(seconds, result.pairs, result.tokens) | {"skipped": state.skipped}
        values |= {"same_picture": result.same_picture}
        self.progress.step(state.step, {**result.losses, **values})
        self._report(result)

    def _report(self, result: StepResult) -> None:
        """Count repeated pictures and true "negatives" of the global batch; say once that pictures repeat."""
        masks = self.recipe.loss.false_negatives != "none"
        true_negatives = result.true_negatives if masks else 0  # without masks they were used
        self.loader.report.add_from_global_batch(result.same_picture_elsewhere, true_negatives)
        if result.same_picture:
            they_are = "not negatives" if masks else "negatives (loss.false_negatives=none)"
            self._say_once(
                "repeats",
                f"note: in step {self.trainer.state.step}, {result.same_picture} of {result.pairs} rows share their "
                f"picture with another row; they are {they_are} of each other. Use one record per picture, with all "
                "its captions, to fill batches with different pictures",
            )
        self._look_for_long(result)

    def _look_for_long(self, result: StepResult) -> None:
        """Say once that a step had no long caption, if next-token prediction is on."""
        self.learned_long |= "ntp" in result.losses
        if self.recipe.loss.ntp_weight and "ntp" not in result.losses:
            self._say_once(
                "no long captions",
                f"note: step {self.trainer.state.step} had no long caption among its {result.pairs} images, so "
                "next-token prediction learned nothing in it; such steps have no ntp in metrics.jsonl",
            )

    def _say_once(self, what: str, text: str) -> None:
        if what not in self.noted:
            self.noted.add(what)
            self.progress.say(text)

    def _meet_non_finite(self, batch: Batch, values: dict[str, float]) -> None:
        """Report that the step is skipped, or raise, as `optim.on_non_finite` says."""
        step, keys = self.trainer.state.step + 1, self.processes.collect(list(batch.keys))
        self.progress.log("non_finite", step, {**values, "keys": keys})
        named = ", ".join(map(repr, keys[:KEYS_NAMED]))
        more = f" and {len(keys) - KEYS_NAMED} more (all in metrics.jsonl)" if len(keys) > KEYS_NAMED else ""
        figures = ", ".join(f"{name} {value:.4g}" for name, value in values.items() if name != "learning_rate")
        what = f"step {step} is not finite: {figures}; its batch is {named}{more}"
        if self.recipe.optim.on_non_finite == "stop":
            advice = "Fix the data or the learning rate, or continue with resume=true optim.on_non_finite=skip"
            raise RunError(f"{what}. {advice}", agreed=True)
        self.progress.say(f"skipped: {what}")

    def _stopped(self, stop: StopSignals) -> int | None:
        """Save and return the exit status if any process has received a signal: all stop after the same step."""
        status = self.processes.largest(-1 if stop.exit_code is None else stop.exit_code)
        if status < 0:
            return None
        self.save()
        self.progress.say(f"stopped by a signal; resume=true continues from step {self.trainer.state.step}")
        return status

    def _is_due(self, every: int) -> bool:
        step = self.trainer.state.step
        return step == self.total_steps or (every > 0 and step > 0 and step % every == 0)

    def _evaluate_and_save_if_due(self, stop: StopSignals) -> None:
        improved = self._evaluate_if_due(stop)
        if improved or self._is_due(self.recipe.run.checkpoint_every):
            self.save()

    def _evaluate_if_due(self, stop: StopSignals) -> bool:
        """Evaluate what would be written now; return in all processes alike whether it is the best so far.

        A signal interrupts it; a resumed run makes up for it.
        """
        state, every = self.trainer.state, self.recipe.run.evaluate_every
        untrained = state.step == 0 and every > 0  # the starting point of the figures
        if state.evaluated == state.step or not (untrained or self._is_due(every)):
            return False
        figures = self._figures(stop) if self.sharded else None  # all processes have a part of the weights
        outcome = self.processes.on_main(lambda: self._judge(figures if self.sharded else self._figures(stop)))
        outcome = self.processes.largest(outcome or INTERRUPTED)  # only the first process knows, but all save together
        if outcome != INTERRUPTED:
            state.evaluated = state.step
        return outcome == IMPROVED

    def _figures(self, stop: StopSignals) -> dict[str, float] | None:
        with self._averaged(), torch.no_grad():
            measure = partial(self.measuring.figures, lambda: stop.exit_code is not None)
            return gathered_call(self.trainer.module, measure)

    def _judge(self, figures: dict[str, float] | None) -> int:
        state = self.trainer.state
        if figures is None:
            return INTERRUPTED
        if figures:
            self.progress.log("evaluation", state.step, figures)
            self.progress.say(f"step {state.step}: " + ", ".join(f"{k} {v:.4g}" for k, v in figures.items()))
            if missing := self.measuring.missing(figures):
                self._say_once("metric", missing)
        best = self.measuring.better(figures, state)
        state.best = best or state.best
        return EVALUATED if best is None else IMPROVED

    def save(self) -> None:
        """Write a checkpoint and delete older ones in the first process, while the others wait."""
        tensors, main = None, self.processes.is_main
        stored = self.processes.largest(int(main and self.trainer.state.step in self.store.steps()))
        if self.sharded and not stored:
            tensors = self.trainer.tensors(keep=main)
        self.processes.on_main(lambda: self.write_checkpoint(tensors))

    def write_checkpoint(self, tensors: Mapping[str, torch.Tensor] | None = None) -> None:
        """Write a checkpoint, of `tensors` if all processes had to gather them, and delete older ones; alone."""
        state = self.trainer.state
        if state.step in self.store.steps():  # only the counters may be newer, after a missed evaluation was made up
            self.store.rewrite(state.step, states.RECORD, states.record(self.trainer, self.setting))
        else:
            self.store.write(state.step, lambda directory: self._fill(directory, tensors))
        best = state.best and {**asdict(state.best), "checkpoint": self.store.path(state.best.step).name}
        self.store.mark_best(best)
        self.store.prune(state.best and state.best.step)

    def _fill(self, directory: Path, tensors: Mapping[str, torch.Tensor] | None) -> None:
        states.write_files(directory, self.trainer, self.setting, tensors)
        if self._full:  # the LVLM was trained, and an adapter can't hold it
            return
        with self._averaged():
            # no check: the base is frozen here, and is compared with its files when the run ends
            self.trainer.module.model.save_pretrained(directory / ADAPTER, verify=False)

    def _finish(self) -> None:
        if self.recipe.loss.ntp_weight and not self.learned_long and "no long captions" in self.noted:
            self.progress.say(
                "warning: no step since the last start had a long caption: next-token prediction learned nothing"
            )
        data = summary_of(self.processes.collect([self.loader.report.counts]))
        with self._averaged():
            model = trained_model(self.trainer.module, self.recipe, self.processes)
            self.processes.on_main(lambda: self._write_result(model, data))

    def _write_result(self, model: VladvaCLIP, data: str) -> None:
        directory = Path(self.recipe.output_dir)
        with self.store.guarding(directory / ADAPTER):
            write_product(model, directory, self._full)
            record = training_record(self.recipe, self.trainer.state, self.processes, data)
            write_json(directory / RECORD, record)
            if is_ours(directory / ADAPTER / README):  # without figures: results there belong to an earlier adapter
                write_card(directory / ADAPTER, record=record, results=[])
        self.progress.say(f"{data}; the adapter is in {directory / ADAPTER}")

    @property
    def sharded(self) -> bool:
        """Whether the weights are spread over the processes, so that none can evaluate or save alone."""
        return is_sharded(self.trainer.module)

    @property
    def _full(self) -> bool:
        return self.recipe.model.train == "full"

    def _averaged(self) -> contextlib.AbstractContextManager:
        return self.trainer.ema.swapped() if self.trainer.ema is not None else contextlib.nullcontext()


def _reason(failure: Exception) -> str:
    return str(failure) if isinstance(failure, ValueError) else in_one_line(failure)
