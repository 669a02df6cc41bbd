"""A process that fills a store until it is killed: `python -m tests.store.filler STORE MODEL LOG LAYERS...`.

Each piece that the store has taken is noted in LOG, a line of CID and index, by one write each.
"""

import os
import sys
from dataclasses import replace
from pathlib import Path

from intelnav.domain.slice import LayerRange
from intelnav.store.blobs import Store
from intelnav.store.extents import in_file
from intelnav.store.gguf_reader import read_header
from intelnav.store.manifest import Manifest, kv_blobs


def main(root: Path, model: Path, manifest: Manifest, noted: Path, ranges: list[LayerRange]) -> None:
    """Bring all the slices, and a few other manifests between their pieces."""
    places = in_file(manifest, read_header(model), model)
    log = os.open(noted, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    count = 0
    with Store.open(root, None) as store:
        print("go", flush=True)
        for layers in ranges:
            if store.slice(manifest.cid, layers):
                continue
            for blob in kv_blobs(manifest, layers):
                store.put_blob(blob, b"".join(places[blob.cid].read(0, blob.size)))
            partial = store.begin(manifest, layers)
            for blob, index in partial.missing():
                partial.write(blob, index, b"".join(places[blob.cid].read(*blob.bounds(index))))
                os.write(log, f"{layers} {blob.cid} {index}\n".encode())
                count += 1
                if count % 8 == 0:
                    store.add_manifest(replace(manifest, name=f"{layers} {count}"))
            partial.finish()


if __name__ == "__main__":
    main(
        Path(sys.argv[1]),
        Path(sys.argv[2]),
        Manifest.from_bytes(Path(sys.argv[3]).read_bytes()),
        Path(sys.argv[4]),
        [LayerRange.parse(text) for text in sys.argv[5:]],
    )
