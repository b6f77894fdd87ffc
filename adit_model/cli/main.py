"""The command line: ``adit generate``, ``discover``, ``predict``, ``complete``, ``info``, ..."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from adit_model import __version__

USER_ERROR = 2
INTERRUPTED = 130
BROKEN_PIPE = 141  # as a program that dies of SIGPIPE


class _Parser(argparse.ArgumentParser):
    """Reports a wrong command line in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(USER_ERROR, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; by default those of the process.

    Returns
    -------
    int
        Exit status: 0, 2 after a mistake of the user, 130 when interrupted, 141 when the reader of
        a pipe went away.
    """
    try:
        args = _parse(list(sys.argv[1:] if argv is None else argv))
    except KeyboardInterrupt:  # as the commands are imported
        print("adit: interrupted", file=sys.stderr)
        return INTERRUPTED
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # it was closed
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - for the whole process
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # an ASCII terminal is no reason to fail
            stream.reconfigure(errors="backslashreplace")
    try:
        status = args.run(args)
        sys.stdout.flush()
        return int(status)
    except KeyboardInterrupt:
        print(f"adit {args.command}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except Exception as error:
        if args.traceback or os.environ.get("ADIT_TRACEBACK") or not of_the_user(error):
            raise
        print(f"adit {args.command}: error: {_text(error)}", file=sys.stderr)
        return USER_ERROR


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = _parser()
    args, rest = parser.parse_known_args(argv)
    if args.command == "train":  # overrides may stand between and after options
        args.overrides = [text for text in rest if "=" in text and not text.startswith("-")]
        rest = [text for text in rest if text not in args.overrides]
    if rest:
        parser.prog = f"{parser.prog} {args.command}"
        parser.error(f"unknown arguments {' '.join(rest)}")
    return args


def _parser() -> argparse.ArgumentParser:
    from adit_model.cli.complete import add_complete_arguments, complete_command
    from adit_model.cli.discover import add_discover_arguments, discover_command
    from adit_model.cli.evaluate import add_evaluate_arguments, evaluate_command
    from adit_model.cli.finetune import add_finetune_arguments, finetune_command
    from adit_model.cli.generate import add_generate_arguments, generate_command
    from adit_model.cli.info import add_info_arguments, info_command
    from adit_model.cli.predict import add_predict_arguments, predict_command
    from adit_model.cli.train import add_train_arguments, train_command
    from adit_model.data.summary import add_data_arguments, data_command

    parser = _Parser(prog="adit", description="Generate crystals and molecules with ADiT.")
    parser.add_argument("--version", action="version", version=f"adit-atomate {__version__}")
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", parser_class=_Parser
    )
    for name, summary, add_arguments, run in (
        ("generate", "generate structures into a folder", add_generate_arguments, generate_command),
        ("discover", "find new crystals", add_discover_arguments, discover_command),
        ("predict", "predict structures of a formula", add_predict_arguments, predict_command),
        ("complete", "add atoms to a fixed host", add_complete_arguments, complete_command),
        ("evaluate", "measure structures one by one", add_evaluate_arguments, evaluate_command),
        ("info", "print what a checkpoint says of itself", add_info_arguments, info_command),
        ("data", "describe and convert structures", add_data_arguments, data_command),
        ("train", "train one stage of the model", add_train_arguments, train_command),
        ("finetune", "learn structures of your own", add_finetune_arguments, finetune_command),
    ):
        command = commands.add_parser(name, help=summary, description=f"{summary.capitalize()}.")
        add_arguments(command)
        command.add_argument(
            "--traceback", action="store_true", help="show where an error came from"
        )
        command.set_defaults(run=run)
    return parser


def of_the_user(error: Exception) -> bool:
    """Whether an error is told in one line; of others the traceback is shown."""
    from adit_model.data.http import DownloadError

    kinds = ValueError | OSError | ImportError | FloatingPointError | DownloadError
    homeless = isinstance(error, RuntimeError) and "home directory" in str(error)  # ~nouser
    return isinstance(error, kinds) or homeless


def _text(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    lines = [line.strip() for line in str(error).splitlines()]
    return " ".join(line for line in lines if line) or type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
