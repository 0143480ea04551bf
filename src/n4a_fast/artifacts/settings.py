"""What a store is told about artifacts when it is opened."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from n4a_fast.artifacts.trust import Trust, trust
from n4a_fast.errors import InvalidInputError
from n4a_fast.values import checks

OBJECT_CACHE_BYTES = 256 * 2**20


@dataclass(frozen=True, slots=True)
class ArtifactSettings:
    """Of one store; several stores on one folder may differ."""

    trust: Trust = Trust()  # noqa: RUF009  a frozen value
    compress: bool = False
    object_cache_bytes: int = OBJECT_CACHE_BYTES


DEFAULTS = ArtifactSettings()


class AgreedTrust:
    """What the stores on one folder trust: the default, unless one of them asks for something else."""

    def __init__(self) -> None:
        self._trusts: list[Trust] = []  # of each open store

    def use(self, settings: ArtifactSettings) -> None:
        """What one more store trusts holds for all of them until it `leave`s; InvalidInputError where it cannot."""
        if settings.trust != Trust() and self.trust not in (Trust(), settings.trust):
            raise InvalidInputError(
                f"this folder is open with trusted={self.trust}, not {settings.trust}: close that store, or open both"
                " alike"
            )
        self._trusts.append(settings.trust)

    def leave(self, settings: ArtifactSettings) -> None:
        """A store that asked for these settings is closed."""
        self._trusts.remove(settings.trust)

    @property
    def trust(self) -> Trust:
        return next((trust for trust in self._trusts if trust != Trust()), Trust())


def settings(trusted: str | Iterable[str], compression: str | None, object_cache_bytes: int) -> ArtifactSettings:
    """Checked settings; InvalidInputError names the wrong one."""
    if compression is not None and (not isinstance(compression, str) or compression != "zstd"):
        raise InvalidInputError(f'compression must be None or "zstd", got {compression!r}')
    return ArtifactSettings(
        trust(trusted), compression == "zstd", checks.count(object_cache_bytes, "object_cache_bytes")
    )
