"""Who serves a model. For now the peers that the config file names; the DHT will answer the same question."""

from collections.abc import Iterable

from intelnav.domain.advert import Advert


class StaticDiscovery:
    """Adverts that never change."""

    def __init__(self, adverts: Iterable[Advert]) -> None:
        self._adverts = tuple(adverts)

    async def providers(self, model: str) -> list[Advert]:
        """Every known advert for the model with this CID, in the order of the config."""
        return [advert for advert in self._adverts if advert.model == model]
