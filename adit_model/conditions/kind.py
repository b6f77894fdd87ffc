"""Base class of the kinds of condition."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adit_model.conditions.condition import Condition
    from adit_model.conditions.known import Known
    from adit_model.systems import AtomicSystem


class Kind(ABC):
    """One thing that can be asked of a structure.

    Whoever adds a kind writes one file with one subclass, and adds it to
    :data:`adit_model.conditions.condition.KINDS`.

    Attributes
    ----------
    name : str
        Field of :class:`~adit_model.conditions.condition.Condition`.
    keys : tuple of str
        Keys in the text form; the first is written, all are read.
    """

    name: str
    keys: tuple[str, ...] = ()

    @abstractmethod
    def read(self, value: Any) -> Any:
        """Bring a value or its text to the one form that a condition holds.

        Raises
        ------
        ValueError, TypeError
            If it has no such form; the text lists what is known.
        """

    @abstractmethod
    def write(self, value: Any) -> list[str]:
        """Parts of the text form, which :meth:`read` reads back."""

    @abstractmethod
    def label(self, system: AtomicSystem) -> Any:
        """Read off a structure what would have to be asked to get it; None if it has none."""

    @abstractmethod
    def holds(self, value: Any, system: AtomicSystem) -> bool | None:
        """Whether a structure is as asked; None where the structure alone does not tell."""

    def contradiction(self, condition: Condition) -> str | None:
        """Why no structure can be so, whatever the weights; None if one can."""
        return None

    def refusal(self, condition: Condition, domain: str, known: Known) -> str | None:
        """Why these weights cannot make such a structure of this domain; None if they can."""
        return None
