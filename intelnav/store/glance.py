"""What can be seen to be wrong with a store without hashing it, and without having it open."""

from pathlib import Path

from intelnav.domain.errors import ContentError
from intelnav.store.blobs import Fault, HeldSlice, Store
from intelnav.store.faults import fault_in_frame
from intelnav.store.folder import Folder
from intelnav.store.layout import model_of, plan_slice
from intelnav.store.manifest import kv_blobs


def glance(root: Path) -> tuple[list[HeldSlice], list[Fault]]:
    """The whole slices in the store at `root`, and the manifests and slices that cannot be right.

    Nothing is changed, so that a node may use the store meanwhile. Raises OSError if it cannot be read.
    """
    store, folder = Store(root, None), Folder(root)
    faults = [
        Fault(cid, None, folder.manifest(cid), "its manifest is damaged")
        for cid in folder.models()
        if store.manifest(cid) is None
    ]
    slices = store.slices()
    for held in slices:
        if (reason := _fault(store, held)) is not None:
            faults.append(Fault(held.model, held.layers, held.path, reason))
    return slices, faults


def _fault(store: Store, held: HeldSlice) -> str | None:
    manifest = store.manifest(held.model)
    if manifest is None:
        return "there is no manifest of its model"
    found = [data for blob in kv_blobs(manifest, held.layers) if (data := store.blob(blob)) is not None]
    if len(found) != len(kv_blobs(manifest, held.layers)):
        return "metadata of its model is not here, or damaged"
    metadata, *tokenizer = found
    try:
        plan = plan_slice(model_of(manifest, metadata, b"".join(tokenizer)), held.layers, manifest.cid)
    except ContentError as error:
        return str(error)
    return fault_in_frame(held.path, plan)
