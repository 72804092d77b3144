"""What is compared: our settings, and the codecs a user may have already."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from napari_tinc.choices import AUTO, FAMILIES, WAVELET
from napari_tinc.compare import peers
from napari_tinc.errors import InputError
from napari_tinc.settings import Settings

TINC = "tinc"
STRATEGIES = ("default", *(f"{between}/{within}" for within in ("equal", "importance") for between in
                   ("even", "shallow", "deep", "auto")))  # fmt: skip
NETWORK = "tinc"
# What `compress` does by itself, wavelets without a network, and other families; all else are strategies of tinc.
MODELS = {"default": AUTO, WAVELET: WAVELET} | {name: name for name in FAMILIES if name != NETWORK}
EXTRA_STRATEGIES = tuple(name for name in MODELS if name != "default")
# One of each kind: what there is without a network, the tree, and every other family.
OF_FAMILIES = (WAVELET, "shallow/equal", *(name for name in MODELS if name in FAMILIES))


@dataclass(frozen=True)
class Candidate:
    """One way to make a file of a volume.

    Parameters
    ----------
    codec : str
        ``"tinc"``, or a name of :data:`napari_tinc.compare.peers.PEERS`.
    settings : Settings, optional
        How to compress; for ``"tinc"`` alone.

    Raises
    ------
    InputError
        If there is no such codec, or the settings need weights that a comparison does not have.
    """

    codec: str
    settings: Settings | None = None

    def __post_init__(self) -> None:
        if self.codec != TINC:
            peers.named(self.codec)
        if (self.codec == TINC) != (self.settings is not None):
            raise InputError(f"expected settings for {TINC!r} and for it alone, got {self.settings} for {self.codec!r}")
        if self.settings is not None and self.settings.within == "map":
            raise InputError("expected a strategy that needs no weights, got 'map'; compress with weights instead")

    @classmethod
    def tinc(cls, strategy: str, preset: str = "fast", *, device: str = "auto", seed: int = 0,
             time_limit: float | None = None) -> Candidate:  # fmt: skip
        """Read a strategy as users write it.

        Parameters
        ----------
        strategy : str
            ``between/within`` such as ``"shallow/importance"``, with ``@3`` behind it for a tree of three levels:
            networks of tinc alone. ``"default"`` is what :func:`napari_tinc.compress` does by itself, ``"wavelet"``
            a file without a network, the name of another family, such as ``"siren"``, a network of it alone.
        preset, device, seed, time_limit
            See :func:`napari_tinc.encode.compression.compress_steps`.

        Raises
        ------
        InputError
            If the text is no strategy.
        """
        if strategy in MODELS:
            return cls(TINC, Settings(preset, device=device, seed=seed, time_limit=time_limit, model=MODELS[strategy]))
        names, _, levels = strategy.partition("@")
        between, _, within = names.partition("/")
        if levels and not levels.isdigit():
            raise InputError(f"expected a strategy such as 'shallow/equal@3', got {strategy!r}; levels are a number")
        settings = Settings(
            preset, between, within or "equal", int(levels) if levels else None, device, seed, time_limit, NETWORK
        )
        return cls(TINC, settings)

    @property
    def name(self) -> str:
        """What tables and titles call it."""
        if self.settings is None:
            return self.codec
        for name, model in MODELS.items():
            if self.settings.model == model:
                return f"{name} {self.settings.preset}"
        between = self.settings.between
        ratios = between if isinstance(between, str) else ",".join(f"{ratio:g}" for ratio in between)
        levels = "" if self.settings.levels is None else f"@{self.settings.levels}"
        return f"{ratios}/{self.settings.within}{levels} {self.settings.preset}"

    def missing(self) -> str | None:
        """Why it cannot be tried here, or None."""
        return None if self.codec == TINC else peers.named(self.codec).missing()

    def as_dict(self) -> dict[str, Any]:
        """Everything that decides over its file, for JSON."""
        chosen = None if self.settings is None else asdict(self.settings)
        if chosen is not None:
            del chosen["promised"]  # found out while it runs
        return {"codec": self.codec, "settings": chosen}


def default_candidates(preset: str = "fast") -> tuple[Candidate, ...]:
    """Our strategies and all peers, the missing ones included: the comparison says why they are."""
    return candidates(STRATEGIES, peers.PEERS, preset)


def candidates(strategies: Iterable[str], codecs: Iterable[str], preset: str = "fast") -> tuple[Candidate, ...]:
    """Our settings by their strategies, then peers by name; see :meth:`Candidate.tinc`."""
    ours = [Candidate.tinc(strategy, preset) for strategy in strategies]
    return tuple(dict.fromkeys([*ours, *(Candidate(codec) for codec in codecs)]))


def check_distinct(chosen: Sequence[Candidate]) -> None:
    """Refuse candidates of one name: nobody could tell their rows apart.

    Raises
    ------
    InputError
        With the name.
    """
    names = [candidate.name for candidate in chosen]
    if not names:
        raise InputError("expected at least one strategy or codec to compare, got none; name some")
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"expected candidates of different names, got two called {name!r}; leave one out")
