"""The models of one node: what its store holds, what the catalog offers, and what the config calls them."""

from collections.abc import Callable, Collection, Iterable

from anyio import from_thread, to_thread

from intelnav.api.control import Conflict
from intelnav.api.models import Damage, ListedModel, Listing
from intelnav.config import NodeConfig
from intelnav.controller.capacity import hostable_by_size, hostable_layers, machine_memory
from intelnav.domain.errors import ConfigError, ContentError
from intelnav.domain.job import JobProgress
from intelnav.domain.model_ref import ModelRef
from intelnav.domain.slice import LayerRange
from intelnav.engine.interface import SliceSpec
from intelnav.net.importer import import_model
from intelnav.store.blobs import HeldSlice, Store
from intelnav.store.catalog import EMBEDDED, Catalog, CatalogEntry
from intelnav.store.embedded import embedded_model
from intelnav.store.folder import on_disk
from intelnav.store.layout import model_of
from intelnav.store.manifest import Manifest
from intelnav.store.names import Names, closest, imported_file

Slices = Collection[tuple[str, LayerRange]]


class Library:
    """See `api.models.Library`. `config` can be set to another one at any time.

    `in_use` says which slices the node wants: they are neither removed nor evicted.
    """

    def __init__(
        self, config: NodeConfig, store: Store, catalog: Catalog, in_use: Callable[[], Slices]
    ) -> None:
        self.config = config
        self._store = store
        self._catalog = catalog
        self._names = Names(store, catalog)
        self._in_use = in_use
        self._coming: set[str] = set()

    async def listing(self) -> Listing:
        """What is here and what can be had."""
        return await to_thread.run_sync(self._listing)

    async def bring(self, what: str, progress: JobProgress) -> ListedModel:
        """Import a file (by its absolute path), a URL, `hf://OWNER/REPO/FILE` or a catalog name."""
        entry = await to_thread.run_sync(self._entry, what)
        origin = what if entry is None else entry.origin
        if origin == EMBEDDED:
            origin = str(await to_thread.run_sync(embedded_model))
        if origin in self._coming:
            raise Conflict(f"{what} is being imported already; wait for it")
        self._coming.add(origin)
        try:
            manifest = await import_model(
                self._store,
                origin,
                progress,
                entry=entry,
                keep=self._in_use(),
                rate=self.config.store.rate,
            )
        finally:
            self._coming.discard(origin)
        return await to_thread.run_sync(self._listed, manifest, self._store.slices())

    async def remove(self, cid: str, layers: LayerRange | None) -> int:
        """Remove one slice of a model, or all of it; returns the number of bytes freed. A file of the user's stays."""
        for model, used in self._in_use():
            if model == cid and layers in (None, used):
                raise Conflict(f"layers {used} of {cid} are in use: take them out of the config first")
        return await to_thread.run_sync(self._remove, cid, layers)

    async def verify(self, cid: str | None, progress: JobProgress) -> tuple[Damage, ...]:
        """Hash again what is here of a model, or of all; what is damaged is set aside."""
        return await to_thread.run_sync(self._verify, cid, progress)

    def _entry(self, what: str) -> CatalogEntry | None:
        """The catalog's entry for what is to be imported."""
        if what.startswith("/"):
            return None
        try:
            ref = ModelRef.parse(what)
        except ValueError as error:
            raise ConfigError(f"{what[:200]}: {error}") from None
        found = self._catalog.named(what) or self._catalog.of_origin(what) or self._catalog.of_cid(what)
        if found is None and ref.kind == "cid":
            raise ConfigError(f"{what} is not in the catalog: a slice of it comes by naming it in the config")
        if found is None and ref.kind == "name":
            names = [entry.name for entry in self._catalog.entries]
            raise ConfigError(f"no model of the catalog is called {what}; {closest(what, names)}")
        return found

    def _listing(self) -> Listing:
        manifests, slices = self._store.manifests(), self._store.slices()
        local = sorted((self._listed(manifest, slices) for manifest in manifests), key=lambda one: one.name)
        here = {entry.name for manifest in manifests if (entry := self._names.entry_of(manifest)) is not None}
        offered = [_offered(entry) for entry in self._catalog.entries if entry.name not in here]
        return Listing((*local, *offered), self._store.used(), self.config.store.max_bytes)

    def _listed(self, manifest: Manifest, slices: Iterable[HeldSlice]) -> ListedModel:
        cid = manifest.cid
        entry, file, own = (
            self._names.entry_of(manifest),
            self._store.file_of(cid),
            imported_file(self._store, cid),
        )
        held = sorted((held for held in slices if held.model == cid), key=lambda held: held.layers)
        origins = self._store.origins(cid)
        return ListedModel(
            name=self._names.of(manifest)[0],
            title=entry.title if entry is not None else manifest.name,
            where="local",
            architecture=manifest.architecture,
            blocks=manifest.blocks,
            quantisation=entry.quantisation if entry is not None else manifest.quantisation,
            cid=cid,
            size_bytes=manifest.file.size,
            file=str(file) if file is not None else None,
            held=tuple(str(held.layers) for held in held),
            held_bytes=sum(held.bytes for held in held) + on_disk(own),
            hostable_layers=self._hostable(manifest),
            origin=next(iter(origins), entry.origin if entry is not None else None),
            license=entry.license if entry is not None else None,
            cuts=entry.cuts if entry is not None else (),
        )

    def _hostable(self, manifest: Manifest) -> int | None:
        """How many layers fit; without the metadata, which tell what the caches take, by their size alone."""
        metadata = self._store.blob(manifest.metadata)
        if metadata is None:
            return hostable_by_size(manifest.file.size, manifest.blocks, machine_memory())
        limits = self.config.limits
        try:
            model = model_of(manifest, metadata, None)
            # No file of its own, but what room each of its slices would get.
            room = SliceSpec(
                self._store.root,
                sessions=limits.sessions,
                context=min(limits.context, model.context),
                max_rows=limits.rows,
            )
            return hostable_layers(model, room, machine_memory())
        except ContentError:
            return None

    def _remove(self, cid: str, layers: LayerRange | None) -> int:
        manifest = self._store.manifest(cid)
        if manifest is None:
            raise ConfigError(f"no model {cid} is here")
        if layers is not None:
            held = [one.layers for one in self._store.slices() if one.model == cid]
            if layers not in held:
                there = ", ".join(map(str, held)) or "none"
                raise ConfigError(
                    f"no slice {layers} of {self._names.of(manifest)[0]} is here; there are: {there}"
                )
            return self._store.remove(cid, layers)
        # The file first: what a crash would leave is a note about a file that is gone, which means nothing.
        own = imported_file(self._store, cid)
        freed = on_disk(own)
        own.unlink(missing_ok=True)
        return freed + self._store.remove(cid, None)

    def _verify(self, cid: str | None, progress: JobProgress) -> tuple[Damage, ...]:
        manifests = [manifest for manifest in self._store.manifests() if cid in (None, manifest.cid)]
        if cid is not None and not manifests:
            raise ConfigError(f"no model {cid} is here")
        slices = self._store.slices()
        sizes = {
            manifest.cid: sum(held.bytes for held in slices if held.model == manifest.cid)
            + (manifest.file.size if self._store.file_of(manifest.cid) is not None else 0)
            for manifest in manifests
        }
        progress.enter("verifying", sum(sizes.values()))
        damage: list[Damage] = []
        for manifest in manifests:
            from_thread.check_cancelled()
            for fault in self._store.verify(manifest.cid):
                if fault.path == imported_file(self._store, manifest.cid):
                    fault.path.unlink(missing_ok=True)
                part = str(fault.layers) if fault.layers is not None else str(fault.path)
                damage.append(Damage(manifest.cid, part, fault.reason))
            progress.done += sizes[manifest.cid]
        return tuple(damage)


def _offered(entry: CatalogEntry) -> ListedModel:
    fits = entry.size and hostable_by_size(entry.size, entry.blocks, machine_memory())
    return ListedModel(
        name=entry.name,
        title=entry.title,
        where="catalog",
        architecture=entry.architecture,
        blocks=entry.blocks,
        quantisation=entry.quantisation,
        cid=entry.cid,
        size_bytes=entry.size,
        hostable_layers=fits,
        origin=entry.origin,
        license=entry.license,
        cuts=entry.cuts,
    )
