"""What a checkpoint can be told, and the range of it in the training data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from adit_model.systems import CRYSTAL, DOMAINS


@dataclass(frozen=True)
class PropertyRange:
    """Values of a property in the training data.

    Parameters
    ----------
    unit : str
        Such as ``"eV"``, ``"eV/atom"``; empty for a number without one.
    min, max, mean, std : float
        Of the values, in that unit.
    domains : tuple of str
        Of the systems that have the property.
    """

    unit: str
    min: float
    max: float
    mean: float
    std: float
    domains: tuple[str, ...] = (CRYSTAL,)


@dataclass(frozen=True)
class Known:
    """What a checkpoint can be told.

    Parameters
    ----------
    sizes : mapping
        For each domain that was trained on, the number of training systems of each atom count,
        ``{"crystal": {4: 120, ...}, ...}``. A count that is missing was never seen.
    elements : mapping
        For each domain the atomic numbers in its training data; a domain is missing where the
        checkpoint does not say.
    properties : mapping
        Name to :class:`PropertyRange` of what was learned.
    learned : tuple of str
        Kinds of condition that the network was taught: ``"domain"``, ``"num_atoms"``,
        ``"elements"``, ``"formula"``, ``"space_group"``, ``"properties"``, ``"cell"``, ``"atoms"``.
    """

    sizes: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    elements: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    properties: Mapping[str, PropertyRange] = field(default_factory=dict)
    learned: tuple[str, ...] = ()

    @property
    def domains(self) -> tuple[str, ...]:
        """Domains that were trained on, crystals first."""
        return tuple(d for d in DOMAINS if self.sizes.get(d))

    @property
    def largest_cell(self) -> int | None:
        """Atoms in the largest cell of the training data; None without crystals."""
        return max(self.sizes.get(CRYSTAL, {}), default=None)

    def as_dict(self) -> dict[str, Any]:
        """Return plain dictionaries and lists, as the metadata of a checkpoint hold them."""
        return {
            "sizes": {
                d: {str(k): n for k, n in counts.items()} for d, counts in self.sizes.items()
            },
            "elements": {domain: list(numbers) for domain, numbers in self.elements.items()},
            "properties": {
                name: {**asdict(values), "domains": list(values.domains)}
                for name, values in self.properties.items()
            },
            "learned": list(self.learned),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Known:
        """Read what :meth:`as_dict` gives, from JSON too.

        Raises
        ------
        ValueError
            If something in it is of another form.
        """
        try:
            return cls(
                sizes={
                    str(domain): {int(k): int(n) for k, n in counts.items()}
                    for domain, counts in data.get("sizes", {}).items()
                },
                elements={
                    str(domain): tuple(int(z) for z in numbers)
                    for domain, numbers in data.get("elements", {}).items()
                },
                properties={
                    str(name): PropertyRange(**{**values, "domains": tuple(values["domains"])})
                    for name, values in data.get("properties", {}).items()
                },
                learned=tuple(str(kind) for kind in data.get("learned", ())),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"what the weights know is not readable: {error}") from error
