"""The other end of :mod:`adit_model.quality.pool`: a process that serves one function."""

from __future__ import annotations

import os
import pickle
import sys
import warnings

READY, DONE, FAILED = "ready", "done", "failed"


def serve() -> None:
    """Read a function, then items, from standard input; write a reply to each to standard output.

    Every message is one pickle. What the function itself prints goes to standard error, so that
    it cannot garble the replies.
    """
    requests = os.fdopen(os.dup(0), "rb")
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    warnings.simplefilter("ignore")

    def reply(kind: str, content: object = None) -> None:
        try:
            message = pickle.dumps((kind, content))
        except Exception as error:  # an answer that does not pickle is that item's failure
            message = pickle.dumps((FAILED, describe(error)))
        replies.write(message)
        replies.flush()

    try:
        function, prepare = pickle.load(requests)
        if prepare is not None:
            prepare()
    except Exception as error:
        reply(FAILED, describe(error))
        return
    reply(READY)
    while True:
        try:
            item = pickle.load(requests)
        except EOFError:
            sys.stderr.flush()
            os._exit(0)
        except Exception as error:
            reply(FAILED, describe(error))
            continue
        try:
            result = function(item)
        except Exception as error:
            reply(FAILED, describe(error))
        else:
            reply(DONE, result)


def describe(error: BaseException) -> str:
    """One line about an exception."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
