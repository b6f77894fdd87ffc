"""Averaging the weights, and saving the state of a run: on time, on a signal, at the end."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback

from adit_model.files import atomic_path
from adit_model.training.modules import StageModule
from adit_model.training.sharding import all_finite

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
STATE_NAME = "last.ckpt"


class WeightAverager(Callback):
    """Move the averaged weights after each step.

    Own code, since Lightning's EMAWeightAveraging does not support sharded weights.

    It stands before :class:`StateSaver`: Lightning calls a module's own hook after those of the
    callbacks, and a state saved in between would lack one step of the average.
    """

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Move the average towards the weights."""
        assert isinstance(pl_module, StageModule)
        pl_module.update_average()


class StateSaver(Callback):
    """Save the whole state of a run to ``last.ckpt`` so that it can go on exactly.

    Parameters
    ----------
    folder : Path
        Of the run.
    minutes : float
        Between two saves.
    max_seconds : float or None
        Stop (and save) after this much wall-clock time.
    export : callable
        Called after each save in each process, to write the weights so far.
    stop_after : int or None
        Stop (and save) after this many steps.
    interactive : bool
        Take Ctrl-C as one more signal; a second one interrupts at once. Otherwise the first does,
        and once more after the step if a library has swallowed it.
    """

    def __init__(
        self,
        folder: Path,
        minutes: float,
        max_seconds: float | None,
        export: Callable[[lightning.LightningModule], Any],
        stop_after: int | None = None,
        interactive: bool = False,
    ) -> None:
        self.interactive = interactive
        self.stop_after, self.first_step = stop_after, 0
        self.folder, self.minutes, self.max_seconds = folder, minutes, max_seconds
        self.export = export
        self.received: str | None = None
        self.stopped_by: str | None = None
        self.started = self.saved = time.monotonic()
        self._previous: dict[signal.Signals, Any] = {}

    @property
    def path(self) -> Path:
        """File of the state."""
        return self.folder / STATE_NAME

    def install(self) -> None:
        """Catch SIGTERM and SIGUSR1, which SLURM sends before the end of a job.

        A signal that the shell has the process ignore stays ignored: ``nohup adit train &`` does
        not hear the Ctrl-C of its terminal.
        """
        if threading.current_thread() is not threading.main_thread():
            return  # Python delivers signals to the main thread only
        for number in (*SIGNALS, signal.SIGINT):
            handler = signal.getsignal(number)
            own = number == signal.SIGINT and handler is not signal.default_int_handler
            if handler != signal.SIG_IGN and (self.interactive or not own):
                self._previous[number] = signal.signal(number, self._on_signal)

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Catch SIGTERM again: Lightning has put a handler before ours, which saves nothing."""
        self.first_step = trainer.global_step
        for number in self._previous:
            signal.signal(number, self._on_signal)

    def restore(self) -> None:
        """Put the former signal handlers back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def _on_signal(self, number: int, frame: Any) -> None:
        now = number == signal.SIGINT and not (self.interactive and self.received is None)
        self.received = signal.Signals(number).name
        if now:
            raise KeyboardInterrupt

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save if it is time or the last step, stop if a signal or the limit says so.

        Nothing is saved elsewhere: Lightning miscounts the steps of its logs when it resumes from
        a state that was saved later. So what Lightning would log and validate after this hook
        comes before the state: a run that is killed then has lost no line of its log.

        Raises
        ------
        FloatingPointError
            If the loss or the weights are not finite; the last saved state stays as it is.
        KeyboardInterrupt
            After Ctrl-C, unless the run is interactive.
        """
        assert isinstance(pl_module, StageModule)
        if self.received == "SIGINT" and not self.interactive:
            raise KeyboardInterrupt
        config = pl_module.training_config
        now = time.monotonic()
        reason = self.received
        limit = math.inf if self.max_seconds is None else self.max_seconds
        if reason is None and now - self.started >= limit:
            reason = "max_time"
        done = trainer.global_step - self.first_step
        if reason is None and self.stop_after is not None and done >= self.stop_after:
            reason = "stop_after"
        due = now - self.saved >= 60 * self.minutes
        if trainer.world_size > 1:  # all processes must agree
            any_stop = trainer.strategy.reduce_boolean_decision(reason is not None, all=False)
            due = trainer.strategy.reduce_boolean_decision(due, all=False)
            reason = reason or ("another process" if any_stop else None)
        if reason is not None:
            self.stopped_by = reason
            trainer.should_stop = True
            if trainer.global_step % config.validate_every:
                trainer.limit_val_batches = 0  # else Lightning validates at any early stop
        step = trainer.global_step
        saving = due or reason is not None or step >= trainer.max_steps
        if saving or step % config.log_every == 0:
            self._check_finite(trainer, pl_module, outputs["loss"])
        if saving:
            trainer._logger_connector.update_train_step_metrics()  # not twice, see _LogSteps
            if step % config.validate_every == 0:
                _validate(trainer)
            self.save(trainer, pl_module)

    def save(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Write the state atomically, then the weights."""
        for logger in trainer.loggers:
            logger.save()  # a resumed run keeps the lines before its state
        if trainer.is_global_zero:
            with atomic_path(self.path, durable=True) as partial:
                trainer.save_checkpoint(partial, weights_only=False)
        else:  # has its part in the saving, and writes nothing
            trainer.save_checkpoint(self.path, weights_only=False)
        self.export(pl_module)
        self.saved = time.monotonic()

    def _check_finite(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, loss: torch.Tensor
    ) -> None:
        finite = all_finite([loss, *pl_module.parameters()])
        if trainer.world_size > 1:  # all processes must agree
            finite = trainer.strategy.reduce_boolean_decision(finite, all=True)
        if finite:
            return
        step = trainer.global_step - 1
        what = f"the weights after step {step} are not finite"
        if not torch.isfinite(loss):
            what = f"the loss of step {step} is {float(loss)}"
        go_on = f"resume from {self.path}" if self.path.exists() else "start again"
        raise FloatingPointError(
            f"{what}: {go_on} with a lower learning_rate, or look for broken structures in the data"
        )


def _validate(trainer: lightning.Trainer) -> None:
    """Validate now instead of after this step, as Lightning's own loop does."""
    loop = trainer.fit_loop.epoch_loop
    if not trainer.enable_validation:
        return
    first = trainer._logger_connector._first_loop_iter
    trainer.validating = True
    loop.val_loop.run()
    trainer.training = True
    trainer._logger_connector._first_loop_iter = first
    loop._skip_next_val = True
