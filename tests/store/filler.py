"""Processes that fill a store until they are killed: `python -m tests.store.filler STORE MODEL MANIFEST LOG LAYERS...`.

For a line on stdin one is forked, which saves the start of an interpreter; its pid is printed, and `go` once it has
opened the store, and `done` when it has ended. It is not reaped before the next line, so that its pid stays its own;
then its exit status is printed. Each piece that the store has taken is noted in LOG as layers, CID and index, by one
write each.
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


def fill(root: Path, model: Path, manifest: Manifest, noted: Path, ranges: list[LayerRange]) -> None:
    """Open the store and bring all the slices, and a few other manifests between their pieces."""
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


def main() -> None:
    """Start a process, and reap it, for each two lines that are read."""
    root, model, manifest, noted = map(Path, sys.argv[1:5])
    known = Manifest.from_bytes(manifest.read_bytes())
    ranges = [LayerRange.parse(text) for text in sys.argv[5:]]
    while sys.stdin.readline():
        child = os.fork()
        if child == 0:
            fill(root, model, known, noted, ranges)
            os._exit(0)
        print(child, flush=True)
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        print("done", flush=True)
        sys.stdin.readline()
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
