"""The progress bar of a run. A run continues without it if stderr fails."""

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping

from vladva_training.losses import PARTS


class Bar:
    """tqdm's bar on stderr, with the estimated time left.

    The run continues without it once stderr can't be written: a closed terminal, a pipe without a reader.
    """

    def __init__(self, name: str, total_steps: int, step: int) -> None:
        self._bar = _NoBar()
        if sys.stderr is None:  # closed before the start
            return
        with self._while_it_is_read():
            from tqdm import tqdm

            self._bar = tqdm(
                total=total_steps,
                initial=step,
                desc=name,
                unit="step",
                dynamic_ncols=True,
                smoothing=0.1,
                mininterval=0.1 if sys.stderr.isatty() else 30,  # seconds; a log file gets a line for each
            )

    def show(self, step: int, values: Mapping[str, float]) -> None:
        """Advance to a step. Losses that are missing from `values` are left out."""
        losses = {name: f"{values[name]:.3f}" for name in PARTS if name in values}
        rates = {"samples/s": "samples_per_s", "tokens/s": "tokens_per_s"}
        shown = losses | {"scale": f"{values['logit_scale']:.1f}"}
        shown |= {label: f"{values[name]:.0f}" for label, name in rates.items()}
        with self._while_it_is_read():
            self._bar.set_postfix(shown | {"GB": f"{values['memory_gb']:.1f}"}, refresh=False)
            self._bar.update(step - self._bar.n)

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        with self._while_it_is_read():
            self._bar.write(text, file=sys.stderr)

    def close(self) -> None:
        """Close the bar and leave its last state visible."""
        with self._while_it_is_read():
            self._bar.close()

    @contextlib.contextmanager
    def _while_it_is_read(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError):  # ValueError: stderr was closed
            self._bar = _NoBar()
            _free_the_lock()


def _free_the_lock() -> None:
    """Release tqdm's lock, which its bar keeps if drawing fails: bars of other threads would wait for it forever."""
    from tqdm import tqdm

    with contextlib.suppress(RuntimeError, AssertionError):  # it isn't held
        tqdm.get_lock().release()


class _NoBar:
    """Replaces tqdm's bar when stderr can't be written: every method does nothing."""

    n = 0

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *arguments, **options: None
