"""The command line's progress bars: one per phase, on stderr."""

from __future__ import annotations

from functools import partial

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from cppncripto_strategy import progress as callbacks


class ProgressBars:
    """A `progress.PhaseProgress` that draws; `phase(name)` is a `progress.Progress`.

    Parameters
    ----------
    quiet : draw nothing at all (a program reads the output).
    transient : take the bars away at the end.
    """

    def __init__(self, quiet: bool = False, transient: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet)
        self._progress = Progress(
            TextColumn("[bold]{task.description:<22}"),
            BarColumn(bar_width=32),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("[dim]{task.fields[text]}"),
            console=self.console,
            transient=transient,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> ProgressBars:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:  # an error is no progress: a bar that never moved says nothing
            for task in self._progress.tasks:
                if not task.completed:
                    self._progress.remove_task(task.id)
        self._progress.stop()

    def __call__(self, phase: str, done: int, total: int, text: str) -> None:
        """Show how far a phase is; the text "done" fills its bar."""
        if phase not in self._tasks:
            self._tasks[phase] = self._progress.add_task(phase, total=total, text=text)
        if text == "done":
            done = total = 1
        self._progress.update(self._tasks[phase], completed=done, total=total, text=text)

    def phase(self, name: str) -> callbacks.Progress:
        """The callback of one phase, whose bar moves to and fro until the first call."""
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=None, text="")
        return partial(self, name)
