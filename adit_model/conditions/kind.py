"""Base class of the kinds of condition."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Protocol

from adit_model.systems import AtomicSystem


class Asked(Protocol):
    """What a kind sees of the condition that it is part of: its fields, None where free."""

    @property
    def domain(self) -> str | None: ...  # noqa: D102
    @property
    def num_atoms(self) -> Any: ...  # noqa: D102
    @property
    def elements(self) -> Any: ...  # noqa: D102
    @property
    def formula(self) -> Any: ...  # noqa: D102
    @property
    def formula_units(self) -> Any: ...  # noqa: D102
    @property
    def space_group(self) -> Any: ...  # noqa: D102
    @property
    def properties(self) -> Any: ...  # noqa: D102
    @property
    def cell(self) -> Any: ...  # noqa: D102
    @property
    def atoms(self) -> Any: ...  # noqa: D102


class Knows(Protocol):
    """What a kind sees of :class:`~adit_model.conditions.known.Known`."""

    @property
    def sizes(self) -> Mapping[str, Mapping[int, int]]: ...  # noqa: D102
    @property
    def elements(self) -> Mapping[str, tuple[int, ...]]: ...  # noqa: D102
    @property
    def properties(self) -> Mapping[str, Any]: ...  # noqa: D102
    @property
    def learned(self) -> tuple[str, ...]: ...  # noqa: D102


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
    def holds(self, value: Any, system: AtomicSystem) -> bool | None:
        """Whether a structure is as asked; None where the structure alone does not tell."""

    def contradiction(self, condition: Asked) -> str | None:
        """Why no structure can be so, whatever the weights; None if one can."""
        return None

    def refusal(self, condition: Asked, domain: str, known: Knows) -> str | None:
        """Why these weights cannot make such a structure of this domain; None if they can."""
        return None

    def caution(self, condition: Asked, known: Knows) -> str | None:
        """Warn of what is unlike the training data, though it can be asked; None if nothing is."""
        return None
