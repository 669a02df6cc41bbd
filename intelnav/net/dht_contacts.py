"""The contacts that answered last, kept in a file: with them a node finds back when every bootstrap address is dead."""

import json
import logging
import os
import secrets
from collections import OrderedDict
from collections.abc import Collection
from pathlib import Path
from typing import Any

from intelnav.dht.contacts import Contact, pack_address, unpack_address
from intelnav.domain.identity import PeerId

log = logging.getLogger(__name__)

KEPT = 200
_MAX_FILE = 256 * 1024


class KnownContacts:
    """The last 200 contacts that answered, newest last. `path` is None for a node that keeps no file."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._contacts: OrderedDict[bytes, Contact] = OrderedDict()
        self._saved: list[Contact] = []
        for contact in _read(path) if path is not None else ():
            self.answered(contact)

    def __len__(self) -> int:
        return len(self._contacts)

    def answered(self, contact: Contact) -> None:
        """It is alive."""
        self._contacts.pop(contact.key, None)
        self._contacts[contact.key] = contact
        if len(self._contacts) > KEPT:
            self._contacts.popitem(last=False)

    def all(self) -> Collection[Contact]:
        """Every contact."""
        return self._contacts.values()

    def save(self) -> None:
        """Write the file if anything changed, never seen half written. A full disk is no reason to stop."""
        contacts = list(self._contacts.values())
        if self._path is None or contacts == self._saved:
            return
        content = [[str(PeerId(contact.key)), contact.host, contact.port] for contact in contacts]
        draft = self._path.with_name(f".{self._path.name}.{secrets.token_hex(4)}")
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                draft.write_text(json.dumps({"contacts": content}, indent=0))
                os.replace(draft, self._path)
            finally:
                draft.unlink(missing_ok=True)
        except OSError as error:
            log.warning("contacts cannot be kept in %s: %s", self._path, error.strerror)
        else:
            self._saved = contacts


def _read(path: Path) -> list[Contact]:
    """What a file holds; one that is missing or spoilt holds nothing, and the bootstrap addresses have to do."""
    try:
        with path.open("rb") as file:
            content = json.loads(file.read(_MAX_FILE))
        return [_contact(entry) for entry in content["contacts"][-KEPT:]]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        log.warning("%s holds no contacts (%s); it will be written anew", path, str(error)[:100])
        return []


def _contact(entry: Any) -> Contact:
    peer, host, port = entry
    if not isinstance(host, str):
        raise ValueError("a host is text")
    return Contact(PeerId.parse(peer).key, *unpack_address(pack_address(host, port)))
