"""What a checkpoint can be told, and whether it can make what is asked of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from adit_model.conditions.atoms import MOST_ATOMS, ElementOrders, composition_of
from adit_model.conditions.condition import KINDS, Condition
from adit_model.conditions.counts import allows
from adit_model.conditions.partial import fixed_elements
from adit_model.systems import CRYSTAL, DOMAINS, MAX_ATOMIC_NUMBER, MOLECULE


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
    error : float or None
        Mean absolute error of the estimate by the weights, of structures held out when that was
        fitted; None where they give no estimate.
    """

    unit: str
    min: float
    max: float
    mean: float
    std: float
    domains: tuple[str, ...] = (CRYSTAL,)
    error: float | None = None

    def __str__(self) -> str:
        return f"{self.min:.4g} to {self.max:.4g} {self.unit}".rstrip()


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
            known = cls(
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
            known._check()
            return known
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"what the weights know is not readable: {error}") from error

    def _check(self) -> None:
        for domain, counts in self.sizes.items():
            if domain not in DOMAINS:
                raise ValueError(f"{domain!r} is no domain")
            for size, count in counts.items():
                if not 1 <= size <= MOST_ATOMS or count < 1:
                    raise ValueError(f"{count} {domain}s of {size} atoms")
        for domain, numbers in self.elements.items():
            if numbers and not 1 <= min(numbers) <= max(numbers) <= MAX_ATOMIC_NUMBER:
                raise ValueError(f"{domain}s hold the elements {min(numbers)} to {max(numbers)}")
        for name, values in self.properties.items():
            if not all(map(math.isfinite, (values.min, values.max, values.mean, values.std))):
                raise ValueError(f"the range of {name} is not finite")
            if values.error is not None and not 0 <= values.error < math.inf:
                raise ValueError(f"the error of {name} is {values.error}")

    @classmethod
    def of_checkpoint(cls, config: Mapping[str, Any], section: Mapping[str, Any]) -> Known:
        """Read what a checkpoint says.

        Where it does not list the elements of a domain, they are all that its networks can name.

        Parameters
        ----------
        config, section : mapping
            ``config`` and ``known`` of the metadata of the checkpoint.

        Raises
        ------
        ValueError
            If something in them is of another form or out of range.
        """
        known = cls.from_dict(section)
        places = config["autoencoder"]["num_elements"]
        vocabulary = tuple(range(1, min(places, MAX_ATOMIC_NUMBER + 1)))
        elements = dict(known.elements)
        for domain in known.domains:
            if domain not in elements:
                elements[domain] = vocabulary
        return replace(known, elements=elements)

    def refusal(self, condition: Condition, domain: str) -> str | None:
        """Say why no such structure of a domain can be made; None if one can."""
        if condition.domain not in (None, domain):
            return f"a {condition.domain} was asked for"
        if not self.sizes.get(domain):
            return (
                f"the checkpoint was not trained on domain {domain!r}, "
                f"only on {', '.join(self.domains) or 'none'}"
            )
        for kind in KINDS.values():
            reason = kind.refusal(condition, domain, self)
            if reason is not None:
                return reason
        if not self.counts_for(condition, domain):
            return f"no number of atoms of the training {domain}s fits all parts together"
        return None

    def domains_for(self, condition: Condition) -> tuple[str, ...]:
        """Find the domains in which a condition can be met.

        Raises
        ------
        ValueError
            If there are none; the text says why for each that the checkpoint knows.
        """
        wanted = DOMAINS if condition.domain is None else (condition.domain,)
        tried = [d for d in wanted if d in self.domains] or list(wanted)
        reasons = {domain: self.refusal(condition, domain) for domain in tried}
        found = tuple(domain for domain, reason in reasons.items() if reason is None)
        if found:
            return found
        texts = "; ".join(dict.fromkeys(str(reason) for reason in reasons.values()))
        raise ValueError(f"'{condition}' cannot be made: {texts}")

    def counts_for(
        self, condition: Condition, domain: str, orders: ElementOrders | None = None
    ) -> dict[int, int]:
        """Numbers of atoms that a condition allows, and how often to draw each.

        Parameters
        ----------
        condition : Condition
            What is asked for.
        domain : str
            ``"crystal"`` or ``"molecule"``.
        orders : ElementOrders
            Those of the training molecules, to draw from those with the elements asked for.
        """
        found: Mapping[int, int] = self.sizes[domain]
        least = len(condition.atoms or ()) + len(
            set(condition.elements or ()) - set(fixed_elements(condition))
        )
        if domain == MOLECULE and condition.elements is not None and orders is not None:
            found = {
                k: n for k, n in orders.of_elements(condition.elements).counts.items() if k in found
            }
        if condition.formula is not None:
            unit, fixed = composition_of(condition.formula), fixed_elements(condition)
            size = sum(unit.values())
            units = 1 if domain == MOLECULE else condition.formula_units
            found = {
                k: n
                for k, n in found.items()
                if k % size == 0
                and allows(units, k // size)
                and all(fixed[s] <= unit[s] * (k // size) for s in fixed)
            }
        return {
            k: n for k, n in sorted(found.items()) if k >= least and allows(condition.num_atoms, k)
        }
